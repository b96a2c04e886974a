"""All export formats of one network, on single faces with one thread: size, difference from Flax, accuracy, CPU time.

Each format is written (and thereby checked) in its own process, compared with Flax on faces of the dataset's validation
split, and then called with one face at a time. Preprocessing inside the file is included; decoding, detection and
resizing are not. LiteRT's int8 is calibrated on faces of the train split. Without --data_dir the faces are noise, and
the network may be a backbone with random weights: then only sizes and times are meaningful.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.harness import Side

GOAL = "float exports equal Flax (1e-3), int8 loses at most 1 point of accuracy, none slower than Flax"
UNIT = "face"
MEASURE = "cpu_s"
FORMATS = ("flax", "stablehlo", "onnx", "litert_float32", "litert_float16", "litert_int8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds options for the network and the faces."""
    parser.add_argument("--model", default="mobilenet_v1", help="a backbone, a trained folder or published weights")
    parser.add_argument("--data_dir", help="folder of prepared datasets; requires a trained network")
    parser.add_argument("--set", default="facial_expressions", help="prepared dataset (default: %(default)s)")
    parser.add_argument("--task", default="gender", help="task whose accuracy is reported (default: %(default)s)")
    parser.add_argument("--faces", type=int, default=600, help="faces to compare on (default: %(default)s)")
    parser.add_argument(
        "--calibration", type=int, default=128, help="calibration faces for int8 (default: %(default)s)"
    )
    parser.add_argument("--calls", type=int, default=40, help="calls per round (default: %(default)s)")
    parser.set_defaults(threads=1)


def sides(args: argparse.Namespace) -> list[Side]:
    """One side per format; Flax itself is the first."""
    shared = {"model": args.model, "data_dir": args.data_dir, "name": args.set, "task": args.task}
    shared |= {"faces": args.faces, "calibration": args.calibration, "calls": args.calls}
    return [Side(name, "exports.exported", {**shared, "format_": name}) for name in FORMATS]


def describe(result: Mapping[str, Any]) -> str:
    """Formats the results as a Markdown table."""
    first = result["sides"][0]["summary"]
    lines = [
        "| format | MB | largest difference from Flax | accuracy % | same class as Flax % | CPU ms per face | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for side in result["sides"]:
        figures = side["summary"]
        differences = [
            f"{key.removeprefix('difference_')} {value:.1e}"
            for key, value in figures.items()
            if key.startswith("difference_")
        ]
        size = f"{figures['file_mb']:.2f}" if "file_mb" in figures else "-"
        kept = [f"{100 * figures[key]:.2f}" if key in figures else "-" for key in ("accuracy", "same_class")]
        time = f"{1e3 * figures['cpu_s']:.1f}"
        ratio = f"{figures['cpu_s'] / first['cpu_s']:.2f}"
        cells = [side["name"], size, ", ".join(differences) or "-", *kept, time, ratio]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def exported(
    format_: str,
    model: str,
    data_dir: str | None,
    name: str,
    task: str,
    faces: int,
    calibration: int,
    calls: int,
) -> Callable[[], dict[str, float]]:
    """Exports to a format, compares the file with Flax, and returns rounds of calls with one face each."""
    import itertools
    import pathlib
    import tempfile

    import numpy as np

    from facejax.export.network import compare, face_network

    loaded = _load(model, data_dir)
    crops, labels = _faces(data_dir, name, "validation", task, faces)
    network = face_network(loaded, "shift" if format_ in ("flax", "stablehlo") else "conv")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "network"
        train = _faces(data_dir, name, "train", task, calibration)[0] if format_ == "litert_int8" else ()
        run = _write(format_, network, path, crops[:16], train)
        figures = {} if format_ == "flax" else {"file_mb": path.stat().st_size / 1e6}
    if format_ != "flax":
        check = compare(network, lambda images: _in_turn(run, images), crops)
        figures |= {f"difference_{output}": value for output, value in check["max_difference"].items()}
    images = network.prepare(crops)
    if task in network.outputs:
        expected, got = (found[task].argmax(axis=1) for found in (network.reference(images), _in_turn(run, images)))
        figures["same_class"] = float((expected == got).mean())
        if data_dir is not None:
            figures["accuracy"] = float((got == labels)[labels >= 0].mean())
    one_by_one = itertools.cycle(images[:, None])

    def work() -> dict[str, float]:
        for _ in range(calls):
            {key: np.asarray(value) for key, value in run(next(one_by_one)).items()}
        return {"items": calls, **figures}

    return work


def _load(model: str, data_dir: str | None) -> Any:
    """Loads a trained network; without faces, a backbone with random weights is allowed."""
    from facejax.inference import LoadedModel, load_model
    from facejax.models import init_variables, list_models, model_from_cfg, pretrained_cfg

    if model not in list_models():
        return load_model(model)
    if data_dir is not None:
        raise ValueError(f"{model} has no weights, so --data_dir is meaningless: give a folder or published weights")
    import dataclasses

    cfg = dataclasses.replace(pretrained_cfg(model), tasks=("gender", "emotion8"))
    return LoadedModel(cfg, init_variables(model_from_cfg(cfg), 0, cfg.preprocessing.image_size))


def _faces(data_dir: str | None, name: str, split: str, task: str, count: int) -> tuple[list[Any], Any]:
    """Crops of labelled faces and their classes for the task, drawn with a fixed seed; noise without a dataset."""
    import numpy as np

    from facejax.tasks import TASKS

    rng = np.random.default_rng(0)
    if data_dir is None:
        return list(rng.integers(0, 256, (min(count, 32), 64, 64, 3), np.uint8)), np.full(min(count, 32), -1)
    from facejax.data.source import FaceSource
    from facejax.train.labels import class_labels

    source = FaceSource(data_dir, name, split)
    labels = class_labels(source, TASKS[task])
    chosen = rng.permutation(np.flatnonzero(labels >= 0))[:count]
    return [source.read(int(index))["image"] for index in chosen], labels[chosen]


def _write(format_: str, network: Any, path: Any, faces: Sequence[Any], calibration: Sequence[Any]) -> Callable:
    """Writes and opens the file; returns a function that runs a batch of one: images -> arrays by output."""
    if format_ == "flax":
        import jax

        compiled = jax.jit(network.function)
        return lambda images: dict(zip(network.outputs, compiled(images), strict=True))
    if format_ == "stablehlo":
        from facejax.export import stablehlo

        stablehlo.export_stablehlo(network, path, faces)
        return stablehlo.load_stablehlo(path)[0]
    if format_ == "onnx":
        from facejax.export import onnx

        onnx.export_onnx(network, path, faces)
        session = onnx.start_session(path, threads=1)
        return lambda images: onnx.run_session(session, images)
    from facejax.export import litert

    kind: Any = format_.removeprefix("litert_")
    litert.export_litert(network, path, faces, kind=kind, calibration=calibration)
    return litert.start(path.read_bytes(), network.shape)


def _in_turn(run: Callable, images: Any) -> dict[str, Any]:
    """Runs all images one at a time, as they are timed."""
    import numpy as np

    rows = [run(image[None]) for image in images]
    return {key: np.concatenate([np.asarray(row[key]) for row in rows]) for key in rows[0]}

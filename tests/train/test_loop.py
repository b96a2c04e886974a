import dataclasses
import functools
import itertools
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from facejax.cards.card import model_card
from facejax.config import ConfigError, DataConfig, ModelConfig, SamConfig, StageConfig, StagesConfig
from facejax.data.records import Record
from facejax.datasets import registry
from facejax.datasets.prepare import prepare_dataset
from facejax.evals.report import write_report
from facejax.inference import load_model
from facejax.models.face_model import init_variables
from facejax.train import loop
from facejax.train.metrics_log import read_metrics
from facejax.train.setup import build_model, set_up
from facejax.weights.checkpoint import save_inference_checkpoint

from . import prepared


@pytest.fixture(scope="module", autouse=True)
def toy_net():
    with prepared.registered_toy_net():
        yield


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return prepared.prepare_squares(tmp_path_factory.mktemp("squares"))


def run(data_dir, workdir, **changes):
    workdir.mkdir(exist_ok=True)
    setup = set_up(prepared.toy_config(**changes), data_dir, workdir)
    return setup, loop.train(setup)


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    return run(data_dir, workdir)[0], workdir


def test_learns_and_logs_every_step(finished):
    setup, workdir = finished
    lines = read_metrics(workdir)
    steps = [line["step"] for line in lines if line["phase"] == "train"]
    per_epoch = len(setup.train_source) // 16
    assert steps == list(range(1, 3 * per_epoch + 1))
    evaluations = [line for line in lines if line["phase"] == "eval"]
    assert [line["epoch"] for line in evaluations] == [1, 2, 3]
    assert all(line["emotion8/n"] == len(setup.eval_source) for line in evaluations)
    assert evaluations[-1]["emotion8/accuracy"] > 0.8


def test_logged_accuracy_is_that_of_the_saved_model(finished):
    setup, workdir = finished
    crops = [setup.eval_source.read(i)["image"] for i in range(len(setup.eval_source))]
    predicted = load_model(workdir / "last").predict(crops)["emotion8"].argmax(axis=1)
    logged = [line for line in read_metrics(workdir) if line["phase"] == "eval"][-1]["emotion8/accuracy"]
    assert (predicted == setup.eval_labels["emotion8"]).mean() == pytest.approx(logged)


def test_report_holds_best_and_last(finished):
    setup, workdir = finished
    report = write_report(workdir, setup.config, setup.tasks, setup.eval_source, read_metrics(workdir), "squares")
    assert json.loads((workdir / "report.json").read_text()) == report
    evaluations = [line for line in read_metrics(workdir) if line["phase"] == "eval"]
    assert report["last"]["tasks"]["emotion8"]["accuracy"] == pytest.approx(evaluations[-1]["emotion8/accuracy"])
    assert report["last"]["epoch"] == 3
    highest = max(line["emotion8/accuracy"] for line in evaluations)
    assert report["best"]["tasks"]["emotion8"]["accuracy"] == pytest.approx(highest)
    for name in ("best", "last"):
        assert report[name]["dataset"] == "facial_expressions"
        of_task = report[name]["tasks"]["emotion8"]
        assert of_task["n"] == len(setup.eval_source)
        assert {"balanced_accuracy", "seven_from_eight", "interval95"} <= of_task.keys()
        by_gender = next(found for found in of_task["groups"] if found["attribute"] == "gender")
        genders = {group["name"]: (group["n"], group["value"]) for group in by_gender["groups"]}
        assert sum(n for n, _ in genders.values()) == of_task["n"]
        assert sum(n * value for n, value in genders.values()) / of_task["n"] == pytest.approx(of_task["accuracy"])
        assert all(group["clusters"] < group["n"] for group in by_gender["groups"])
    assert "By gender, last epoch" in (workdir / "report.md").read_text()
    card = model_card(setup.cfg, report)
    assert "emotion8 accuracy, gender female" in card
    assert "`facial_expressions`" in card
    for picture in ("emotion8.png", "curves.png", "emotion8_crops.png"):
        assert (workdir / picture).stat().st_size > 10_000


@pytest.mark.parametrize("interrupt_at", [2, 13, 19])
def test_interrupted_run_continues_bit_for_bit(data_dir, finished, tmp_path, monkeypatch, interrupt_at):
    """Stopped within the head stage, at its end and within the full stage; the rerun logs the same numbers."""
    workdir = tmp_path / "run"
    record, seen = loop._Stage.record, []

    def stop(self, pending, meter):
        record(self, pending, meter)
        seen.append(pending)
        if len(seen) == interrupt_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop._Stage, "record", stop)
        run(data_dir, workdir)
    run(data_dir, workdir)
    assert read_metrics(workdir) == read_metrics(finished[1])
    for name in ("best", "last"):
        ours, theirs = (load_model(path / name).variables for path in (workdir, finished[1]))
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), ours, theirs))


def test_rerun_of_a_finished_run_trains_nothing(data_dir, finished):
    _, workdir = finished
    before = read_metrics(workdir)
    run(data_dir, workdir)
    assert read_metrics(workdir) == before


def test_non_finite_loss_stops_with_its_step_and_keeps_the_last_good_checkpoint(data_dir, tmp_path, monkeypatch):
    make, poisoned = loop.train_loader, 3

    def loader(*args, start_step=0, **kwargs):
        for step, batch in enumerate(make(*args, start_step=start_step, **kwargs), start_step):
            # A label that is in range but a weight of the mask that is not a number.
            yield {**batch, "mask": batch["mask"] * (np.nan if step == poisoned else 1)}

    stages = StagesConfig(StageConfig(epochs=0), StageConfig(epochs=1, lr=1e-2))
    checkpoint = dataclasses.replace(prepared.toy_config().checkpoint, every_steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_loader", loader)
        with pytest.raises(loop.NonFiniteLossError, match="step 4"):
            run(data_dir, tmp_path / "run", stages=stages, checkpoint=checkpoint)
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3]
    _, progress = run(data_dir, tmp_path / "run", stages=stages, checkpoint=checkpoint)
    assert progress.epoch == 1


def test_a_gradient_that_is_not_finite_is_in_no_checkpoint(data_dir, tmp_path):
    """The loss is that of the weights before the step: it is finite where SAM's second pass is not."""
    changes = {"sam": SamConfig(rho=1e38), "stages": StagesConfig(StageConfig(epochs=0), StageConfig(epochs=1))}
    checkpoint = dataclasses.replace(prepared.toy_config().checkpoint, every_steps=1)
    with pytest.raises(loop.NonFiniteLossError, match=r"norm of the gradient is nan at step 1 .* another --workdir"):
        run(data_dir, tmp_path / "run", checkpoint=checkpoint, **changes)
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    assert not (tmp_path / "run" / "best").exists()


def test_init_from_takes_the_backbone_only(data_dir, finished, tmp_path):
    from facejax.train.setup import initial_variables

    model = ModelConfig(backbone="toy_net", init_from=str(finished[1] / "best"))
    setup = set_up(prepared.toy_config(model=model, seed=5), data_dir, tmp_path)
    variables, loaded = initial_variables(setup), load_model(finished[1] / "best").variables
    assert jax.tree.all(
        jax.tree.map(lambda a, b: bool((a == b).all()), variables["params"]["backbone"], loaded["params"]["backbone"])
    )
    fresh = variables["params"]["head_emotion8"]["logits"]["kernel"]
    assert not (fresh == loaded["params"]["head_emotion8"]["logits"]["kernel"]).all()


def test_init_from_takes_a_run_or_its_best_model_by_name_and_by_folder(finished, tmp_path, monkeypatch):
    from facejax.train.setup import load_initial

    run, elsewhere = finished[1], tmp_path / "run"
    monkeypatch.chdir(run.parent)
    wanted = load_model(run / "best").variables["params"]["head_emotion8"]["logits"]["kernel"]
    places = [(run, elsewhere), (run / "best", elsewhere), (pathlib.Path(run.name), elsewhere)]
    places += [(pathlib.Path(run.name) / "best", elsewhere), (pathlib.Path(run.name), run.parent / "another")]
    for named, workdir in places:
        variables, _ = load_initial(str(named), workdir)
        np.testing.assert_array_equal(variables["params"]["head_emotion8"]["logits"]["kernel"], wanted)
    monkeypatch.chdir(tmp_path)
    load_initial(run.name, run.parent / "another")
    with pytest.raises(FileNotFoundError, match="neither a folder with a saved model, nor a finished run"):
        load_initial(run.name, elsewhere)


def test_seven_classes_leave_contempt_out(data_dir, tmp_path):
    model = ModelConfig(backbone="toy_net", tasks=("emotion7",))
    setup = set_up(prepared.toy_config(model=model), data_dir, tmp_path)
    eight = set_up(prepared.toy_config(), data_dir, tmp_path)
    eight_labels, seven_labels = eight.eval_labels["emotion8"], setup.eval_labels["emotion7"]
    contempt = (eight_labels == 1).sum()
    assert contempt > 0
    assert len(setup.eval_source) == len(eight.eval_source) - contempt
    np.testing.assert_array_equal(
        np.asarray(setup.tasks[0].labels)[seven_labels],
        np.delete(np.asarray(eight.tasks[0].labels)[eight_labels], np.flatnonzero(eight_labels == 1)),
    )


def test_pmap_run_learns_too(data_dir, tmp_path):
    stages = StagesConfig(StageConfig(epochs=0), StageConfig(epochs=2, lr=2e-2))
    _, progress = run(data_dir, tmp_path / "run", parallel="pmap", stages=stages, sam=SamConfig(perturbation="synced"))
    assert progress.best > 0.6


@pytest.mark.parametrize("name", ["none", "flip", "random_resized_crop"])
def test_photos_are_augmented_as_the_config_says(data_dir, tmp_path, monkeypatch, name):
    stages = StagesConfig(StageConfig(epochs=1, lr=1e-2, trainable="heads", batch_norm="batch"), StageConfig(epochs=0))
    make, seen = loop.train_loader, []

    def loader(*args, **kwargs):
        for batch in make(*args, **kwargs):
            seen.append(batch)
            yield batch

    monkeypatch.setattr(loop, "train_loader", loader)
    data = DataConfig(name="facial_expressions", augmentation=name)
    setup, progress = run(data_dir, tmp_path / "run", data=data, stages=stages)
    assert progress.epoch == 1
    kinds = set()
    for batch in seen:
        for image, index in zip(batch["image"], batch["index"], strict=True):
            plain = setup.cfg.preprocessing.resize(setup.train_source.read(int(index))["image"])
            mirrored = setup.cfg.preprocessing.resize(setup.train_source.read(int(index))["image"][:, ::-1])
            is_plain, is_mirrored = ((image == other).all() for other in (plain, mirrored))
            kinds.add("plain" if is_plain else "mirrored" if is_mirrored else "another")
    assert kinds == {"none": {"plain"}, "flip": {"plain", "mirrored"}, "random_resized_crop": {"another"}}[name]


def test_each_stage_has_an_order_of_its_own(data_dir, tmp_path, monkeypatch):
    make, orders = loop.train_loader, []

    def loader(*args, **kwargs):
        orders.append([])
        for batch in make(*args, **kwargs):
            orders[-1] += batch["index"].tolist()
            yield batch

    monkeypatch.setattr(loop, "train_loader", loader)
    stage = StageConfig(epochs=1)
    run(data_dir, tmp_path / "run", stages=StagesConfig(stage, stage))
    first, second = (order[:64] for order in orders)
    assert len(set(first)) == len(set(second)) == 64
    assert first != second


def test_the_first_of_equal_epochs_is_the_best(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "selection_value", lambda *args: 0.5)
    stages = StagesConfig(StageConfig(epochs=0), StageConfig(epochs=3))
    checkpoint = dataclasses.replace(prepared.toy_config().checkpoint, keep=3)
    _, progress = run(data_dir, tmp_path / "run", stages=stages, checkpoint=checkpoint)
    assert (progress.best_epoch, progress.epoch) == (1, 3)
    with np.load(tmp_path / "run" / "scores_best.npz") as best, np.load(tmp_path / "run" / "scores_last.npz") as last:
        assert (int(best["epoch"]), int(last["epoch"])) == (1, 3)
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 3


def test_an_evaluation_split_without_labels(tmp_path, caplog):
    class Halves(registry.Dataset):
        name, description, licence, url = "halves", "toy", "none", ""
        tasks, expected_counts, default_crop = (), {"train": None, "validation": None}, "none"

        def records(self, raw=None, **options):
            for split, index in itertools.product(self.expected_counts, range(16)):
                photo = functools.partial(np.full, (16, 16, 3), 10 * index, np.uint8)
                gender = {"gender": index % 2} if split == "train" else {}
                yield Record(f"{split}/{index}.png", split, photo, {"emotion": index % 8, **gender})

    registry.register_dataset(Halves)
    try:
        prepare_dataset("halves", None, tmp_path, workers=0, log=lambda line: None)

        def of(*tasks):
            model = ModelConfig(backbone="toy_net", tasks=tasks)
            return set_up(prepared.toy_config(model=model, data=DataConfig(name="halves")), tmp_path, tmp_path)

        with pytest.raises(ConfigError, match=r"no record of halves/validation has a label of task gender.*first"):
            of("gender", "emotion8")
        assert not caplog.text
        of("emotion8", "gender")
        assert "no record of halves/validation has a label of task gender: its figures will be empty" in caplog.text
    finally:
        del registry._registered["halves"]


def test_a_damaged_line_of_the_log_costs_itself_only(tmp_path, caplog):
    lines = [json.dumps({"step": step, "phase": "train", "loss": 1.0}) for step in range(1, 6)]
    (tmp_path / "metrics.jsonl").write_bytes(
        "\n".join([*lines[:2], "gar\udce9bled", "7", *lines[2:], lines[0][:9]]).encode(errors="surrogateescape")
    )
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    assert [record.getMessage().split(" of ")[0] for record in caplog.records] == ["line 3", "line 4"]


def test_clear_errors(data_dir, tmp_path):
    with pytest.raises(ValueError, match="multiple of the 8 devices"):
        run(data_dir, tmp_path, batch_size=12)
    with pytest.raises(ValueError, match="fewer than one batch"):
        run(data_dir, tmp_path, batch_size=4096)
    with pytest.raises(FileNotFoundError, match=r"prepare_dataset\.py affectnet"):
        run(data_dir, tmp_path, data=DataConfig(name="affectnet"))


def test_heads_and_layers_that_cannot_be_kept_are_refused(tmp_path):
    shared = ModelConfig(backbone="toy_net", tasks=("gender", "age"), shared_hidden=("gender", "age"))
    model, cfg, _ = build_model(prepared.toy_config(model=shared), None)
    save_inference_checkpoint(tmp_path / "first", init_variables(model, 0, 16), cfg)
    kept = ModelConfig(
        backbone="toy_net", tasks=("emotion8",), keep_heads=("gender", "age"), init_from=str(tmp_path / "first")
    )
    shutil.copytree(tmp_path / "first", tmp_path / "damaged")
    shutil.rmtree(tmp_path / "damaged" / "checkpoint")
    with pytest.raises(ConfigError, match=r"init_from=.*damaged: .* is damaged or not whole"):
        build_model(prepared.toy_config(model=dataclasses.replace(kept, init_from=str(tmp_path / "damaged"))), tmp_path)
    assert build_model(prepared.toy_config(model=kept), tmp_path)[1].shared_hidden == ("gender", "age")
    both = dataclasses.replace(kept, shared_hidden=("emotion8",))
    with pytest.raises(ConfigError, match=r"gender, age of .*first share a hidden layer and are kept"):
        build_model(prepared.toy_config(model=both), tmp_path)
    alone = ModelConfig(backbone="toy_net", shared_hidden=("emotion8",))
    with pytest.raises(ConfigError, match="shared_hidden must name heads, one of them with a hidden layer"):
        build_model(prepared.toy_config(model=alone), None)


def test_head_stage_leaves_out_a_record_that_cannot_be_read(tmp_path):
    """Its features are unknown; in place of nan, which no mask stops, stand zeros."""
    data_dir = prepared.prepare_squares(tmp_path)
    shard = min(data_dir.rglob("*train.tfrecord*"), key=lambda path: (path.suffix == ".index", path.name))
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    shard.write_bytes(damaged)
    setup = set_up(
        prepared.toy_config(
            data=DataConfig(name="facial_expressions", read_threads=1, on_corrupt="skip"),
            stages=StagesConfig(
                head=StageConfig(epochs=2, lr=1e-2, trainable="heads", batch_norm="running"), full=StageConfig(epochs=0)
            ),
        ),
        data_dir,
        tmp_path,
    )
    loop.train(setup)
    assert len(setup.train_source.corrupt) == 1
    assert all(np.isfinite(line["loss"]) for line in read_metrics(tmp_path) if line["phase"] == "train")


def test_more_persons_than_outputs_are_refused(tmp_path):
    class Persons(registry.Dataset):
        name, description, licence, url = "persons", "toy", "none", ""
        tasks, expected_counts, default_crop = (), {"train": None, "validation": None}, "none"

        def records(self, raw=None, **options):
            for split, index in itertools.product(self.expected_counts, range(16)):
                photo = functools.partial(np.full, (16, 16, 3), 10 * index, np.uint8)
                yield Record(f"{split}/{index}.png", split, photo, {"identity": index % 8})

    registry.register_dataset(Persons)
    try:
        prepare_dataset("persons", None, tmp_path, workers=0, log=lambda line: None)
        model = ModelConfig(backbone="toy_net", tasks=("identity",), identities=6)
        config = prepared.toy_config(model=model, data=DataConfig(name="persons"))
        with pytest.raises(ConfigError, match=r"8 persons, more than --config.model.identities=6"):
            set_up(config, tmp_path, tmp_path)
        model = dataclasses.replace(model, identities=0)
        assert set_up(dataclasses.replace(config, model=model), tmp_path, tmp_path).cfg.num_classes == {"identity": 8}
    finally:
        del registry._registered["persons"]

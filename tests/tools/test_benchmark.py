"""The benchmark harness: turns, medians, ratios, errors, JSON; and every row has what the tool needs."""

import importlib
import inspect
import json
import pathlib
import re
import subprocess
import sys
import time

import pytest

TOOLS = pathlib.Path(__file__).parents[2] / "tools"
TOY = """
import time

GOAL, UNIT = "half the time", "nap"

def nap(seconds, items):
    def work():
        time.sleep(seconds)
        print("libraries may print")
        return {"items": items, "faces": 3}
    return work

def fails():
    raise ValueError("no such network")

def diverges():
    return lambda: {"items": 1, "loss": float("nan")}

def lacks():
    import no_such_peer
"""


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("benchmark", "benchmarks")]:
        del sys.modules[name]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A row outside the package, importable by the worker processes."""
    package = tmp_path / "benchmarks"
    package.mkdir()
    for path in (TOOLS / "benchmarks").glob("*.py"):
        (package / path.name).write_text(path.read_text())
    (package / "toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path))
    from benchmarks import harness

    return importlib.import_module("benchmarks.toy"), harness


def arguments(**changed):
    import argparse

    return argparse.Namespace(**{"rounds": 3, "threads": 1, "device": "cpu", **changed})


def test_sides_take_turns_and_are_compared(toy, tmp_path):
    row, harness = toy
    sides = [
        harness.Side("fast", "toy.nap", {"seconds": 0.01, "items": 4}),
        harness.Side("slow", "toy.nap", {"seconds": 0.04, "items": 4}),
    ]
    result = harness.run("toy", row, sides, arguments(), ["tools/benchmark.py", "toy"])
    assert [len(side["rounds"]) for side in result["sides"]] == [3, 3]
    fast, slow = (side["summary"] for side in result["sides"])
    # A sleep is never shorter than requested, but may be longer on a busy machine.
    assert fast["wall_s"] >= 0.01 / 4
    assert slow["wall_s"] >= 0.04 / 4
    assert slow["wall_s_least"] <= slow["wall_s"] <= slow["wall_s_most"]
    assert result["ratios"]["slow"] == pytest.approx(fast["wall_s"] / slow["wall_s"])
    assert fast["faces"] == 3
    assert fast["cpu_s"] < fast["wall_s"]
    assert fast["peak_mb"] > 1
    assert result["command"] == "python tools/benchmark.py toy"
    assert result["sides"][0]["versions"]["python"] == sys.version.split()[0]
    assert "1 of" in result["sides"][0]["device"]
    path = harness.save(result, tmp_path / "results", "test")
    assert path.name == "toy-cpu-test.json"
    assert json.loads(path.read_text()) == result
    assert not list(path.parent.glob("*.tmp"))
    text = harness.describe(result)
    assert "fast / slow: " in text
    assert "ms per nap" in text


def test_medians():
    from benchmarks.harness import summarise

    rounds = [
        {"wall_s": wall, "cpu_s": 2 * wall, "items": 2, "peak_mb": peak} for wall, peak in ((4, 1), (2, 9), (8, 3))
    ]
    summary = summarise(rounds)
    assert summary == {"wall_s": 2, "wall_s_least": 1, "wall_s_most": 4, "cpu_s": 4, "peak_mb": 9}


def test_a_side_that_fails_says_why(toy):
    row, harness = toy
    with pytest.raises(harness.SideError, match=r"(?s)broken exited with status 1.*ValueError: no such network"):
        harness.run("toy", row, [harness.Side("broken", "toy.fails", {})], arguments(), [])
    with pytest.raises(
        harness.SideError, match=r"^peer exited with status 1; its output:\nit needs no_such_peer, .*--only$"
    ):
        harness.run("toy", row, [harness.Side("peer", "toy.lacks", {})], arguments(), [])
    with pytest.raises(harness.SideError, match=r"^diverged: loss is nan, so its computation cannot be right$"):
        harness.run("toy", row, [harness.Side("diverged", "toy.diverges", {})], arguments(), [])


def test_a_side_that_does_not_exist_is_refused_with_those_that_do(capsys):
    import benchmark

    assert benchmark.main(["people", "--only", "facejax"]) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"benchmark: --only facejax: no such side; there are: \d+ process(es)?(, \d+ process(es)?)*\n", error
    )


def test_every_row_is_complete():
    import benchmark

    files = {path.stem for path in (TOOLS / "benchmarks").glob("*.py")} - {
        "__init__",
        "harness",
        "worker",
        "torch_nets",
    }
    assert files == set(benchmark.ROWS)
    for name in benchmark.ROWS:
        row = importlib.import_module(f"benchmarks.{name}")
        assert row.GOAL
        assert row.UNIT
        args = benchmark.parse_arguments([name])
        if name in ("loader", "video"):  # these make their data
            continue
        args.device = "gpu"
        for side in row.sides(args):
            module, _, function = side.function.rpartition(".")
            wanted = inspect.signature(getattr(importlib.import_module(f"benchmarks.{module}"), function))
            wanted.bind(**side.settings)
            json.dumps(side.settings)


def test_processor_time_is_also_that_of_child_processes():
    from benchmarks.worker import processor_seconds

    before = processor_seconds()
    spin = "import time, sys; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass\nprint(flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", spin + "; sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert 0.5 <= processor_seconds() - before < 2


def test_processor_time_of_layers_is_weighted_as_their_wall_time():
    from benchmarks import depthwise

    def work_of(calls):
        def prepare(layer):
            def call():
                end = time.process_time() + 0.004 * calls
                while time.process_time() < end:
                    pass

            return call

        return depthwise._rounds(32, 2, calls, prepare)

    one, three = work_of(1)(), work_of(3)()
    layers = sum(layer.count for layer in depthwise.layers(32))
    for done in (one, three):
        assert done["cpu_s"] == pytest.approx(0.004 * layers, rel=0.3)


def test_the_tool(capsys):
    import benchmark

    assert benchmark.main(["--list"]) == 0
    assert "train_step" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        benchmark.main([])
    assert benchmark.main(["video", "--clip", "nowhere.mp4"]) == 1
    assert "no video file" in capsys.readouterr().err


def test_the_table_of_exports():
    from benchmarks import exports

    summaries = (
        ("flax", {"cpu_s": 0.02, "same_class": 1.0, "accuracy": 0.975}),
        ("litert_int8", {"cpu_s": 0.005, "file_mb": 3.54, "difference_features": 0.02, "same_class": 0.99}),
    )
    result = {"sides": [{"name": name, "summary": summary} for name, summary in summaries]}
    assert exports.describe(result).splitlines()[2:] == [
        "| flax | - | - | 97.50 | 100.00 | 20.0 | 1.00 |",
        "| litert_int8 | 3.54 | features 2.0e-02 | - | 99.00 | 5.0 | 0.25 |",
    ]
    with pytest.raises(ValueError, match="has no weights"):
        exports._load("mobilenet_v1", "data")


@pytest.mark.slow
def test_exports_run(tmp_path, capsys):
    import benchmark

    small = ["--rounds", "1", "--calls", "1", "--faces", "4", "--calibration", "4", "--device", "cpu"]
    assert benchmark.main(["exports", *small, "--out", str(tmp_path)]) == 0
    rows = capsys.readouterr().out.splitlines()[2:8]
    formats = importlib.import_module("benchmarks.exports").FORMATS
    assert [row.split(" | ")[0].strip("| ") for row in rows] == list(formats)
    assert float(rows[-1].split(" | ")[1]) < 0.3 * float(rows[3].split(" | ")[1])


@pytest.mark.slow
def test_people_and_loader_run(tmp_path, capsys):
    import benchmark

    where = ["--rounds", "1", "--device", "cpu", "--out", str(tmp_path)]
    assert benchmark.main(["people", "--photos", "2", "--size", "96", "--workers", "1", *where]) == 0
    assert benchmark.main(["loader", "--crops", "120", "--batches", "2", "--torch_workers", *where]) == 0
    assert benchmark.main(["loader", "--crops", "120", "--batches", "1", "--only", "DataLoader, 0", *where]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"people-cpu.json", "loader-cpu.json"}
    assert "crop" in capsys.readouterr().out


def test_what_was_measured_is_kept_as_json():
    """NaN is not valid JSON; browsers and other languages cannot parse it."""
    kept = sorted((TOOLS.parent / "experiments" / "results").rglob("*.json"))
    assert kept
    for path in kept:
        json.loads(path.read_text(), parse_constant=lambda word, path=path: pytest.fail(f"{path} holds {word}"))

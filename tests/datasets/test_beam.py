"""The Beam pipeline gives the same bytes as the preparation on one machine, whichever began and whichever continues."""

import functools
import hashlib
import importlib.util
import json
import pathlib
import sys

import pytest
from toy_reader import ToyDetector, ToyFaces, write_photos

from facejax.data import shards, sheets
from facejax.datasets import beam, prepare, registry
from facejax.datasets.beam import prepare_with_beam
from facejax.datasets.prepare import is_prepared, prepare_dataset

HERE = pathlib.Path(__file__).parent
WORKERS = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")

needs_beam = pytest.mark.skipif(importlib.util.find_spec("apache_beam") is None, reason="needs apache-beam")
# Beam's own code warns and leaves sockets to the collector; its workers log to their standard error.
quiet = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(registry._registered, "toy_faces", ToyFaces())
    monkeypatch.setattr(shards, "PHOTOS_PER_CHUNK", 8)
    monkeypatch.setattr(sheets, "TILE", 16)
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parents[1]}")  # for the workers, which unpickle the toy


@pytest.fixture
def raw(tmp_path):
    write_photos(tmp_path / "raw")
    (tmp_path / "raw" / "001.png").write_bytes(b"no image")
    return tmp_path / "raw"


def digest(folder: pathlib.Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(raw, out, options=("--direct_running_mode=in_memory",), **settings):
    log = settings.pop("log", lambda line: None)
    make = settings.pop("make_detector", ToyDetector)
    return prepare_with_beam(
        "toy_faces",
        raw,
        out,
        num_shards=2,
        runner="DirectRunner",
        runner_options=options,
        make_detector=make,
        log=log,
        **settings,
    )


def run_locally(raw, out, **settings):
    return prepare_dataset(
        "toy_faces", raw, out, num_shards=2, detector=ToyDetector(), workers=2, log=lambda line: None, **settings
    )


@needs_beam
@quiet
def test_several_worker_processes_give_the_same_bytes(raw, tmp_path):
    lines = []
    folder = run(raw, tmp_path / "beam", WORKERS, make_detector=functools.partial(ToyDetector, 0.01), log=lines.append)
    assert is_prepared(tmp_path / "beam", "toy_faces")
    assert not folder.with_name("1.0.0.partial").exists()
    assert digest(folder) == digest(run_locally(raw, tmp_path / "local"))
    assert any("train: of 32 photos 27 gave a crop, 4 had no face, 0 are missing, 1 corrupt" in one for one in lines)
    lines.clear()
    assert run(raw, tmp_path / "beam", WORKERS, log=lines.append) == folder
    assert "is already prepared" in lines[0]


@needs_beam
@quiet
@pytest.mark.parametrize("crop", ["annotation", "mtcnn"])
def test_one_process_gives_the_same_bytes(raw, tmp_path, crop):
    folder = run(raw, tmp_path / "beam", crop=crop)
    assert digest(folder) == digest(run_locally(raw, tmp_path / "local", crop=crop))


@needs_beam
@quiet
def test_what_was_begun_on_one_machine_is_continued_by_many(raw, tmp_path, monkeypatch):
    written = []
    original = prepare.write_chunk

    def stops(*args):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(args)
        original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "write_chunk", stops)
        with pytest.raises(KeyboardInterrupt):
            run_locally(raw, tmp_path / "both")
    done = tmp_path / "both/toy_faces/1.0.0.partial/chunks"
    assert len(list(done.glob("*.json"))) == 2
    again = []
    with monkeypatch.context() as patch:
        patch.setattr(beam, "write_chunk", lambda *args: (again.append(args[1]), original(*args)))
        folder = run(raw, tmp_path / "both")
    assert len(again) == 4  # of 4 + 2 chunks
    assert digest(folder) == digest(run_locally(raw, tmp_path / "local"))


@needs_beam
@quiet
def test_workers_with_other_code_are_refused(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(beam, "code_versions", lambda *args: {"code of jax": "0.1"})
    with pytest.raises(RuntimeError, match=r"workers run different code .*code of jax: .* -> '0.1'.*the same facejax"):
        run(raw, tmp_path)
    monkeypatch.undo()
    assert not list((tmp_path / "toy_faces/1.0.0.partial/chunks").glob("*.json"))


def test_two_workers_on_one_task_do_not_mix_their_files(raw, tmp_path):
    preparation = prepare.plan_preparation(
        "toy_faces", raw, tmp_path, "annotation", 0.0, True, 1, None, None, lambda line: None
    )
    with preparation.locked():
        for chunk, records in preparation.pending():
            args = (preparation.raw, preparation.survey.fields, preparation.settings)
            outcomes = prepare.load_and_cut(records, *args)
            for _ in range(2):  # a runner may give a task to a second worker while the first still works
                prepare.write_chunk(preparation.store, chunk, outcomes, preparation.survey.fields)
        for shard in preparation.store.shards * 2:
            preparation.store.assemble_shard(*shard)
        (preparation.store.staging / "x.abc.tmp").write_bytes(b"left by a worker that was killed")
        prepare.finish(preparation)
    assert digest(preparation.store.final) == digest(
        prepare_dataset("toy_faces", raw, tmp_path / "b", "annotation", num_shards=1, log=lambda line: None)
    )


def test_without_beam_the_error_says_how_to_get_it(raw, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'facejax\[beam\]'"):
        run(raw, tmp_path)


@needs_beam
@quiet
def test_the_tool(raw, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("prepare_tool", HERE.parents[1] / "tools" / "prepare_dataset.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    where = ["--raw", str(raw), "--out", str(tmp_path / "data"), "--crop", "annotation"]
    options = ["--runner", "DirectRunner", "--runner_options", "direct_running_mode=in_memory", "no_save_main_session"]
    assert tool.main(["toy_faces", *where, *options]) == 0
    made = json.loads((tmp_path / "data/toy_faces/1.0.0/summary.json").read_text())
    assert made["plan"]["crop"] == "annotation"
    assert made["splits"]["train"]["corrupt"] == 1
    with pytest.raises(SystemExit):
        tool.main(["toy_faces", *where, "--runner_options", "x=1"])
    assert "--runner_options needs --runner" in capsys.readouterr().err

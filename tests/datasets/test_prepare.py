"""Preparation: what is stored, what is counted, and the same bytes however often it is killed."""

import dataclasses
import errno
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import cv2
import miniatures
import numpy as np
import pytest
from toy_reader import COUNT, ToyDetector, ToyFaces, labels_of, photo, write_photos

from facejax import locks
from facejax.data import shards, sheets
from facejax.data.decode import decode_image
from facejax.data.example import decode_example, encode_example
from facejax.data.source import FaceSource
from facejax.data.tfrecord import TFRecordSource, write_shard
from facejax.datasets import crops, get_dataset, plan, prepare, registry
from facejax.datasets.crops import choose_face, five_points
from facejax.datasets.prepare import is_prepared, prepare_dataset
from facejax.datasets.summary import describe_summary
from facejax.detect import centre_crop
from facejax.full_disk import DiskFullError

REPOSITORY = pathlib.Path(__file__).parents[2]
SPLITS = {"train": 32, "validation": 8}


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """Registers the toy dataset and makes chunks and contact sheets small, for the duration of a test."""
    monkeypatch.setitem(registry._registered, "toy_faces", ToyFaces())
    monkeypatch.setattr(shards, "PHOTOS_PER_CHUNK", 8)
    monkeypatch.setattr(sheets, "TILE", 16)


@pytest.fixture
def raw(tmp_path):
    write_photos(tmp_path / "raw")
    return tmp_path / "raw"


def run(raw, out, **options):
    options.setdefault("detector", ToyDetector())
    return prepare_dataset("toy_faces", raw, out, log=lambda line: None, workers=2, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Hashes of the files of an uninterrupted preparation in two shards."""
    path = tmp_path_factory.mktemp("whole")
    write_photos(path / "raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._registered, "toy_faces", ToyFaces())
        patch.setattr(shards, "PHOTOS_PER_CHUNK", 8)
        patch.setattr(sheets, "TILE", 16)
        return digest(run(path / "raw", path / "data", num_shards=2))


def digest(folder: pathlib.Path) -> dict[str, str]:
    """Hash of each file in a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def examples(folder: pathlib.Path, split: str) -> dict[str, dict]:
    source = TFRecordSource(sorted(folder.glob(f"toy_faces-{split}.tfrecord-*-of-?????")))
    return {example["id"][0].decode(): example for example in map(decode_example, source)}


def test_what_is_stored(raw, tmp_path):
    folder = run(raw, tmp_path / "data", crop="annotation", align=False, image_format="bmp", num_shards=2)
    assert folder == tmp_path / "data" / "toy_faces" / "1.0.0"
    assert is_prepared(tmp_path / "data", "toy_faces")
    assert not folder.with_name("1.0.0.partial").exists()
    stored = examples(folder, "train") | examples(folder, "validation")
    assert set(stored) == {f"{index:03d}.png" for index in range(COUNT)}
    for index in range(COUNT):
        example = stored[f"{index:03d}.png"]
        assert (decode_image(example["image"][0]) == photo(index)[6:36, 5:25]).all()
        assert example["emotion"] == [index % 8]
        assert example["person"] == [f"p{index // 4}".encode()]
        assert example["age"] == [labels_of(index).get("age", -1)]
        assert example["bbox"] == [5, 6, 25, 36]
        assert example["num_faces"] == [-1]
    source = FaceSource(tmp_path / "data", "toy_faces", "validation")
    assert len(source) == SPLITS["validation"]
    assert sorted(source.labels("emotion")) == sorted(index % 8 for index in range(0, COUNT, 5))
    # The columns of the index are in the order of the records.
    assert source.labels("emotion").tolist() == [int(source.read(place)["emotion"]) for place in range(len(source))]
    assert source.labels("emotion").tolist() == [int(name[:3]) % 8 for name in source.ids()]
    assert len(list(folder.glob("toy_faces-train.tfrecord-?????-of-00002"))) == 2
    # Neighbours in the folder are not neighbours here: neither chunks of 8 photos nor the photos in a chunk.
    order = [int(name[:3]) for name in FaceSource(tmp_path / "data", "toy_faces", "train").ids()]
    chunks = [order[start : start + 8] for start in range(0, 32, 8)]
    files = [index for index in range(COUNT) if index % 5]
    assert sorted(map(sorted, chunks)) == [files[start : start + 8] for start in range(0, 32, 8)]
    assert sorted(map(sorted, chunks)) != [sorted(chunk) for chunk in chunks]
    assert all(sorted(chunk) != chunk for chunk in chunks)


def test_counts_and_lists(raw, tmp_path):
    (raw / "001.png").write_bytes((raw / "001.png").read_bytes()[:60])
    (raw / "002.png").write_bytes(b"<html>not found</html>")
    (raw / "003.png").unlink()
    (raw / "003.png").symlink_to(raw / "gone.png")
    folder = run(raw, tmp_path / "data")
    summary = json.loads((folder / "summary.json").read_text())
    train, validation = summary["splits"]["train"], summary["splits"]["validation"]
    counted = {key: train[key] for key in ("photos", "faces", "no_face", "missing", "corrupt", "several_faces")}
    # Photos 9, 19, 29, 39 have no face; 5, 15, 25, 35 have two and are all in validation.
    assert counted == {"photos": 32, "faces": 25, "no_face": 4, "missing": 1, "corrupt": 2, "several_faces": 0}
    assert validation["faces"] == 8
    assert validation["several_faces"] == 4
    assert sum(train["classes"]["emotion"].values()) == 25
    assert train["classes"]["emotion"]["anger"] == sum(i % 8 == 0 and i % 5 > 0 and i % 10 != 9 for i in range(COUNT))
    assert [line.split("\t")[0] for line in (folder / "no_face.txt").read_text().splitlines()] == [
        "009.png", "019.png", "029.png", "039.png",
    ]  # fmt: skip
    corrupt = dict(line.split("\t") for line in (folder / "corrupt.txt").read_text().splitlines())
    assert set(corrupt) == {"001.png", "002.png"}
    assert "unknown image format: starts with b'<html>no'" in corrupt["002.png"]
    assert (folder / "missing.txt").read_text() == "003.png\tno such file\n"
    lines = "\n".join(describe_summary(summary))
    assert "train: of 32 photos 25 gave a crop, 4 had no face, 1 are missing, 2 corrupt; 0 crops are from" in lines
    assert "WARNING: toy_faces train: 31 photos found (missing ones not counted), 32 published (-1)" in lines
    assert "WARNING: toy_faces test: 0 photos found (missing ones not counted), 5 published (-5)" in lines
    assert lines.count("WARNING") == 2
    drawn = {"expected_photos": {"train": None, "validation": None}, "expected_total": 45}
    lines = "\n".join(describe_summary(summary | drawn))
    assert "WARNING: toy_faces: 39 photos found (missing ones not counted), 45 published (-6)" in lines
    assert lines.count("WARNING") == 1
    # Options select photos, so the published number of all photos does not apply.
    folder = run(None, tmp_path / "some", crop="none", reader_options={"count": 3})
    lines = describe_summary(json.loads((folder / "summary.json").read_text()))
    assert "train: of 3 photos" in lines[0]
    assert "WARNING" not in "\n".join(lines)


def test_every_file_is_on_the_disk_before_it_gets_its_name(raw, tmp_path, monkeypatch):
    """Otherwise a power cut leaves an empty or half-written file of the right name."""
    on_disk, renamed, fsync, replace = {}, [], os.fsync, os.replace

    def noted_fsync(descriptor):
        fsync(descriptor)
        written = os.fstat(descriptor)
        on_disk[written.st_ino] = written.st_size

    def noted_replace(source, target):
        written = os.stat(source)
        if pathlib.Path(source).is_file():
            renamed.append((pathlib.Path(target).name, on_disk.get(written.st_ino) == written.st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    run(raw, tmp_path, num_shards=2)
    assert {"plan.json", "summary.json", "toy_faces-train.tfrecord-00000-of-00002"} <= {name for name, _ in renamed}
    assert [name for name, whole in renamed if not whole] == []


def test_contact_sheets(raw, tmp_path):
    folder = run(raw, tmp_path / "data")
    names = {path.name for path in (folder / "sheets").iterdir()}
    assert {"train_all.png", "validation_all.png", "train_emotion_anger.png", "train_age_020.png"} <= names
    sheet = cv2.imread(str(folder / "sheets" / "train_all.png"))
    assert sheet.shape == (24 + 3 * 16, 160, 3)  # 28 faces in rows of ten
    assert sheet[24:40].std() > 20  # noise crops in the first row
    assert (sheet[-16:, 8 * 16 :] == 64).all()
    assert sheet[-16:, 7 * 16 : 8 * 16].std() > 20
    assert cv2.imread(str(folder / "sheets" / "train_emotion_anger.png")).shape == (24 + 16, 160, 3)


def test_a_contact_sheet_has_the_colours_of_its_photos_and_a_decade_its_own_people(tmp_path):
    ages = np.array([19.0, 20, 29, 30, -1])
    red = cv2.imencode(".bmp", np.full((8, 8, 3), (0, 0, 255), np.uint8))[1].tobytes()  # OpenCV has blue first
    records = [encode_example({"image": red, "age": age}) for age in ages]
    write_shard(tmp_path / "a.tfrecord", records, {"age": ages})
    sheets.write_contact_sheets(TFRecordSource([tmp_path / "a.tfrecord"]), tmp_path / "sheets", "train")
    sheet = cv2.imread(str(tmp_path / "sheets" / "train_age_020.png"))
    tiles = sheet[sheets.TITLE + sheets.TILE // 2, sheets.TILE // 2 :: sheets.TILE]
    assert tiles.tolist() == [[0, 0, 255]] * 2 + [[64, 64, 64]] * 8
    groups = {name: places.tolist() for name, places in sheets._groups(5, {"age": ages}).items()}
    assert groups == {"all": [0, 1, 2, 3, 4], "age_010": [0], "age_020": [1, 2], "age_030": [3]}


def test_a_sheet_that_cannot_be_written_stops_the_preparation(raw, tmp_path, monkeypatch):
    """And is made by the next run, like everything else."""
    write = sheets.write_atomically

    def full(path, data):
        if path.name == "train_all.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="What is finished is kept"):
        patch.setattr(sheets, "write_atomically", full)
        run(raw, tmp_path / "data")
    folder = run(raw, tmp_path / "data")
    assert (folder / "sheets" / "train_all.png").exists()


SCRIPT = """
import sys
sys.path[:0] = [{repository!r}, {here!r}]
from facejax.data import shards, sheets
from facejax.datasets import registry
from facejax.datasets.prepare import prepare_dataset
from toy_reader import ToyDetector, ToyFaces
registry.register_dataset(ToyFaces)
shards.PHOTOS_PER_CHUNK = 8
sheets.TILE = 16
prepare_dataset("toy_faces", {raw!r}, {out!r}, detector=ToyDetector(0.3), workers=2, num_shards=2)
"""


def test_killed_and_continued_to_the_same_bytes(raw, tmp_path, whole):
    out = tmp_path / "killed"
    fields = {"repository": str(REPOSITORY), "here": str(pathlib.Path(__file__).parent)}
    script = SCRIPT.format(raw=str(raw), out=str(out), **fields)
    child = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    notes = out / "toy_faces" / "1.0.0.partial" / "chunks"
    deadline = time.monotonic() + 60
    while len(list(notes.glob("*.json"))) < 2 and time.monotonic() < deadline:
        assert child.poll() is None, "the child ended before it was killed"
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    done = len(list(notes.glob("*.json")))
    assert 2 <= done < 5
    assert not is_prepared(out, "toy_faces")
    assert not (out / "toy_faces" / "1.0.0").exists()
    lines = []
    folder = prepare_dataset("toy_faces", raw, out, detector=ToyDetector(), workers=2, num_shards=2, log=lines.append)
    assert digest(folder) == whole
    assert "continuing" in lines[0]


@pytest.mark.parametrize("step", ["chunk", "note", "join", "index", "metadata", "sheets", "publish", "clean"])
def test_stopped_at_every_step_and_continued_to_the_same_bytes(raw, tmp_path, monkeypatch, step, whole):
    module, name, call = {
        "chunk": (shards, "write_shard", 3),
        "note": (shards, "write_atomically", 3),
        "join": (shards.shutil, "copyfileobj", 2),
        "index": (shards, "write_index", 2),
        "metadata": (prepare, "write_metadata", 1),
        "sheets": (prepare, "write_contact_sheets", 2),
        "publish": (shards.ChunkedShards, "publish", 1),
        "clean": (shards.shutil, "rmtree", 1),
    }[step]
    original, calls = getattr(module, name), []

    def stops(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, stops)
    with pytest.raises(KeyboardInterrupt):
        run(raw, tmp_path / "data", num_shards=2)
    assert is_prepared(tmp_path / "data", "toy_faces") == (step == "clean")
    folder = run(raw, tmp_path / "data", num_shards=2)
    assert digest(folder) == whole
    assert not folder.with_name("1.0.0.partial").exists()


def test_a_full_disk_is_explained_and_what_is_finished_is_kept(raw, small_disk, whole):
    (small_disk / "filler").write_bytes(bytes(3 * 2**20 - 64 * 2**10))
    with pytest.raises(DiskFullError, match=r"1.0.0.partial is full \(0 MiB free\). What is finished is kept: free"):
        run(raw, small_disk / "data", num_shards=2)
    kept = list((small_disk / "data" / "toy_faces" / "1.0.0.partial" / "chunks").iterdir())
    assert kept
    assert not any(path.suffix == ".tmp" for path in kept)
    (small_disk / "filler").unlink()
    assert digest(run(raw, small_disk / "data", num_shards=2)) == whole


def test_photos_made_by_functions_in_worker_processes(tmp_path):
    options = {"crop": "none", "reader_options": {"count": 12}, "image_format": "bmp"}
    options["log"] = lambda line: None
    folders = [prepare_dataset("toy_faces", None, tmp_path / str(n), workers=n, **options) for n in (1, 2)]
    assert digest(folders[0]) == digest(folders[1])
    assert (decode_image(examples(folders[1], "train")["007"]["image"][0]) == photo(7)).all()


def test_prepared_already(raw, tmp_path):
    folder = run(raw, tmp_path)
    before = digest(folder)
    lines = []
    assert prepare_dataset("toy_faces", raw, tmp_path, detector=ToyDetector(), log=lines.append) == folder
    assert "is already prepared" in lines[0]
    same = ToyDetector()
    same.min_face = 20.0
    assert run(raw, tmp_path, detector=same) == folder
    same.min_face = 40
    with pytest.raises(ValueError, match=r"detector: 'ToyDetector\(min_face=20\)' -> 'ToyDetector\(min_face=40\)'"):
        run(raw, tmp_path, detector=same)
    with pytest.raises(
        ValueError, match=r"was prepared differently \(margin: 0.0 -> 0.4\); delete it or choose another"
    ):
        run(raw, tmp_path, margin=0.4)
    with pytest.raises(ValueError, match=r"was prepared differently \(num_shards: None -> 3\)"):
        run(raw, tmp_path, num_shards=3)
    (raw / "000.png").rename(raw / "040.png")
    with pytest.raises(ValueError, match="was prepared differently"):
        run(raw, tmp_path)
    assert digest(folder) == before


def test_photos_that_are_there_now(raw, tmp_path):
    whole = {name: (raw / name).read_bytes() for name in ("001.png", "002.png", "003.png")}
    for name in ("001.png", "002.png"):
        (raw / name).unlink()
        (raw / name).symlink_to(raw / "gone.png")
    (raw / "003.png").write_bytes(whole["003.png"][:60])
    run(raw, tmp_path)

    def again():
        lines = []
        prepare_dataset("toy_faces", raw, tmp_path, detector=ToyDetector(), log=lines.append)
        return lines

    (line,) = again()
    assert line.endswith("is already prepared, without 3 missing or corrupt photos")
    for name in ("002.png", "003.png"):
        (raw / name).unlink()
        (raw / name).write_bytes(whole[name])
    assert "WARNING: toy_faces: 2 of these can be read now; to include them, delete" in again()[1]


@pytest.mark.parametrize("damage", [pathlib.Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_chunk_without_a_readable_index_is_made_anew(raw, tmp_path, monkeypatch, whole, damage):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shards.ChunkedShards, "assemble", stop)
        with pytest.raises(KeyboardInterrupt):
            run(raw, tmp_path, num_shards=2)
    for index in (tmp_path / "toy_faces" / "1.0.0.partial" / "chunks").glob("validation-000000.tfrecord.index"):
        damage(index)
    with pytest.raises(ValueError, match=r"validation-000000.*\.index is missing or damaged; run the same command"):
        run(raw, tmp_path, num_shards=2)
    assert digest(run(raw, tmp_path, num_shards=2)) == whole


def test_photos_of_another_edition_are_not_the_prepared_ones(tmp_path, monkeypatch):
    options = {"crop": "none", "reader_options": {"count": 6}, "workers": 1, "log": lambda line: None}
    folder = prepare_dataset("toy_faces", None, tmp_path, **options)
    assert prepare_dataset("toy_faces", None, tmp_path, **options) == folder
    monkeypatch.setattr(ToyFaces, "edition", 2)
    with pytest.raises(ValueError, match=r"was prepared differently \(edition: 1 -> 2\)"):
        prepare_dataset("toy_faces", None, tmp_path, **options)


def test_begun_with_other_settings_or_at_work(raw, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "write_metadata", stop)
        with pytest.raises(KeyboardInterrupt):
            run(raw, tmp_path)
    with pytest.raises(
        ValueError, match=r"1.0.0.partial was started with other settings, .*quality: 95 -> 90.*delete it"
    ):
        run(raw, tmp_path, quality=90)
    store = shards.ChunkedShards(tmp_path / "toy_faces" / "1.0.0", "toy_faces", SPLITS)
    begun = json.loads((store.partial / "plan.json").read_text())
    with store.locked(begun), pytest.raises(BlockingIOError, match="another process is writing to"):
        run(raw, tmp_path)


def test_a_file_system_without_locks(raw, tmp_path, monkeypatch, caplog, whole):
    def flock(*args):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    assert digest(run(raw, tmp_path, num_shards=2)) == whole
    assert "is not locked against other processes" in caplog.text


def test_begun_by_other_code(raw, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "write_metadata", stop)
        with pytest.raises(KeyboardInterrupt):
            run(raw, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(plan, "_hash_of", lambda kind: f"other {kind.__name__}")
        message = (
            r"started with .* code \(code of detector: .\w{16}. -> .other ToyDetector., code of reader: .\w{16}. ->"
        )
        with pytest.raises(ValueError, match=message):
            run(raw, tmp_path)
    run(raw, tmp_path)
    # A complete dataset stays valid: newer code is no reason to refuse it.
    monkeypatch.setattr(plan, "_hash_of", lambda kind: "other")
    run(raw, tmp_path)


def test_the_code_of_a_detector_is_all_of_its_package():
    from facejax.detect import MTCNN, pyramid

    people = get_dataset("people")
    code = plan.code_versions(people, object.__new__(MTCNN))
    assert {"code of crops", "code of reader", "code of detector", "code of jax", "code of numpy"} <= set(code)
    assert "code of jax" not in plan.code_versions(people, None)
    package = pathlib.Path(pyramid.__file__).parent
    assert code["code of detector"] == plan._hash_files(sorted(package.glob("*.py")))
    assert code["code of reader"] == plan._hash_files(
        sorted(pathlib.Path(registry.__file__).parent.glob("people/*.py"))
    )


@pytest.mark.parametrize(
    "module",
    [
        "data/decode.py",
        "data/example.py",
        "data/metadata.py",
        "datasets/crops.py",
        "detect/align.py",
        "detect/boxes.py",
    ],
)
def test_a_change_of_code_that_makes_crops_is_noticed(module, monkeypatch):
    read, reader = pathlib.Path.read_bytes, get_dataset("lfw")
    before = plan.code_versions(reader, None)
    monkeypatch.setattr(pathlib.Path, "read_bytes", lambda path: read(path) + b"#" * path.as_posix().endswith(module))
    after = plan.code_versions(reader, None)
    assert {part for part in before if before[part] != after[part]} == {"code of crops"}


def test_paths_that_lead_out_of_the_set(tmp_path):
    write_photos(tmp_path, 1)
    (tmp_path / "raw").mkdir()
    record = registry.Record("x", "train", tmp_path / "raw" / ".." / "000.png")
    assert crops.load_photo(record, tmp_path / "raw").problem == ("corrupt", "its path is outside the dataset's folder")
    assert crops.load_photo(record, tmp_path).problem is None
    nul = registry.Record("x", "train", tmp_path / "a\0b.png")
    assert crops.load_photo(nul, tmp_path).problem[0] == "corrupt"
    folder = registry.Record("x", "train", tmp_path / "raw")
    assert crops.load_photo(folder, tmp_path).problem[0] == "corrupt"


def test_large_photos_are_reduced_and_boxes_follow(tmp_path, monkeypatch):
    monkeypatch.setattr(crops, "MAX_PHOTO_SIDE", 30)
    large = np.zeros((40, 60, 3), np.uint8)
    large[10:30, 20:40] = 255
    cv2.imwrite(str(tmp_path / "a.png"), large)
    points = np.array([[24.0, 14.0], [36.0, 14.0], [30.0, 20.0], [26.0, 26.0], [34.0, 26.0]])
    record = registry.Record("a", "train", tmp_path / "a.png", {}, (20.0, 10.0, 40.0, 30.0), points)
    loaded = crops.load_photo(record, tmp_path)
    assert loaded.image.shape == (20, 30, 3)
    settings = crops.CropSettings(crop="annotation", image_format="bmp")
    turned = []
    monkeypatch.setattr(crops, "_cut", lambda *args, cut=crops._cut: turned.append(args[2]) or cut(*args))
    example = decode_example(crops.cut_face(loaded, {}, settings).example)
    np.testing.assert_allclose(turned[0], points / 2)
    cut = decode_image(example["image"][0])
    assert cut.shape == (10, 10, 3)
    assert (cut == 255).all()
    assert example["bbox"] == [20, 10, 40, 30]


def test_faces_that_are_kept():
    bboxes = np.array([[0, 0, 10, 10], [20, 20, 60, 60], [45, 45, 55, 55]], np.float32)
    scores = np.array([0.9, 0.8, 0.95])
    assert choose_face(bboxes, scores, 100, 100, "largest") == 1
    assert choose_face(bboxes, scores, 100, 100, "probable") == 2
    assert choose_face(bboxes, scores, 102, 102, "central") == 2
    wide = np.array([[0, 40, 10, 60], [45, 0, 55, 10]], np.float32)
    assert choose_face(wide, scores[:2], 10, 100, "central") == 1
    assert choose_face(bboxes, scores, 100, 100, "largest", np.array([1.0, 1, 9, 9])) == 0
    assert choose_face(bboxes, scores, 100, 100, "largest", np.array([80.0, 80, 90, 90])) is None
    assert choose_face(bboxes[:0], scores[:0], 100, 100, "largest") is None


def test_crops_of_a_detected_face(raw, tmp_path):
    def crop_of(out, index, **options):
        folder = run(raw, tmp_path / out, image_format="bmp", align=False, **options)
        split = "train" if index % 5 else "validation"
        return decode_image(examples(folder, split)[f"{index:03d}.png"]["image"][0])

    # One face; the published box decides between two: it overlaps the smaller one more.
    assert (crop_of("a", 1) == photo(1)[3:33, 2:22]).all()
    assert (crop_of("a", 5) == photo(5)[3:33, 2:22]).all()
    assert (crop_of("b", 1, margin=0.1) == photo(1)[0:36, 0:24]).all()
    assert crop_of("c", 9, no_face="centre").shape == (128, 128, 3)


def test_crops_are_stored_as_the_settings_say():
    image = photo(0)
    loaded = crops.Photo(registry.Record("a", "train", lambda: image), image)

    def stored(**settings):
        outcome = crops.cut_face(loaded, {}, crops.CropSettings(crop="none", **settings))
        return decode_example(outcome.example)["image"][0]

    assert stored()[:2] == stored(quality=20)[:2] == b"\xff\xd8"
    assert len(stored(quality=20)) < len(stored(quality=60)) < len(stored())
    assert decode_image(stored(max_side=30)).shape == (20, 30, 3)
    assert (decode_image(stored(image_format="bmp")) == image).all()


def test_landmarks_of_sets():
    assert five_points(np.zeros((21, 2))) is None
    five = np.arange(10.0).reshape(5, 2)
    assert five_points(five) is five
    many = np.zeros((68, 2))
    many[36:42], many[42:48], many[30], many[48], many[54] = 1, 2, 3, 4, 5
    assert five_points(many)[:, 0].tolist() == [1, 2, 3, 4, 5]


def test_clear_errors(raw, tmp_path):
    with pytest.raises(ValueError, match="did you mean 'toy_faces'"):
        prepare_dataset("toy_face", raw, tmp_path)
    with pytest.raises(ValueError, match="crop must be one of mtcnn, centre, annotation, none, not 'center'"):
        run(raw, tmp_path, crop="center")
    with pytest.raises(ValueError, match=r"--raw .*nowhere is not a folder; it must contain toy_faces"):
        run(tmp_path / "nowhere", tmp_path)
    (tmp_path / "toy_faces" / "1.0.0").mkdir(parents=True)
    (tmp_path / "toy_faces" / "1.0.0" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"1.0.0 has files but no prepared dataset .*: delete it or move it away"):
        run(raw, tmp_path)
    (tmp_path / "toy_faces" / "1.0.0" / "notes.txt").unlink()
    shutil.rmtree(raw)
    raw.mkdir()
    with pytest.raises(ValueError, match="found no photo of toy_faces"):
        run(raw, tmp_path)


def test_a_dataset_without_any_crop_says_why_and_starts_again(raw, tmp_path):
    photos = {path: path.read_bytes() for path in raw.iterdir()}
    for place, path in enumerate(sorted(photos)):
        if place:  # links to a disk that is not mounted
            path.unlink()
            path.symlink_to(raw / "gone")
    cv2.imwrite(str(min(photos)), np.zeros((40, 60, 3), np.uint8))
    told = r"none of 40 photos gave a crop: 39 missing \(001.png: no such file\), 1 no face \(000.png: no face was det"
    with pytest.raises(ValueError, match=told):
        run(raw, tmp_path)
    for path, content in photos.items():
        path.unlink()
        path.write_bytes(content)
    folder = run(raw, tmp_path)  # the photos are the ones that the first attempt knew, but they can be read now
    assert not (folder / "missing.txt").read_text()
    assert len(FaceSource(tmp_path, "toy_faces", "train")) == SPLITS["train"] - 4


def test_counts_several_faces_only_where_they_were_detected_and_cropped(raw, tmp_path, monkeypatch):
    def of_validation(**settings) -> str:
        folder = run(raw, tmp_path / "-".join(settings.values() or ("far",)), **settings)
        lines = describe_summary(json.loads((folder / "summary.json").read_text()))
        return next(line for line in lines if line.startswith("toy_faces validation"))

    assert of_validation(crop="mtcnn").endswith("; 4 crops are from photos with several faces")
    assert of_validation(crop="annotation").endswith("0 corrupt")

    def far_boxes(self, raw, records=ToyFaces.records):
        """Photos 0 and 5, with one face and two, have the dataset's own box elsewhere: no face is kept."""
        for record in records(self, raw):
            yield dataclasses.replace(record, bbox=(55.0, 0.0, 60.0, 2.0)) if record.id < "010" else record

    monkeypatch.setattr(ToyFaces, "records", far_boxes)
    told = of_validation()
    assert "of 8 photos 6 gave a crop, 2 had no face" in told
    assert told.endswith("; 3 crops are from photos with several faces")
    assert len((tmp_path / "far" / "toy_faces" / "1.0.0" / "several_faces.txt").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("num_shards", 0, "1 or more"),
        ("num_shards", -1, "1 or more"),
        ("max_side", 0, "1 pixel or more"),
        ("quality", 500, "1 to 100"),
        ("quality", 0, "1 to 100"),
        ("margin", -1.0, "0 or more"),
        ("margin", float("nan"), "0 or more"),
        ("margin", float("inf"), "0 or more"),
    ],
)
def test_numbers_that_cannot_be(tmp_path, name, value, expected):
    # Refused at once, without looking at the folder.
    with pytest.raises(ValueError, match=f"^{name} must be {expected}, got {value}$"):
        run(tmp_path / "nowhere", tmp_path, **{name: value})


@pytest.mark.parametrize("name", ["crop", "face", "no_face", "image_format"])
def test_words_that_are_none_of_the_choices(tmp_path, name):
    with pytest.raises(ValueError, match=f"^{name} must be one of .*, not 'center'$"):
        run(tmp_path / "nowhere", tmp_path, **{name: "center"})


def test_a_batch_without_photos_is_refused_before_a_chunk_is_done(raw, tmp_path):
    with pytest.raises(ValueError, match="detect_batch must be 1 or more, got 0"):
        run(raw, tmp_path, detect_batch=0)
    assert not list(tmp_path.rglob("*.partial/chunks/*"))


def test_a_box_beyond_the_photo_counts_as_no_face():
    image = photo(0)
    loaded = crops.Photo(registry.Record("a", "train", lambda: image, {}, (60.0, 4.0, 80.0, 30.0)), image)
    assert crops.cut_face(loaded, {}, crops.CropSettings(crop="annotation")).kind == "no_face"
    settings = crops.CropSettings(crop="annotation", no_face="centre", image_format="bmp")
    example = decode_example(crops.cut_face(loaded, {}, settings).example)
    assert (decode_image(example["image"][0]) == centre_crop(image)).all()
    assert np.isnan(example["bbox"]).all()


def test_an_option_may_be_a_set_or_an_iterator(tmp_path):
    """Sets have another order in each process; an iterator is empty when the records are read again."""
    miniatures.lfw(tmp_path / "raw")
    names = ["Abdullah_Gul", "Aaron_Sorkin", "Aaron_Eckhart"]

    def prepare_some(subjects):
        options = {"crop": "centre", "reader_options": {"subjects": subjects}, "log": lambda line: None}
        folder = prepare_dataset("lfw", tmp_path / "raw", tmp_path / "data", **options)
        return json.loads((folder / "summary.json").read_text())["plan"]["options"]

    assert prepare_some(set(names)) == {"subjects": str(sorted(names))}
    prepare_some(sorted(names))
    prepare_some(iter(sorted(names)))


@pytest.mark.parametrize("crop", ["none", "centre"])
def test_a_margin_without_a_box_is_refused(tmp_path, crop):
    with pytest.raises(ValueError, match=f"margin 0.4 widens a box, and crop '{crop}' has none"):
        run(tmp_path / "nowhere", tmp_path, crop=crop, margin=0.4)


def test_own_boxes_of_a_set_that_has_none(tmp_path):
    options = {"crop": "annotation", "reader_options": {"count": 3}}
    with pytest.raises(ValueError, match=r"crop 'annotation' uses .*toy_faces in None has none; see --crop"):
        run(None, tmp_path, **options)
    assert not any(tmp_path.iterdir())
    assert is_prepared(run(None, tmp_path, no_face="centre", **options).parents[1], "toy_faces")


def test_more_shards_than_photos_and_none_of_a_split(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "PHOTOS_PER_SHARD", 20)
    for photos, expected in ((20, 1), (21, 2), (40, 2), (41, 3)):
        assert len(shards.ChunkedShards(tmp_path / "x", "toy", {"train": photos}).shards) == expected
    store = shards.ChunkedShards(tmp_path / "x", "toy", {"train": 3}, num_shards=10)
    assert [(chunk.start, chunk.stop) for chunk in store.chunks] == [(0, 1), (1, 2), (2, 3)]
    store = shards.ChunkedShards(tmp_path / "x", "toy", {"train": 100}, num_shards=3)
    assert [chunk.start for chunk in store.chunks] == [100 * n // 13 for n in range(13)]
    assert [len(part) for part in store._shards["train"]] == [4, 4, 5]
    assert sorted(chunk.number for part in store._shards["train"] for chunk in part) == list(range(13))


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("prepare_tool", REPOSITORY / "tools" / "prepare_dataset.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tool_s_detector_has_the_settings_that_were_named(tool, raw, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(tool, "prepare_dataset", lambda *_, detector, **__: asked.append(detector))
    arguments = ["toy_faces", "--raw", str(raw), "--out", str(tmp_path), "--crop", "mtcnn"]
    assert tool.main(arguments) == 0
    assert tool.main([*arguments, "--min-face", "32", "--thresholds", "0.6", "0.7", "0.9"]) == 0
    assert [(found.min_face, found.thresholds) for found in asked] == [(20, (0.6, 0.7, 0.7)), (32, (0.6, 0.7, 0.9))]


def test_the_tool_passes_its_options_on_and_has_the_package_s_defaults(tool, raw, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(tool, "prepare_dataset", lambda *where, **settings: asked.append((where, settings)))
    arguments = ["toy_faces", "--raw", str(raw), "--out", str(tmp_path), "--crop", "annotation"]
    named = "--margin 0.4 --no-align --num-shards 3 --face central --no-face centre --max-side 99 --quality 80"
    named += " --image-format bmp --workers 2"
    assert tool.main(arguments) == tool.main([*arguments, *named.split()]) == 0
    (where, defaults), (changed, settings) = asked
    plain, own = crops.CropSettings(), ("face", "no_face", "max_side", "quality", "image_format")
    assert where == ("toy_faces", str(raw), str(tmp_path), "annotation", plain.margin, plain.align, None)
    others = {"detector": None, "reader_options": {}}
    assert defaults == {name: getattr(plain, name) for name in own} | {"workers": None} | others
    assert changed == ("toy_faces", str(raw), str(tmp_path), "annotation", 0.4, False, 3)
    assert settings == dict(zip(own, ("central", "centre", 99, 80, "bmp"), strict=True)) | {"workers": 2} | others


def test_tool(tool, raw, tmp_path, capsys):
    arguments = ["--raw", str(raw), "--out", str(tmp_path / "data"), "--crop", "annotation", "--no-align"]
    assert tool.main(["toy_faces", *arguments, "--margin", "0.2", "--num-shards", "2", "--workers", "1"]) == 0
    made = json.loads((tmp_path / "data/toy_faces/1.0.0/summary.json").read_text())["plan"]
    assert (made["crop"], made["align"], made["margin"], made["num_shards"]) == ("annotation", False, 0.2, 2)
    assert tool.main(["toy_facse", *arguments]) == 1
    assert "did you mean 'toy_faces'" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert tool.main(["toy_faces", *arguments, "--out", str(tmp_path / "file")]) == 1
    assert "Not a directory" in capsys.readouterr().err
    assert tool.main(["--list"]) == 0
    assert "facial_expressions\n" in capsys.readouterr().out
    for wrong in (["toy_faces", "--crop", "center"], [], ["toy_faces", "--option", "x"]):
        with pytest.raises(SystemExit):
            tool.main(wrong)

"""The command as seen by users: outputs, exit status, resuming, bad input. Toy networks with the real MTCNN."""

import csv
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tomllib

import cv2
import jax
import numpy as np
import pytest
import skimage.data
from pyarrow import parquet

import facejax
from facejax import cli
from facejax.app import serve
from facejax.cli import analyze_video, doctor, reading, results_file
from facejax.cli.check_faces import check_faces
from facejax.cli.export import _words
from facejax.detect import MTCNN, warp_five_points
from facejax.export import FORMATS
from facejax.inference import FaceAnalyzer
from facejax.inference.video import VideoFrame, VideoWriter
from facejax.locks import LOCK, exclusive_lock
from facejax.protocol_config import DetectionConfig
from facejax.video.classifiers import ClipClassifier, Recipe, fit
from facejax.video.descriptors import AFEW, describe_clips
from facejax.video.frames import array_frames, read_frames
from facejax.weights.checkpoint import save_inference_checkpoint
from tests.conftest import REPOSITORY
from tests.inference.toy import FixedDetector, noise, toy_model
from tests.video.webm import write_webm


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> str:
    model = toy_model("age", "gender", "emotion8")
    folder = tmp_path_factory.mktemp("models") / "toy"
    save_inference_checkpoint(folder, model.variables, model.cfg)
    return str(folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> pathlib.Path:
    """A face, its mirror image in a subfolder, noise, and a file that is not a photo."""
    astronaut = skimage.data.astronaut()[:250, 120:370]
    folder = tmp_path_factory.mktemp("photos")
    (folder / "below").mkdir()
    cv2.imwrite(str(folder / "a.png"), astronaut[..., ::-1])
    cv2.imwrite(str(folder / "below" / "b.jpg"), astronaut[:, ::-1, ::-1])
    cv2.imwrite(str(folder / "c.png"), noise(60, 60))
    (folder / "d.jpg").write_bytes(b"no photo")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def test_json_lines_of_a_folder(photos, model_dir, capsys):
    assert cli.main(["analyze", str(photos), "--model", model_dir, "--json", "--quiet"]) == cli.PARTLY
    out, err = capsys.readouterr()
    results = {pathlib.Path(line["photo"]).name: line for line in map(json.loads, out.splitlines())}
    assert err == ""
    assert {name: len(result.get("faces", ())) for name, result in results.items()} == {
        "a.png": 1,
        "b.jpg": 1,
        "c.png": 0,
        "d.jpg": 0,
    }
    assert "unknown image format" in results["d.jpg"]["error"]
    face = results["a.png"]["faces"][0]
    assert {"perceived_age", "perceived_gender", "expression"} <= face.keys()
    assert "embedding" not in face


def test_words_for_people(photos, model_dir, capsys):
    assert cli.main(["analyze", str(photos / "a.png"), "--model", model_dir]) == cli.DONE
    out, err = capsys.readouterr()
    assert "perceived" in out
    assert "expression: " in out
    assert "not what a person feels" in err


def test_a_folder_goes_on_where_it_stopped(photos, model_dir, tmp_path, capsys, monkeypatch):
    arguments = ["analyze", str(photos), "--model", model_dir, "--out", str(tmp_path / "out"), "--draw"]
    add, done = results_file.ResultsFile.add, []

    def stop_at_third(self, key, result):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(key)
        add(self, key, result)

    monkeypatch.setattr(results_file.ResultsFile, "add", stop_at_third)
    assert cli.main(arguments) == cli.STOPPED
    monkeypatch.undo()
    lines = tmp_path / "out" / "results.jsonl"
    assert len(lines.read_text().splitlines()) == 2
    lines.write_text(lines.read_text() + '{"key": "torn')
    assert cli.main(arguments) == cli.PARTLY
    assert "2 of 4 photos are in" in capsys.readouterr().err
    results = [json.loads(line)["result"] for line in lines.read_text().splitlines()]
    assert len({result["photo"] for result in results}) == len(results) == 4
    assert len(list((tmp_path / "out" / "annotated").iterdir())) == 3
    with (tmp_path / "out" / "faces.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [pathlib.Path(row["photo"]).name for row in rows] == ["a.png", "b.jpg"]
    assert sum(float(rows[0][f"expression_{name}"]) for name in ("anger", "contempt", "disgust", "fear")) > 0
    assert cli.main(arguments) == cli.PARTLY
    assert "3 of 4 photos are in" in capsys.readouterr().err
    assert len(lines.read_text().splitlines()) == 4


def test_a_photo_that_could_not_be_read_is_tried_again(photos, model_dir, tmp_path, capsys):
    photo, out = tmp_path / "a.png", tmp_path / "out"
    photo.write_bytes(b"no photo ")
    arguments = ["analyze", str(photo), "--model", model_dir, "--out", str(out)]
    for _ in range(2):
        assert cli.main(arguments) == cli.PARTLY
        assert "1 not read" in capsys.readouterr().err
    assert len((out / "results.jsonl").read_text().splitlines()) == 1
    photo.write_bytes((photos / "a.png").read_bytes())
    assert cli.main(arguments) == cli.DONE
    assert len((out / "faces.csv").read_text().splitlines()) == 2


def test_a_photo_that_changed_is_in_the_table_once(photos, model_dir, tmp_path):
    photo, out = tmp_path / "a.png", tmp_path / "out"

    def rows(content: bytes, time: int) -> list[str]:
        photo.write_bytes(content)
        os.utime(photo, (time, time))
        assert cli.main(["analyze", str(photo), "--model", model_dir, "--out", str(out), "--quiet"]) == cli.DONE
        return (out / "faces.csv").read_text().splitlines()[1:]

    face, mirrored = (photos / "a.png").read_bytes(), (photos / "below" / "b.jpg").read_bytes()
    first, second = rows(face, 1), rows(mirrored, 2)
    assert len(first) == len(second) == 1
    assert first != second
    assert rows(face, 1) == first  # an older file put back
    assert rows((photos / "c.png").read_bytes(), 3) == []


def test_photos_that_are_done_are_drawn_when_asked(photos, model_dir, tmp_path):
    arguments = ["analyze", str(photos / "a.png"), "--model", model_dir, "--out", str(tmp_path), "--quiet"]
    assert cli.main(arguments) == cli.DONE
    lines = (tmp_path / "results.jsonl").read_text()
    assert cli.main([*arguments, "--draw"]) == cli.DONE
    (drawn,) = (tmp_path / "annotated").iterdir()
    assert cv2.imread(str(drawn)).shape == (250, 250, 3)
    assert (tmp_path / "results.jsonl").read_text() == lines
    drawn.write_bytes(b"kept")
    assert cli.main([*arguments, "--draw"]) == cli.DONE
    assert drawn.read_bytes() == b"kept"


def test_a_photo_that_is_replaced_during_a_run_is_looked_at_again(photos, model_dir, tmp_path, monkeypatch):
    photo, out, read = tmp_path / "a.png", tmp_path / "out", reading.read_image
    photo.write_bytes((photos / "a.png").read_bytes())

    def read_and_replace(path):
        image = read(path)
        photo.write_bytes((photos / "c.png").read_bytes())
        return image

    arguments = ["analyze", str(photo), "--model", model_dir, "--out", str(out), "--quiet"]
    monkeypatch.setattr(reading, "read_image", read_and_replace)
    for rows in (1, 0):
        assert cli.main(arguments) == cli.DONE
        assert len((out / "faces.csv").read_text().splitlines()) == 1 + rows
        monkeypatch.undo()


def test_a_name_that_is_not_utf_8(photos, model_dir, tmp_path, capfdbinary):
    photo = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        pathlib.Path(os.fsdecode(photo)).write_bytes((photos / "a.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    arguments = ["analyze", os.fsdecode(photo), "--model", model_dir, "--quiet"]
    assert cli.main(arguments) == cli.DONE
    assert "caf\N{REPLACEMENT CHARACTER}.png: 1 face".encode() in capfdbinary.readouterr().out
    assert cli.main([*arguments, "--out", str(tmp_path), "--draw"]) == cli.DONE
    assert (tmp_path / "faces.csv").read_bytes().splitlines()[1].startswith(photo)
    (drawn,) = (tmp_path / "annotated").iterdir()
    assert drawn.name.startswith("caf\udce9_")
    assert cli.main([*arguments, "--out", str(tmp_path), "--parquet"]) == cli.DONE
    (row,) = parquet.read_table(tmp_path / "faces.parquet").to_pylist()
    assert row["photo"].endswith("caf\N{REPLACEMENT CHARACTER}.png")


@pytest.mark.parametrize("out", ["results", "."])
def test_annotated_photos_are_no_photos(out, photos, model_dir, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes((photos / "a.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        arguments = ["analyze", str(tmp_path), "--model", model_dir, "--out", out, "--draw", "--quiet"]
        assert cli.main(arguments) == cli.DONE
    assert len(pathlib.Path(out, "faces.csv").read_text().splitlines()) == 2


def test_photos_of_one_name_in_several_folders_are_several(photos, model_dir, tmp_path, monkeypatch):
    """Named relative to each folder, with names of the maximum length."""
    long = "顔" * 80 + ".png"
    for folder, photo in (("one", "a.png"), ("two", "below/b.jpg")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / long).write_bytes((photos / photo).read_bytes())
        monkeypatch.chdir(tmp_path / folder)
        assert cli.main(["analyze", ".", "--model", model_dir, "--out", "../out", "--draw", "--quiet"]) == cli.DONE
    with (tmp_path / "out" / "faces.csv").open() as file:
        assert [row["photo"] for row in csv.DictReader(file)] == [str(tmp_path / f / long) for f in ("one", "two")]
    assert len(list((tmp_path / "out" / "annotated").iterdir())) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_interruption_cuts_nothing_off(monkeypatch, capsys, number):
    """Nor does SIGTERM, which is used to stop machines and containers."""
    before, cleaned = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}, []

    def interrupted(args):
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            cleaned.append(True)

    monkeypatch.setattr(doctor, "run", interrupted)
    try:
        assert cli.main(["doctor"]) == cli.STOPPED
        assert cleaned
        assert capsys.readouterr().err == "stopped\n"
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def test_a_picture_of_a_photo_as_it_was_is_not_kept(photos, model_dir, tmp_path):
    photo, out = tmp_path / "a.png", tmp_path / "out"
    photo.write_bytes((photos / "a.png").read_bytes())
    arguments = ["analyze", str(photo), "--model", model_dir, "--out", str(out), "--quiet"]
    assert cli.main([*arguments, "--draw"]) == cli.DONE
    (drawn,) = (out / "annotated").iterdir()
    before = drawn.read_bytes()
    photo.write_bytes((photos / "below" / "b.jpg").read_bytes())
    assert cli.main(arguments) == cli.DONE
    assert not drawn.exists()
    assert cli.main([*arguments, "--draw"]) == cli.DONE
    assert drawn.read_bytes() != before


OURS = '{"key": "a", "result": {"faces": []}}\n'


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"results.jsonl": '{"mine": 1}\n'}, "results.jsonl was not written by facejax"),
        ({"results.jsonl": OURS}, "results.jsonl was not written by facejax"),
        ({"settings.json": '{"editor.fontSize": 3}'}, "settings.json was not written by facejax"),
        ({"settings.json": "// comment\n{}"}, "settings.json was not written by facejax"),
        ({"settings.json": "[]", "results.jsonl": OURS}, "settings.json was not written by facejax"),
        ({"settings.json": '{"a": 2}', "results.jsonl": OURS}, r"other settings \(differ: a\)"),
        ({"settings.json": '{"a": 1, "c": 2}', "results.jsonl": OURS}, r"other settings \(differ: c\)"),
        ({"settings.json": '{"a": 1}', "results.jsonl": OURS + '{"mine": 1}\n' + OURS}, "line 2 of .* facejax"),
        ({"settings.json": '{"a": 1}', "results.jsonl": OURS + '{"key": "b"\n' + OURS}, "line 2 of .* broken"),
        ({"settings.json": '{"a": 1}', "results.jsonl": OURS + "[1]\n"}, "line 2 of .* facejax"),
    ],
)
def test_files_of_others_are_refused_and_kept(files, words, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"{words}.*choose another --out"):
        results_file.ResultsFile(tmp_path, {"a": 1})
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.name != LOCK} == files


def test_a_file_in_place_of_the_folder_of_results_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file: choose a folder"):
        results_file.ResultsFile(tmp_path / "file", {"a": 1})


@pytest.mark.parametrize("source", ["photo.png", "video.mp4"])
def test_a_folder_of_results_that_another_process_writes_to_is_refused(source, model_dir, tmp_path, capsys):
    if source == "video.mp4":
        with VideoWriter(tmp_path / source, 10) as writer:
            writer.write(noise(64, 64))
    else:
        cv2.imwrite(str(tmp_path / source), noise(64, 64))
    arguments = ["analyze", str(tmp_path / source), "--model", model_dir, "--out", str(tmp_path / "out")]
    with exclusive_lock(tmp_path / "out"):
        assert cli.main(arguments) == cli.FAILED
    assert f"another process is writing to {tmp_path / 'out'}:" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]
    assert cli.main(arguments) == cli.DONE


def test_a_run_that_was_killed_before_its_first_line_goes_on(tmp_path):
    (tmp_path / "settings.json").write_text('{"a": 1}')
    with results_file.ResultsFile(tmp_path, {"a": 1}) as file:
        assert file.keys == set()


def test_other_settings_are_refused(photos, model_dir, tmp_path, capsys):
    arguments = ["analyze", str(photos / "c.png"), "--model", model_dir, "--out", str(tmp_path)]
    assert cli.main(arguments) == cli.DONE
    assert cli.main([*arguments, "--min-face", "40"]) == cli.FAILED
    assert "other settings (differ: min_face)" in capsys.readouterr().err


def test_results_of_other_weights_are_refused(photos, tmp_path, capsys):
    """Training continues and overwrites ``best``; other descriptive metadata changes nothing."""
    trained, out = tmp_path / "best", tmp_path / "out"
    arguments = ["analyze", str(photos / "c.png"), "--model", str(trained), "--out", str(out), "--quiet"]

    def analyze(seed: int, **words: str) -> int:
        model = toy_model("gender", seed=seed)
        save_inference_checkpoint(trained, model.variables, dataclasses.replace(model.cfg, **words))
        return cli.main(arguments)

    assert analyze(0) == cli.DONE
    assert analyze(0, notes="told more clearly") == cli.DONE
    assert analyze(1) == cli.FAILED
    assert "other settings (differ: weights)" in capsys.readouterr().err
    kept = json.loads((out / "settings.json").read_text())
    kept["models"] = kept.pop("weights")
    (out / "settings.json").write_text(json.dumps(kept))
    assert cli.main(arguments) == cli.FAILED
    assert "older facejax" in capsys.readouterr().err


def test_parquet(photos, model_dir, tmp_path):
    assert cli.main(["analyze", str(photos / "a.png"), "--model", model_dir, "--out", str(tmp_path), "--parquet"]) == 0
    rows = parquet.read_table(tmp_path / "faces.parquet").to_pylist()
    assert len(rows) == 1
    assert rows[0]["perceived_gender"] in ("female", "male")


def test_a_video(photos, model_dir, tmp_path, capsys):
    face = cv2.cvtColor(cv2.imread(str(photos / "a.png")), cv2.COLOR_BGR2RGB)
    with VideoWriter(tmp_path / "clip.mp4", 10) as writer:
        for shift in range(6):
            writer.write(np.roll(face, 2 * shift, axis=1))
    arguments = ["analyze", str(tmp_path / "clip.mp4"), "--model", model_dir, "--quiet"]
    assert cli.main([*arguments, "--out", str(tmp_path / "out"), "--draw", "--every", "2"]) == cli.DONE
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        LOCK,
        "frames.jsonl",
        "faces.csv",
        "annotated.mp4",
        "settings.json",
    }
    frames = [json.loads(line) for line in (tmp_path / "out" / "frames.jsonl").read_text().splitlines()]
    assert [frame["frame"] for frame in frames] == [0, 2, 4]
    assert {face["track"] for frame in frames for face in frame["faces"]} == {1}
    assert cli.main([*arguments, "--json", "--seconds", "0.15"]) == cli.DONE
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_video_overwrites_no_results_of_others(photos, model_dir, tmp_path, capsys, monkeypatch):
    for name in ("a", "b"):
        with VideoWriter(tmp_path / f"{name}.mp4", 10) as writer:
            for seed in range(2 if name == "a" else 3):
                writer.write(noise(64, 64, seed=seed))

    def analyze(source: str, out: str, *more: str) -> int:
        return cli.main(["analyze", str(source), "--model", model_dir, "--out", str(tmp_path / out), "--quiet", *more])

    def refused(words: str) -> bool:
        return words in capsys.readouterr().err

    assert analyze(tmp_path / "a.mp4", "video") == cli.DONE
    assert analyze(tmp_path / "a.mp4", "video", "--draw") == cli.DONE
    kept = {path.name: path.read_bytes() for path in (tmp_path / "video").iterdir()}
    assert analyze(tmp_path / "b.mp4", "video") == cli.FAILED
    assert refused("other settings (differ: video)")
    assert analyze(tmp_path / "a.mp4", "video", "--every", "2") == cli.FAILED
    assert refused("other settings (differ: every)")
    assert analyze(photos / "c.png", "video") == cli.FAILED
    assert refused("other settings (differ: every, seconds, video)")
    assert {path.name: path.read_bytes() for path in (tmp_path / "video").iterdir()} == kept
    assert analyze(photos / "c.png", "photos") == cli.DONE
    assert analyze(tmp_path / "a.mp4", "photos") == cli.FAILED
    assert refused("another kind of source (lacks: every, seconds, video)")
    (tmp_path / "video" / "settings.json").unlink()
    assert analyze(tmp_path / "a.mp4", "video") == cli.FAILED
    assert refused("frames.jsonl was not written by facejax, or by an older one")
    monkeypatch.setattr(analyze_video, "webcam_frames", lambda number: array_frames([noise(64, 64)]))
    assert [analyze("webcam", "camera") for _ in range(2)] == [cli.DONE, cli.FAILED]


@pytest.mark.parametrize(("where", "kept"), [("draw", 3), ("write", 3), ("faces", 2)])
def test_ctrl_c_keeps_what_a_camera_recorded(where, kept, model_dir, tmp_path, monkeypatch):
    owner = {"draw": VideoFrame, "write": VideoWriter, "faces": FaceAnalyzer}[where]
    original, calls = getattr(owner, where), []

    def stop_at_third(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(owner, where, stop_at_third)
    monkeypatch.setattr(analyze_video, "webcam_frames", lambda number: array_frames([noise(64, 64)] * 5))
    arguments = ["analyze", "webcam", "--model", model_dir, "--out", str(tmp_path), "--draw", "--quiet"]
    assert cli.main(arguments) == cli.DONE
    written = {LOCK, "settings.json", "frames.jsonl", "faces.csv", "annotated.mp4"}
    assert {path.name for path in tmp_path.iterdir()} == written
    assert len((tmp_path / "frames.jsonl").read_text().splitlines()) == kept


def test_a_video_that_fails_leaves_nothing(model_dir, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    arguments = ["analyze", str(tmp_path / "a.mp4"), "--model", model_dir, "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == cli.FAILED
    assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]


def test_an_annotated_video_has_the_mean_rate(model_dir, tmp_path):
    times = [0, 100, 200, 700, 1000]
    write_webm(tmp_path / "recorded.webm", [noise(64, 64, seed=seed) for seed in range(5)], times)
    arguments = ["analyze", str(tmp_path / "recorded.webm"), "--model", model_dir, "--quiet", "--draw"]
    assert cli.main([*arguments, "--out", str(tmp_path / "out")]) == cli.DONE
    frames = [json.loads(line) for line in (tmp_path / "out" / "frames.jsonl").read_text().splitlines()]
    assert [frame["time"] for frame in frames] == [0, 0.1, 0.2, 0.7, 1]
    assert cv2.VideoCapture(str(tmp_path / "out" / "annotated.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(4)


def source_of(model_dir):
    """How a classifier file describes the network of its features."""
    return f"toy ({facejax.load_model(model_dir).digest()}), 32 px"


def test_the_expression_of_a_clip(photos, model_dir, tmp_path, capsys):
    face = cv2.cvtColor(cv2.imread(str(photos / "a.png")), cv2.COLOR_BGR2RGB)
    for name, image in (("face", face), ("noise", noise(64, 64))):
        with VideoWriter(tmp_path / f"{name}.mp4", 10) as writer:
            writer.write(image)
    width = toy_model("age", "gender", "emotion8").cfg.num_features
    clips = [(np.full((2, width), value, np.float32), np.arange(2)) for value in (0, 0, 1, 1)]
    fitted = fit(Recipe("linear_svc", costs=(1.0,)), describe_clips(clips, AFEW), np.array([0, 0, 1, 1]), 2)
    ClipClassifier(fitted, DetectionConfig(), AFEW, ("calm", "glad"), source_of(model_dir)).save(tmp_path / "c.skops")
    arguments = ["--model", model_dir, "--quiet", "--clips", str(tmp_path / "c.skops")]
    assert cli.main(["analyze", str(tmp_path / "face.mp4"), *arguments]) == cli.DONE
    assert re.search(r"expression of the clip: (calm|glad) \(features of toy \(", capsys.readouterr().out)
    assert cli.main(["analyze", str(tmp_path / "noise.mp4"), *arguments]) == cli.DONE
    assert capsys.readouterr().out == "expression of the clip: none, no face was found\n"
    assert cli.main(["analyze", str(tmp_path / "noise.mp4"), *arguments, "--json"]) == cli.DONE
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == {"clip_expression": None, "features_of": source_of(model_dir)}
    ClipClassifier(fitted, DetectionConfig(), AFEW, ("calm", "glad"), "my own words").save(tmp_path / "own.skops")
    assert cli.main(["analyze", str(tmp_path / "face.mp4"), *arguments[:-1], str(tmp_path / "own.skops")]) == cli.DONE
    assert "(features of my own words)" in capsys.readouterr().out
    other = toy_model("age", "gender", "emotion8", seed=1)
    save_inference_checkpoint(tmp_path / "other", other.variables, other.cfg)
    arguments[1] = str(tmp_path / "other")
    assert cli.main(["analyze", str(tmp_path / "face.mp4"), *arguments]) == cli.FAILED
    assert "is another network, or has other weights" in capsys.readouterr().err


@pytest.mark.parametrize("cut", ["box", "five_points"])
def test_a_clip_is_told_by_faces_as_its_classifier_was_taught_them(cut, photos, model_dir, tmp_path, monkeypatch):
    with VideoWriter(tmp_path / "face.mp4", 10) as writer:
        for _ in range(2):
            writer.write(cv2.cvtColor(cv2.imread(str(photos / "a.png")), cv2.COLOR_BGR2RGB))
    seen = []

    class Classifier:
        detection, source = DetectionConfig(40.0, (0.6, 0.7, 0.95), cut=cut), source_of(model_dir)

        def predict(self, clips):
            seen.extend(clips)
            return ["calm"]

    monkeypatch.setattr(ClipClassifier, "load", lambda path: Classifier())
    arguments = ["--model", model_dir, "--quiet", "--clips", "c.skops", "--seconds", "0.05"]
    assert cli.main(["analyze", str(tmp_path / "face.mp4"), *arguments]) == cli.DONE
    image = next(read_frames(tmp_path / "face.mp4")).image
    found = MTCNN(40, (0.6, 0.7, 0.95)).detect([image])[0]
    best = np.prod(found.bboxes[:, 2:] - found.bboxes[:, :2], axis=1).argmax()
    left, top, right, bottom = np.clip(found.bboxes[best], 0, [*image.shape[1::-1]] * 2).astype(int)
    crop = image[top:bottom, left:right] if cut == "box" else warp_five_points(image, found.landmarks[best])
    ((features, frames),) = seen
    np.testing.assert_allclose(features, facejax.load_model(model_dir).features([crop]), rtol=1e-4, atol=1e-4)
    assert frames.tolist() == [0]


def test_a_clip_classifier_is_read_before_the_video(model_dir, tmp_path, capsys):
    with VideoWriter(tmp_path / "noise.mp4", 10) as writer:
        writer.write(noise(64, 64))
    arguments = ["analyze", str(tmp_path / "noise.mp4"), "--model", model_dir, "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, "--clips", str(tmp_path / "nowhere.skops")]) == cli.FAILED
    assert "nowhere.skops" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["analyze", "nowhere.jpg"], "no file or folder 'nowhere.jpg'"),
        (["analyze", ""], "no file or folder ''"),
        (["analyze", "nowhere.mp4"], "no video file"),
        (["analyze", "webcam:x"], "webcam:NUMBER"),
        (["analyze", "a.mp4", "b.mp4"], "one video"),
        (["analyze", "a.jpg", "b.mp4"], "one video or camera at a time, and no photos with it"),
        (["analyze", "a.jpg", "webcam"], "one video or camera at a time"),
        (["analyze", "."], "videos must be given one at a time"),
        (["analyze", "a.jpg", "--draw"], "--out FOLDER"),
        (["analyze", "a.jpg", "--parquet"], "--out FOLDER"),
        (["analyze", "a.jpg", "--json", "--out", "x"], "use only one of them"),
        (["analyze", "a.jpg", "--embedding"], "--embedding needs --json or --out"),
        (["analyze", "a.mp4", "--seconds", "-1"], "at least 0 (0 for never), got -1"),
        (["analyze", "a.mp4", "--seconds", "nan"], "got nan"),
        (["analyze", "a.jpg", "--seconds", "3"], "--seconds needs a video"),
        (["analyze", "a.jpg", "--every", "2"], "--every needs a video"),
        (["analyze", "webcam", "--every", "2"], "--every needs a video"),
        (["analyze", "a.jpg", "--clips", "c.skops"], "--clips needs a video"),
        (["analyze", "webcam", "--clips", "c.skops"], "--clips needs a video"),
        (["models", "--card", "--json"], "not both"),
        (["models", "resnet17"], "did you mean 'resnet18'?"),
        (["models", "mobilenet_v1.vggface2_age_gendr", "--card"], "did you mean 'mobilenet_v1.vggface2_age_gender'?"),
        (["search", "find", "nowhere", "a.jpg"], "no index"),
    ],
)
def test_errors_are_one_line(arguments, words, capsys, tmp_path, monkeypatch, model_dir):
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "analyze":
        arguments = [*arguments, "--model", model_dir]
    assert cli.main(arguments) == cli.FAILED
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert words in error[0]


def test_wrong_usage():
    with pytest.raises(SystemExit) as caught:
        cli.main(["analyse"])
    assert caught.value.code == 2


def test_models_and_doctor(capsys, tmp_path):
    assert cli.main(["models", "mobilenet*", "--json"]) == cli.DONE
    listed = json.loads(capsys.readouterr().out)
    assert "mobilenet_v1.vggface2_age_gender" in {weights["name"] for weights in listed["weights"]}
    assert cli.main(["models"]) == cli.DONE
    assert "Apache-2.0" in capsys.readouterr().out
    assert cli.main(["doctor", "--json", "--data", str(tmp_path), "--workdirs", str(tmp_path)]) == cli.DONE
    report = json.loads(capsys.readouterr().out)
    assert report["problems"] == []
    assert report["devices"]
    assert cli.main(["doctor"]) == cli.DONE
    lines = capsys.readouterr().out.splitlines()
    assert f"  {'facejax':<23}{importlib.metadata.version('facejax')}" in lines
    assert [line for line in lines if line != line.rstrip()] == []


def test_doctor_does_not_miss_a_facejax_that_runs_from_a_checkout(monkeypatch, tmp_path):
    version = importlib.metadata.version

    def of_others(name):
        if name == "facejax":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", of_others)
    report = doctor.examine(tmp_path, tmp_path)
    assert (report["problems"], report["packages"]["facejax"]) == ([], "not installed")


def test_the_package_runs_as_the_command():
    done = subprocess.run([sys.executable, "-m", "facejax", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: facejax ")


def test_doctor_lists_a_platform_that_fails(monkeypatch, tmp_path, capsys):
    def devices():
        raise AssertionError  # as with JAX_PLATFORMS=cuda and no GPU

    monkeypatch.setattr(jax, "devices", devices)
    assert cli.main(["doctor", "--json", "--data", str(tmp_path), "--workdirs", str(tmp_path)]) == cli.FAILED
    report = json.loads(capsys.readouterr().out)
    assert report["devices"] == []
    assert report["problems"] == ["JAX finds no device (AssertionError()): check JAX_PLATFORMS and the driver"]
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert report["extras"].keys() == declared.keys() - {"test", "dev"}
    needed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    assert set(report["packages"]) == {re.split("[<>=]", line)[0] for line in needed} | {"facejax", "jaxlib"}


@pytest.mark.parametrize("lacking", ["numpy", "jaxtyping", "jax", "flax"])
def test_doctor_runs_where_a_package_is_missing(lacking, tmp_path):
    """In a new process, where nothing was imported before."""
    code = f"import sys; sys.modules[{lacking!r}] = None; from facejax.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "doctor", "--json", "--data", str(tmp_path), "--workdirs", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert done.returncode == (cli.DONE if lacking == "flax" else cli.FAILED), done.stderr
    assert any(lacking in problem for problem in report["problems"]) == (lacking != "flax")


def test_doctor_says_what_the_detector_lacks(monkeypatch, tmp_path):
    for lacking in ("lz4.frame", "facejax.weights.convert"):  # as if they, or what they import, were not installed
        monkeypatch.setitem(sys.modules, lacking, None)
    report = doctor.examine(tmp_path, tmp_path)
    assert report["detector"] == "unusable"
    assert "lz4.frame" in report["problems"][0]


def test_an_index_that_cannot_be_written_is_refused_before_the_photos_are_read(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("file").write_text("mine")
    assert cli.main(["search", "index", str(photos), "--out", "file", "--model", "nowhere"]) == cli.FAILED
    assert capsys.readouterr().err == "error: --out file is a file: choose a folder\n"


def test_people_are_found_again(photos, model_dir, tmp_path, capsys):
    """One folder per person; the mirror image of a photo is closer to it than another person."""
    people = tmp_path / "people"
    (people / "Eileen").mkdir(parents=True)
    (people / "Eileen" / "1.png").write_bytes((photos / "a.png").read_bytes())
    (people / "Eileen" / "2.jpg").write_bytes((photos / "below" / "b.jpg").read_bytes())
    index = tmp_path / "index"
    assert cli.main(["search", "index", str(people), "--out", str(index), "--model", model_dir]) == cli.DONE
    out, err = capsys.readouterr()
    assert "threshold: none; pairs of different people: 0" in out
    assert "which needs 1000: add people, or give `find` a --threshold" in err  # no rate helps
    assert cli.main(["search", "find", str(index), str(photos / "a.png")]) == cli.FAILED
    assert "or build it again: add people\n" in capsys.readouterr().err
    for photo, threshold, words in ((photos / "a.png", "nan", "a cosine, -1 to 1"), (index, "0.9", "no photo in")):
        assert cli.main(["search", "find", str(index), str(photo), "--threshold", threshold]) == cli.FAILED
        assert words in capsys.readouterr().err
    found = ["search", "find", str(index), str(photos / "a.png"), "--json", "--quiet", "--threshold", "0.99"]
    assert cli.main(found) == cli.DONE
    line = json.loads(capsys.readouterr().out)
    assert line["faces"][0]["name"] == "Eileen"
    assert line["faces"][0]["similarity"] == pytest.approx(1, abs=1e-4)
    assert [path.name for path in index.iterdir()] == ["index.npz"]


def test_an_index_names_what_is_not_in_it(photos, model_dir, tmp_path, capsys):
    people, index = tmp_path / "people", tmp_path / "index"
    for person, photo in (("Eileen", "a.png"), ("Eileen", "d.jpg"), ("Nobody", "c.png")):
        (people / person).mkdir(parents=True, exist_ok=True)
        (people / person / photo).write_bytes((photos / photo).read_bytes())
    arguments = ["search", "index", str(people), "--out", str(index), "--model", model_dir, "--json", "--quiet"]
    assert cli.main(arguments) == cli.PARTLY
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["people"], told["photos_without_face"], told["photos_not_read"]) == (1, 1, 1)
    assert re.search(r"not read: .*d\.jpg", err)
    assert "no face was found: Nobody" in err


def test_a_rate_is_checked_before_the_photos(capsys):
    assert cli.main(["search", "index", "nowhere", "--out", "x", "--false-matches", "2"]) == cli.FAILED
    assert "between 0 and 1, got 2" in capsys.readouterr().err


def test_an_index_is_of_its_weights(photos, tmp_path, capsys, monkeypatch):
    """Built with a relative path, read from another folder, and rejected once the weights have changed."""
    people, trained = tmp_path / "people" / "Eileen", tmp_path / "best"
    people.mkdir(parents=True)
    (people / "1.png").write_bytes((photos / "a.png").read_bytes())
    (tmp_path / "elsewhere").mkdir()
    find = ["search", "find", str(tmp_path / "index"), str(photos / "c.png"), "--quiet", "--threshold", "0.9"]
    for seed, expected in ((0, cli.DONE), (1, cli.FAILED)):
        model = toy_model("gender", seed=seed)
        save_inference_checkpoint(trained, model.variables, model.cfg)
        if not seed:
            monkeypatch.chdir(tmp_path)
            assert cli.main(["search", "index", "people", "--out", "index", "--model", "best", "--quiet"]) == cli.DONE
            monkeypatch.chdir(tmp_path / "elsewhere")
        assert cli.main(find) == expected
    assert "other weights" in capsys.readouterr().err


class Bomb:
    """Ends the test if it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("the pickle was loaded",))


OBJECTS = {
    "embeddings": np.array([Bomb()], dtype=object),
    "names": np.array(["x"]),
    "content": np.array('{"format": 2}'),
}
READABLE = {**OBJECTS, "embeddings": np.zeros((1, 2))}


@pytest.mark.parametrize(
    ("arrays", "damage", "words"),
    [
        (OBJECTS, slice(None), "damaged index"),  # unpickling them would run code
        (READABLE, slice(300), "damaged index"),
        ({**READABLE, "content": np.array("{")}, slice(None), "damaged index"),
        ({**READABLE, "content": np.array("[]")}, slice(None), "damaged index"),
        ({**READABLE, "content": np.array("{}")}, slice(None), "damaged index"),
        ({**READABLE, "content": np.array('{"format": 2, "model": "x"}')}, slice(None), "damaged index"),
        ({"embeddings": np.zeros((1, 2)), "names": np.array(["x"])}, slice(None), "index of format 1"),
    ],
)
def test_an_index_that_cannot_be_read_is_to_be_built_again(arrays, damage, words, tmp_path, capsys):
    np.savez(tmp_path / "index.npz", **arrays)
    (tmp_path / "index.npz").write_bytes((tmp_path / "index.npz").read_bytes()[damage])
    assert cli.main(["search", "find", str(tmp_path), "a.png", "--quiet"]) == cli.FAILED
    assert re.search(f"{words}.*build it again", capsys.readouterr().err)


@pytest.mark.filterwarnings("ignore:::ai_edge")  # LiteRT's own
@pytest.mark.parametrize("format_", FORMATS)
def test_every_export_format(format_, photos, model_dir, tmp_path, capsys):
    """Files, metadata, cards, and a difference from Flax that was measured before the file was written."""
    if format_.startswith("litert"):
        pytest.importorskip("litert_converter")
    arguments = ["export", model_dir, "--to", format_, "--out", str(tmp_path), "--json", "--quiet"]
    assert cli.main([*arguments, "--photos", str(photos)]) == cli.DONE
    told = json.loads(capsys.readouterr().out)
    folder = tmp_path / format_
    assert (told["format"], told["folder"]) == (format_, str(folder))
    assert all((folder / name).exists() for name in told["files"])
    assert len(told["files"]) == (1 if format_ == "orbax" else 4)
    (of_model,) = [entry for entry in told["files"].values() if entry["kind"] == "face"]
    assert of_model["cfg"]["tasks"] == ["age", "gender", "emotion8"]
    assert of_model["outputs"]["emotion8"]["labels"][0] == "anger"
    assert "Art. 5(1)(f)" in of_model["use"]
    assert set(of_model["check"]["max_difference"]) == {"features", "age", "gender", "emotion8"}
    cards = [path.read_text() for path in folder.rglob("*.md")]
    assert sum("# Model card: mobilenet_v1.toy" in card for card in cards) == 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("onnxruntime", ["export", "nowhere", "--to", "stablehlo", "onnx", "--out", "x"]),
        ("flatbuffers", ["export", "nowhere", "--to", "orbax", "stablehlo", "--out", "x"]),
        ("ai_edge_quantizer", ["export", "nowhere", "--to", "litert_int8", "--out", "x"]),
        ("onnxruntime", ["app", "nowhere", "--static", "x"]),
    ],
)
def test_a_missing_package_is_told_before_the_networks_are_read(missing, command, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    assert cli.main(command) == cli.FAILED
    assert f"needs {missing}: pip install 'facejax[" in capsys.readouterr().err


def test_an_export_without_classes_says_nothing_of_them():
    words = _words({"check": {"faces": 1, "max_difference": {"features": 0.0}, "agreement": {}}})
    assert words == "largest difference from Flax on 1 faces: features 0"


def test_an_export_counts_what_it_cannot_read_and_wants_two_faces_for_int8(photos, model_dir, tmp_path, capsys):
    pytest.importorskip("litert_converter")
    arguments = ["export", model_dir, "--to", "litert_int8", "--out", str(tmp_path / "x"), "--photos"]
    assert cli.main([*arguments, str(photos / "a.png"), str(photos / "d.jpg")]) == cli.FAILED
    told = capsys.readouterr().err
    assert "1 photo(s) cannot be read" in told
    assert "give more than one by --photos" in told
    assert not list(tmp_path.iterdir())


def test_a_box_outside_the_photo_is_no_face_to_check_on(photos, monkeypatch):
    detector = FixedDetector([[-30, 0, 0.4, 20], [10, 10, 40, 40]])
    monkeypatch.setattr("facejax.detect.MTCNN", lambda min_face: detector)
    assert len(check_faces([str(photos / "a.png")], 8)) == 1


def test_an_export_without_a_face_says_so(photos, model_dir, tmp_path, capsys):
    arguments = ["export", model_dir, "--out", str(tmp_path / "x"), "--photos", str(photos / "c.png")]
    assert cli.main(arguments) == cli.FAILED
    assert "no face was found" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_cards(model_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, words in ((model_dir, "Model card: mobilenet_v1.toy"), ("mobilenet_v1.vggface2*", "97.82")):
        assert cli.main(["models", name, "--card"]) == cli.DONE
        assert words in capsys.readouterr().out
    assert cli.main(["models", "nowhere", "--card"]) == cli.FAILED
    assert "neither a folder with a card" in capsys.readouterr().err


def test_import_of_the_command_is_light():
    code = "import sys, facejax.cli; print('jax' in sys.modules or 'cv2' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
        == "False"
    )


def test_the_app_serves_what_it_loaded(model_dir, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(serve.uvicorn.Server, "run", lambda self, sockets: started.extend(sockets))
    monkeypatch.setattr(serve.webbrowser, "open", started.append)
    assert cli.main(["app", model_dir, "--port", "0"]) == cli.DONE
    address, _ = started
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
    assert address in capsys.readouterr().err
    with serve.listen(0) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["app", model_dir, "--port", port]) == cli.FAILED
    assert "--port 0 picks a free one" in capsys.readouterr().err


def test_a_static_site_takes_no_smallest_face(capsys):
    assert cli.main(["app", "nowhere", "--static", "x", "--min-face", "100"]) == cli.FAILED
    assert "--min-face is only for the local page" in capsys.readouterr().err


def test_a_static_site_needs_its_runtime(model_dir, tmp_path, capsys):
    arguments = ["app", model_dir, "--static", str(tmp_path / "site"), "--onnxruntime-web", str(tmp_path)]
    assert cli.main(arguments) == cli.FAILED
    assert "npm package onnxruntime-web" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

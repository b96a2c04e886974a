"""Parts of the command, each against plain Python: thresholds, groups of files, written lines."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from pyarrow import parquet

from facejax import cli
from facejax.cli import reading, search
from facejax.cli.check_faces import check_faces
from facejax.cli.doctor import examine
from facejax.cli.options import photos_of
from facejax.cli.results_file import ResultsFile, file_key, write_table
from facejax.detect import crop_face
from facejax.inference import FaceAnalyzer
from facejax.inference.video import VideoWriter
from facejax.protocol_config import DetectionConfig
from facejax.video.classifiers import ClipClassifier
from facejax.weights.checkpoint import save_inference_checkpoint
from tests.inference.toy import FixedDetector, noise, toy_model


@pytest.fixture(scope="module")
def two_faces() -> FaceAnalyzer:
    """Finds a small and a large box in every photo of at least 20 pixels."""
    return FaceAnalyzer([toy_model("gender")], FixedDetector([[2, 2, 12, 12], [5, 5, 30, 30]]))


def write_noise(path, height: int, width: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), noise(height, width, seed)[..., ::-1])


@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize("rate", [0.004, 0.05, 0.5])
def test_a_threshold_is_the_lowest_that_lets_few_enough_pairs_pass(block, rate, monkeypatch):
    monkeypatch.setattr(search, "_BLOCK", block)
    # Sixteenths, whose products are exact in float32 whatever the order of a sum.
    vectors = np.random.default_rng(0).integers(-8, 9, (40, 5)).astype(np.float32) / 16
    names = np.array([f"person {number // 3}" for number in range(40)])
    similar = {True: [], False: []}
    for a, b in itertools.combinations(range(40), 2):
        similar[names[a] == names[b]].append(sum(vectors[a] * vectors[b]))
    own, others = np.array(similar[True]), np.array(similar[False])
    threshold, number, found = search.calibrate(vectors, names, rate)
    assert number == len(others)
    lower = np.nextafter(np.float32(threshold), np.float32(-2))
    assert (others >= threshold).sum() <= rate * len(others) < (others >= lower).sum()
    assert found == pytest.approx((own >= threshold).mean())


def test_a_rate_that_the_pairs_cannot_show_has_no_threshold():
    vectors, names = np.eye(4, dtype=np.float32), np.array(list("abcd"))
    assert search.calibrate(vectors, names, 1 / 7) == (None, 6, None)
    threshold, number, found = search.calibrate(vectors, names, 1 / 5)  # one of six pairs; nobody has two photos
    assert (number, found) == (6, None)
    assert 0 < threshold < 1e-6


def test_the_largest_face_is_indexed_and_no_other_is_named(two_faces, tmp_path, monkeypatch, capsys):
    for number, person in enumerate(("Ann", "Bob")):
        write_noise(tmp_path / "people" / person / "1.png", 40, 40, number)
    model = two_faces.models[0]
    save_inference_checkpoint(tmp_path / "model", model.variables, model.cfg)
    asked = []

    def load(*args):
        asked.append(args)
        return two_faces

    monkeypatch.setattr(search, "load_analyzer", load)
    index = ["search", "index", str(tmp_path / "people"), "--out", str(tmp_path / "index"), "--min-face", "33"]
    assert cli.main([*index, "--model", str(tmp_path / "model")]) == cli.DONE
    assert "1 pairs of different people are too few" in (err := capsys.readouterr().err)
    assert "add people or photos, build the index with a higher --false-matches, or give `find`" in err
    with np.load(tmp_path / "index" / "index.npz") as stored:
        for row, number in zip(stored["embeddings"], (0, 1), strict=True):
            photo = noise(40, 40, number)
            found = two_faces.detector.detect([photo])[0]
            features = model.features([crop_face(photo, found.bboxes[1], found.landmarks[1])])[0]
            np.testing.assert_allclose(row, features / np.linalg.norm(features), atol=1e-5)
        assert stored["names"].tolist() == ["Ann", "Bob"]
    bob = str(tmp_path / "people" / "Bob" / "1.png")
    for threshold, small in (("0.99999", None), ("-1", "somebody"), ("0", "somebody")):
        find = ["search", "find", str(tmp_path / "index"), bob, "--json", "--threshold", threshold]
        assert cli.main(find) == cli.DONE
        faces = json.loads(capsys.readouterr().out)["faces"]
        assert [face["name"] is None for face in faces] == [small is None, False]
        assert faces[1]["name"] == "Bob"
    (tmp_path / "broken.png").write_bytes(b"no photo")
    assert cli.main([*find[:4], str(tmp_path / "broken.png"), *find[4:]]) == cli.PARTLY
    out, err = capsys.readouterr()
    assert [json.loads(line)["photo"] for line in out.splitlines()] == [bob]
    assert "broken.png" in err
    assert asked == [([str(tmp_path / "model")], 33)] * 5


def test_files_are_looked_at_once_in_groups_of_bounded_size(two_faces, tmp_path, monkeypatch):
    paths = [tmp_path / f"{number}.png" for number in range(7)]
    for number, path in enumerate(paths):
        write_noise(path, 20 + number, 30)
    paths[3].write_bytes(b"no photo")
    groups = []
    analyze = FaceAnalyzer.faces

    def faces(self, images):
        groups.append([image.shape[0] for image in images])
        return analyze(self, images)

    monkeypatch.setattr(FaceAnalyzer, "faces", faces)

    def looked_at() -> list[list[int]]:
        groups.clear()
        for number, (path, result, image) in enumerate(reading.analyze_files(two_faces, paths)):
            assert path == paths[number]
            if number == 3:
                assert (image, "3.png" in result) == (None, True)
            else:
                assert (result.height, result.source, len(result.faces)) == (20 + number, path, 2)
                assert image.shape[0] == 20 + number
        return groups

    assert looked_at() == [[20, 21, 22, 24, 25, 26]]
    monkeypatch.setattr(reading, "_GROUP", 2)
    assert looked_at() == [[20, 21], [22], [24, 25], [26]]
    monkeypatch.setattr(reading, "_GROUP", 9)
    monkeypatch.setattr(reading, "_GROUP_PIXELS", 26 * 30)
    assert looked_at() == [[20, 21], [22, 24], [25, 26]]


def test_photos_of_a_folder_come_in_the_order_of_their_names(tmp_path, monkeypatch):
    for name in ("b.JPG", "a.png", "c.txt", "phone.HEIC", "below/d.WebP", "above/e.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    walk = os.walk

    def in_disorder(top):
        for folder, folders, files in walk(top):
            folders.sort(reverse=True)
            yield folder, folders, sorted(files, reverse=True)

    monkeypatch.setattr(os, "walk", in_disorder)
    found = [path.relative_to(tmp_path).as_posix() for path in photos_of([str(tmp_path)])]
    assert found == ["a.png", "b.JPG", "phone.HEIC", "above/e.tif", "below/d.WebP"]  # reported as not read, not skipped


def test_a_file_is_known_by_its_path_length_and_time(tmp_path):
    keys = set()
    for name, content, time in (("a", b"one", 1), ("b", b"one", 1), ("a", b"three", 1), ("a", b"three", 2)):
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, (time, time))
        keys |= {file_key(tmp_path / name)}
    assert len(keys) == 4


def test_a_line_is_in_the_file_at_once(tmp_path):
    with ResultsFile(tmp_path, {"a": 1}) as file:
        for number in range(3):
            file.add(str(number), {"faces": [], "photo": str(number)})
            assert len((tmp_path / "results.jsonl").read_text().splitlines()) == number + 1


def test_a_table_of_more_rows_than_are_written_at_once(tmp_path):
    for name in ("t.parquet", "t.csv"):
        write_table(tmp_path / name, ({"face": number, "x1": number / 4} for number in range(2500)), ["face", "x1"])
    rows = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert rows == [{"face": number, "x1": number / 4} for number in range(2500)]
    assert (tmp_path / "t.csv").read_text().splitlines() == ["face,x1", *(f"{n},{n / 4}" for n in range(2500))]


def test_no_more_faces_are_checked_on_than_asked_for(two_faces, tmp_path, monkeypatch):
    for number in range(3):
        write_noise(tmp_path / f"{number}.png", 40, 40, number)
    monkeypatch.setattr("facejax.detect.MTCNN", lambda min_face: two_faces.detector)
    assert len(check_faces([str(tmp_path)], 3)) == 3


def test_doctor_finds_what_was_prepared_and_trained(tmp_path, monkeypatch):
    for file in ("data/lfw/1.0.0/dataset_info.json", "runs/emotion_b0/best/model.json", "cache/resnet18.x/converted/a"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    monkeypatch.setenv("FACEJAX_CACHE", str(tmp_path / "cache"))
    report = examine(tmp_path / "data", tmp_path / "runs")
    assert report["prepared sets"] == ["lfw"]
    assert report["trained models"] == [str(tmp_path / "runs" / "emotion_b0" / "best")]
    assert report["fetched weights"] == ["resnet18.x"]


def test_embeddings_are_a_setting_of_the_results_and_in_the_frames(two_faces, tmp_path, monkeypatch, capsys):
    write_noise(tmp_path / "a.png", 40, 40)
    with VideoWriter(tmp_path / "a.mp4", 10) as writer:
        writer.write(noise(40, 40))
    named = dataclasses.replace(two_faces.models[0].cfg, tag="toy")
    save_inference_checkpoint(tmp_path / "model", two_faces.models[0].variables, named)
    loaded = []
    monkeypatch.setattr("facejax.detect.MTCNN", lambda **options: loaded.append(options) or two_faces.detector)
    common = ["--model", str(tmp_path / "model"), "--quiet", "--out"]
    photo = ["analyze", str(tmp_path / "a.png"), *common, str(tmp_path / "photo")]
    assert cli.main([*photo, "--min-face", "50"]) == cli.DONE
    assert cli.main([*photo, "--min-face", "50", "--embedding"]) == cli.FAILED
    assert "other settings (differ: embedding)" in capsys.readouterr().err
    assert loaded == [{"min_face": 50}] * 2
    assert cli.main(["analyze", str(tmp_path / "a.mp4"), *common, str(tmp_path / "clip"), "--embedding"]) == cli.DONE
    frame = json.loads((tmp_path / "clip" / "frames.jsonl").read_text())
    assert [len(face["embedding"]) for face in frame["faces"]] == [named.num_features] * 2


def test_annotated_photos_keep_their_colours(two_faces, tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((60, 60, 3), (40, 30, 200), np.uint8))  # red, in OpenCV's order
    save_inference_checkpoint(tmp_path / "model", two_faces.models[0].variables, two_faces.models[0].cfg)
    monkeypatch.setattr("facejax.detect.MTCNN", lambda **options: FixedDetector([[2, 2, 30, 30]]))
    arguments = ["analyze", str(tmp_path / "a.png"), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, "--draw", "--quiet"]) == cli.DONE
    (drawn,) = (tmp_path / "out" / "annotated").iterdir()
    assert np.abs(cv2.imread(str(drawn))[55, 55].astype(int) - (40, 30, 200)).max() < 8


def test_all_faces_of_every_other_frame_tell_the_clip(two_faces, tmp_path, monkeypatch):
    with VideoWriter(tmp_path / "a.mp4", 10) as writer:
        for seed in range(6):
            writer.write(noise(40, 40, seed))
    save_inference_checkpoint(tmp_path / "model", two_faces.models[0].variables, two_faces.models[0].cfg)
    seen = []

    class Classifier:
        detection, source = DetectionConfig(choose="all"), f"toy ({two_faces.models[0].digest()})"

        def predict(self, clips):
            seen.extend(frames.tolist() for _, frames in clips)
            return ["calm"]

    monkeypatch.setattr("facejax.detect.MTCNN", lambda *args, **options: two_faces.detector)
    monkeypatch.setattr(ClipClassifier, "load", lambda path: Classifier())
    arguments = [
        "analyze",
        str(tmp_path / "a.mp4"),
        "--model",
        str(tmp_path / "model"),
        "--clips",
        "c.skops",
        "--quiet",
    ]
    assert cli.main([*arguments, "--every", "2", "--seconds", "0.3"]) == cli.DONE
    assert seen == [[0, 0, 2, 2]]


def test_a_reader_that_has_gone_is_no_error():
    command = [sys.executable, "-m", "facejax", "models", "--json"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    running.stdout.close()
    with running.stderr:
        assert (running.stderr.read(), running.wait()) == (b"", 0)

import json

import numpy as np
import pytest

from experiments import run
from experiments.protocols.faces import open_clips
from experiments.protocols.lfw import open_photos
from facejax.config import Config, ConfigError, flatten, override
from facejax.models import list_models
from facejax.protocol_config import (
    AttributesConfig,
    ClassifierConfig,
    ClipsConfig,
    LfwConfig,
    NetworkConfig,
    PhotosConfig,
    SequenceConfig,
    VideoConfig,
)
from facejax.video.classifiers import CLASSIFIERS, ClipClassifier
from facejax.video.descriptors import AFEW, VGAF, Descriptor
from facejax.video.features import FeatureTable

PROTOCOLS = [name for name in run.list_configs() if not isinstance(run.load_config(name), Config)]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_resolves_and_says_what_it_reproduces(name):
    config = run.resolve(name, [("seed", "3")])
    assert config.seed == 3
    assert config.network.backbone in list_models()
    assert config.paper.table
    assert config.paper.row
    doc = __import__(f"experiments.configs.{name}", fromlist=["x"]).__doc__
    assert f"python experiments/run.py --config {name}" in doc
    assert config.paper.table in doc
    for path, value in flatten(config).items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert flatten(override(config, path, text))[path] == value


def test_configs_of_the_paper_s_tables_are_there():
    backbones = ("mobilenet", "b0", "b2", "rexnet150")
    expected = {f"video_{which}_{backbone}" for which in ("afew", "vgaf") for backbone in backbones}
    expected |= {f"lfw_{backbone}" for backbone in ("senet50", "mobilenet", "b0", "rexnet150")}
    assert expected | {"utkface_mobilenet", "utkface_ethnicity_mobilenet"} == set(PROTOCOLS)
    for name in expected:
        config = run.load_config(name)
        if name.startswith("video"):
            assert set(config.classifier.names) <= set(CLASSIFIERS)
            described = Descriptor(config.descriptor.levels, config.descriptor.statistics)
            assert described == (AFEW if "afew" in name else VGAF)


TINY = NetworkConfig(backbone="mobilenet_v1", image_size=32)


@pytest.mark.slow
def test_video_protocol_from_pixels_to_report(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run.py", "--config", "video_afew_mobilenet"])
    config = VideoConfig(
        compare_folds=2,
        clips=ClipsConfig(people_train=21, people_validation=14, people_frames=2),
        network=TINY,
        classifier=ClassifierConfig(trees=10, costs=(1.0,)),
        sequence=SequenceConfig(("attention",), epochs=2, max_frames=4),
        paper=run.load_config("video_afew_mobilenet").paper,
    )
    run.run_protocol(config, tmp_path, tmp_path / "data")
    report = json.loads((tmp_path / "report.json").read_text())
    text = (tmp_path / "report.md").read_text()
    assert "RANDOM weights" in report["network"]
    assert "cannot be compared" in text
    assert report["clips"]["validation"]["n"] == 14
    table = FeatureTable.load(tmp_path / "features.npz")
    validation = np.flatnonzero(table.of_split("validation"))
    clips = list(table.per_clip())
    saved = ClipClassifier.load(tmp_path / "linear_svc.skops")
    hits = (saved.scores([clips[i] for i in validation]).argmax(axis=1) == table.labels[validation]).mean()
    assert report["results"]["linear_svc"]["all"]["accuracy"] == pytest.approx(hits)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.npz")}
    assert len(before) == 35
    (tmp_path / "features.npz").unlink()
    run.run_protocol(config, tmp_path, tmp_path / "data")  # faces are found once
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.npz")}
    assert json.loads((tmp_path / "report.json").read_text())["results"].keys() == report["results"].keys()


@pytest.mark.slow
def test_lfw_and_attributes_protocols_on_rendered_people(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run.py", "--config", "lfw_mobilenet"])
    photos = PhotosConfig(people_photos=24)
    # Four persons: ten folds become two, each with pairs of two persons.
    config = LfwConfig(repeats=2, photos=photos, network=TINY, paper=run.load_config("lfw_mobilenet").paper)
    (tmp_path / "lfw").mkdir()
    run.run_protocol(config, tmp_path / "lfw", tmp_path)
    report = json.loads((tmp_path / "lfw/report.json").read_text())
    assert report["crops"]["mtcnn"]["identification"]["persons"] == 4
    assert report["crops"]["centre"]["identification"]["n"] == 20
    (tmp_path / "utk").mkdir()
    config = AttributesConfig(
        network=TINY,
        classifier=ClassifierConfig(names=("logistic", "linear_svc"), costs=(1.0,)),
        paper=run.load_config("utkface_mobilenet").paper,
    )
    config = override(override(config, "faces.people_train", "90"), "faces.people_validation", "60")
    run.run_protocol(config, tmp_path / "utk", tmp_path)
    report = json.loads((tmp_path / "utk/report.json").read_text())
    assert set(report["fitted"]) == {"logistic", "linear_svc"}
    assert {one["attribute"] for one in report["fairness"]} == {"gender", "ethnicity", "age", "gender, ethnicity"}


def test_lfw_says_before_it_starts_that_there_are_too_few_persons(tmp_path):
    config = LfwConfig(photos=PhotosConfig(people_photos=12), network=TINY)
    with pytest.raises(ConfigError, match=r"2 persons with two photos or more; .* need 4: give more photos"):
        run.run_protocol(config, tmp_path, tmp_path)


def test_sets_that_are_not_given_are_replaced_by_people():
    clips = open_clips(ClipsConfig(people_train=7, people_validation=7))
    assert clips.name == "people"
    assert len(clips.records) == 14
    records, description, comparable = open_photos(PhotosConfig(people_photos=12))
    assert (len(records), comparable) == (12, False)
    assert "rendered" in description


def test_weights_that_are_not_there(tmp_path):
    from experiments.protocols.network import load_network

    with pytest.raises(FileNotFoundError, match=r"--config\.network\.init_from=nothing"):
        load_network(NetworkConfig("mobilenet_v1", "nothing"), 0, tmp_path)
    with pytest.raises(ValueError, match="did you mean 'mobilenet_v1'"):
        load_network(NetworkConfig("mobilnet_v1"), 0, tmp_path)

import dataclasses

import pytest

from experiments import inputs, run
from facejax.config import Config, ConfigError
from facejax.data.metadata import write_metadata
from facejax.datasets import get_dataset
from facejax.models import init_variables, model_from_cfg, pretrained_cfg
from facejax.overrides import override
from facejax.train.setup import build_model
from facejax.weights.checkpoint import save_inference_checkpoint


@pytest.mark.parametrize(("config", "published"), [("emotion_b0", True), ("emotion_rexnet150", False)])
def test_a_start_that_is_not_there_names_the_published_one(tmp_path, caplog, config, published):
    with caplog.at_level("INFO", logger="facejax"):
        started = inputs.resolve_initial_weights(run.load_config(config), [], tmp_path / "run")
    assert started.model.init_from == ""
    assert "RANDOM WEIGHTS" in caplog.text
    assert ("--config.model.init_from=tf_efficientnet_b0.vggface2" in caplog.text) == published


def test_random_weights_asked_for_leave_no_head_to_keep(tmp_path):
    overrides = [("model.init_from", "")]
    config = run.resolve("ethnicity_mobilenet", overrides)
    assert config.model.keep_heads
    assert not inputs.resolve_initial_weights(config, overrides, tmp_path).model.keep_heads


def test_heads_to_keep_that_were_asked_for_are_not_forgotten(tmp_path):
    for overrides in ([("model.init_from", "")], []):
        overrides = [*overrides, ("model.keep_heads", "age")]
        config = inputs.resolve_initial_weights(run.resolve("emotion_b0", overrides), overrides, tmp_path / "run")
        assert (config.model.init_from, config.model.keep_heads) == ("", ("age",))
        with pytest.raises(ConfigError, match=r"keep_heads needs --config\.model\.init_from"):
            build_model(config)


def test_what_is_asked_of_people_by_name_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "prepare_people", lambda config, data_dir: data_dir)

    def chosen(config, *overrides):
        config = inputs.choose_data(run.resolve(config, [*overrides]), [*overrides], tmp_path)[0]
        return config.data.name, config.data.train_split, config.data.eval_split, config.model.identities

    asked = ("data.train_split", "trian"), ("data.eval_split", "train"), ("model.identities", "50")
    assert chosen("identity_b0", ("data.name", "people"), *asked) == ("people", "trian", "train", 50)
    assert chosen("identity_b0", ("data.name", "people")) == ("people", "train", "validation", 0)
    assert chosen("identity_b0", *asked) == ("people", "train", "validation", 0)


@pytest.mark.parametrize(
    ("config", "name", "photos", "comparable"),
    [
        ("emotion_b0", "affectnet", {"validation": 4000}, True),
        ("emotion_b0", "affectnet", {"validation": 3800}, True),  # 5 % may be missing
        ("emotion_b0", "affectnet", {"validation": 3799}, False),
        ("emotion_b0", "affectnet", {"validation": 40, "train": 287_651}, False),
        ("emotion_b0", "facial_expressions", {"validation": 4000}, False),
        # Of 3,311,286 photos, where each person's are split at random.
        ("identity_b0", "vggface2", {"train": 2_900_000, "validation": 331_000}, True),
        ("identity_b0", "vggface2", {"train": 290_000, "validation": 33_100}, False),
    ],
)
def test_only_a_whole_split_of_the_paper_s_set_is_comparable(tmp_path, config, name, photos, comparable):
    directory = tmp_path / name / "1.0.0"
    directory.mkdir(parents=True)
    splits = {split: ([count - 9, 9], 9) for split, count in photos.items()}
    write_metadata(directory, name, {}, "bmp", splits, "", "", "")
    config = run.load_config(config)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, name=name))
    assert inputs.is_comparable(config, tmp_path) == comparable


@pytest.mark.parametrize(("count", "comparable"), [(3_589, True), (1_800, False)])
def test_every_set_of_a_mixture_must_be_whole_to_be_comparable(tmp_path, count, comparable):
    for name, photos in (("affectnet", 4000), ("fer2013", count)):
        (tmp_path / name / "1.0.0").mkdir(parents=True)
        write_metadata(tmp_path / name / "1.0.0", name, {}, "bmp", {"validation": ([photos], 9)}, "", "", "")
    config = override(Config(), "paper.dataset", "affectnet+fer2013")
    assert inputs.is_comparable(override(config, "data.name", "affectnet+fer2013"), tmp_path) == comparable


@pytest.mark.parametrize("name", run.list_configs())
def test_every_config_s_own_set_as_published_is_comparable(tmp_path, name):
    config = run.load_config(name)
    if not isinstance(config, Config):
        pytest.skip("trains no network: see test_protocols.py")
    for part in config.data.name.split("+"):  # one of the mixture, Adience, has no validation split
        directory, reader = tmp_path / part / "1.0.0", get_dataset(part)
        directory.mkdir(parents=True)
        splits = {split: ([count or reader.expected_total or 9], 9) for split, count in reader.expected_counts.items()}
        write_metadata(directory, part, {}, "bmp", splits, "", "", "")
    # The paper's selection of IMDB-Wiki photos is not published, and `people` is not the paper's dataset.
    assert inputs.is_comparable(config, tmp_path) == (name not in ("attributes_mobilenet", "people_b0"))
    assert not inputs.is_comparable(override(config, "data.eval_split", "train"), tmp_path)


def test_set_named_on_the_command_line_must_be_prepared(tmp_path):
    overrides = [("data.name", "affectnet")]
    config = run.resolve("emotion_b2", overrides)
    with pytest.raises(FileNotFoundError, match=r"prepare_dataset\.py affectnet"):
        inputs.choose_data(config, overrides, tmp_path)


@pytest.mark.parametrize(
    ("changes", "folder", "options", "crop"),
    [
        ({}, "people2_300_60x6", {"imbalance": "none", "same_people": False}, "mtcnn"),
        ({"model.tasks": "identity"}, "people2_300_60x6_same", {"same_people": True}, "mtcnn"),
        (
            {"data.people_imbalance": "affectnet", "data.people_crop": "centre"},
            "people2_300_60x6_affectnet_centre",
            {"imbalance": "affectnet"},
            "centre",
        ),
    ],
)
def test_built_in_set_is_prepared_as_the_config_says(tmp_path, monkeypatch, changes, folder, options, crop):
    asked = []
    monkeypatch.setattr("facejax.datasets.prepare.prepare_dataset", lambda *args, **more: asked.append((args, more)))
    overrides = [("data.people_train", "300"), ("data.people_validation", "60"), *changes.items()]
    assert inputs.prepare_people(run.resolve("emotion_b0", overrides), tmp_path) == tmp_path / folder
    (((name, raw, directory), more),) = asked
    assert (name, raw, directory, more["crop"]) == ("people", None, tmp_path / folder, crop)
    sizes = {"num_train": 300, "num_validation": 60, "photos_per_person": 6}
    assert more["reader_options"].items() >= (sizes | options).items()


def test_built_in_set_begun_by_another_version_is_refused_in_one_line(tmp_path):
    partial = tmp_path / "people2_2_1x6_centre" / "people" / "1.0.0.partial"
    partial.mkdir(parents=True)
    (partial / "plan.json").write_text('{"code of reader": "older"}')
    sizes = [("data.people_train", "2"), ("data.people_validation", "1"), ("data.people_crop", "centre")]
    with pytest.raises(
        ConfigError, match=r"1\.0\.0\.partial was started with .*code of reader: 'older' -> .*delete it to start"
    ):
        inputs.prepare_people(run.resolve("emotion_b0", sizes), tmp_path)


def test_people_in_the_place_of_a_set_have_persons_and_splits_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "prepare_people", lambda config, data_dir: data_dir / "people")
    config = run.load_config("identity_b0")
    assert config.model.identities
    config = override(override(config, "data.train_split", "first"), "data.eval_split", "second")
    config, data_dir, words = inputs.choose_data(config, [], tmp_path)
    assert (config.model.identities, config.data.name, data_dir) == (0, "people", tmp_path / "people")
    assert (config.data.train_split, config.data.eval_split) == ("train", "validation")
    assert "rendered" in words


@pytest.mark.parametrize(("overrides", "size"), [([], 40), ([("model.image_size", "48")], 48)])
def test_heads_to_keep_set_the_input_size_unless_one_is_named(overrides, size, tmp_path, caplog):
    """Otherwise the CPU profile would feed them photos far smaller than those that they were trained on."""
    cfg = dataclasses.replace(pretrained_cfg("mobilenet_v1"), tasks=("gender", "age"))
    cfg = dataclasses.replace(cfg, preprocessing=dataclasses.replace(cfg.preprocessing, image_size=40))
    save_inference_checkpoint(tmp_path / "first", init_variables(model_from_cfg(cfg), 0, 40), cfg)
    overrides = [("model.init_from", str(tmp_path / "first")), *overrides]
    with caplog.at_level("INFO", logger="facejax"):
        config = inputs.resolve_initial_weights(run.resolve("ethnicity_mobilenet", overrides), overrides, tmp_path)
    assert config.model.image_size == size
    assert ("The input size is 40 px" in caplog.text) == (size == 40)
    if size == 40:
        assert build_model(config, cfg)[1].preprocessing == cfg.preprocessing
    else:
        with pytest.raises(ConfigError, match=r"image_size=48: the kept heads of .*first expect 40 px"):
            build_model(config, cfg)

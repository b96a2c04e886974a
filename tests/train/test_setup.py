"""Setup of a run before its first step: labels, classes, the network and its initial weights."""

import dataclasses
import functools
import itertools
import shutil
from unittest import mock

import jax
import numpy as np
import pytest

from facejax.config import ConfigError, DataConfig, ModelConfig, StageConfig, StagesConfig
from facejax.data.records import Record
from facejax.data.source import FaceSource
from facejax.data.transforms import RandomHorizontalFlip, RandomResizedCrop, Resize
from facejax.datasets import registry
from facejax.datasets.prepare import prepare_dataset
from facejax.models import pretrained_cfg
from facejax.models.face_model import init_variables
from facejax.preprocessing import Preprocessing
from facejax.tasks import TASKS
from facejax.train.initial import load_initial
from facejax.train.labels import class_labels, labelled
from facejax.train.setup import augmentation, build_model, check_settings, initial_variables, set_up
from facejax.weights.checkpoint import save_inference_checkpoint

from . import prepared

pytestmark = pytest.mark.usefixtures("toy_net")


def test_labels_are_rounded_and_half_known_ones_unknown():
    source = mock.Mock(spec=FaceSource)
    source.labels.return_value = np.array([29.6, 30.4, np.nan, -1], np.float32)
    assert class_labels(source, TASKS["age"]).tolist() == [30, 30, -1, -1]
    source.labels.return_value = np.array([[0.5, 0.1], [np.nan, 0.1], [0.5, np.nan], [np.nan] * 2], np.float32)
    source.select.return_value = source
    _, labels = labelled(source, [TASKS["valence_arousal"]])
    assert source.select.call_args.args[0].tolist() == [True, False, False, False]
    np.testing.assert_array_equal(labels["valence_arousal"], np.array([[0.5, 0.1]], np.float32))


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
        prepare_dataset("halves", None, tmp_path, workers=1, log=lambda line: None)

        def of(*tasks):
            model = ModelConfig(backbone="toy_net", tasks=tasks)
            return set_up(prepared.toy_config(model=model, data=DataConfig(name="halves")), tmp_path, tmp_path)

        with pytest.raises(ConfigError, match=r"no record of halves/validation has a label for task gender.*first"):
            of("gender", "emotion8")
        assert not caplog.text
        of("emotion8", "gender")
        assert "no record of halves/validation has a label for task gender: its metrics will be empty" in caplog.text
    finally:
        del registry._registered["halves"]


def test_more_persons_than_outputs_are_refused(tmp_path):
    class Persons(registry.Dataset):
        name, description, licence, url = "persons", "toy", "none", ""
        tasks, expected_counts, default_crop = (), {"train": None, "validation": None}, "none"

        def records(self, raw=None, **options):
            for split, index in itertools.product(self.expected_counts, range(16)):
                photo = functools.partial(np.full, (16, 16, 3), 10 * index, np.uint8)
                # Three of the eight persons are in the evaluation split alone.
                yield Record(f"{split}/{index}.png", split, photo, {"identity": index % (5 if split == "train" else 8)})

    registry.register_dataset(Persons)
    try:
        prepare_dataset("persons", None, tmp_path, workers=1, log=lambda line: None)
        model = ModelConfig(backbone="toy_net", tasks=("identity",), identities=6)
        config = prepared.toy_config(model=model, data=DataConfig(name="persons"))
        with pytest.raises(ConfigError, match=r"8 identities, more than --config.model.identities=6"):
            set_up(config, tmp_path, tmp_path)
        model = dataclasses.replace(model, identities=0)
        assert set_up(dataclasses.replace(config, model=model), tmp_path, tmp_path).cfg.num_classes == {"identity": 8}
    finally:
        del registry._registered["persons"]


def test_heads_and_layers_that_cannot_be_kept_are_refused(tmp_path):
    shared = ModelConfig(backbone="toy_net", tasks=("gender", "age"), shared_hidden=("gender", "age"))
    model, cfg = build_model(prepared.toy_config(model=shared))
    fed = dataclasses.replace(cfg.preprocessing, mean=(9.0, 8.0, 7.0), image_size=24)
    cfg = dataclasses.replace(cfg, preprocessing=fed, training_data=("vggface2",))
    save_inference_checkpoint(tmp_path / "first", init_variables(model, 0, 16), cfg)
    kept = ModelConfig(
        backbone="toy_net", tasks=("emotion8",), keep_heads=("gender", "age"), init_from=str(tmp_path / "first")
    )
    shutil.copytree(tmp_path / "first", tmp_path / "damaged")
    shutil.rmtree(tmp_path / "damaged" / "checkpoint")
    with pytest.raises(ConfigError, match=r"init_from=.*damaged: .* is damaged or incomplete"):
        load_initial(str(tmp_path / "damaged"), tmp_path)
    made = build_model(prepared.toy_config(model=kept), cfg)[1]
    assert made.shared_hidden == ("gender", "age")
    assert made.preprocessing == fed
    resized = prepared.toy_config(model=dataclasses.replace(kept, image_size=16))
    with pytest.raises(ConfigError, match=r"image_size=16: the kept heads of .*first expect 24 px; set it to 0"):
        build_model(resized, cfg)
    assert made.training_data == ("vggface2", "facial_expressions")
    both = dataclasses.replace(kept, shared_hidden=("emotion8",))
    with pytest.raises(ConfigError, match=r"gender, age of .*first share a hidden layer and are kept"):
        build_model(prepared.toy_config(model=both), cfg)
    alone = ModelConfig(backbone="toy_net", shared_hidden=("emotion8",))
    with pytest.raises(ConfigError, match="shared_hidden must name heads, one of them with a hidden layer"):
        build_model(prepared.toy_config(model=alone))


def test_kept_heads_come_with_the_layer_that_they_share(data_dir, tmp_path):
    both = ("gender", "age")
    model, cfg = build_model(prepared.toy_config(model=ModelConfig("toy_net", both, shared_hidden=both)))
    first = init_variables(model, 5, 16)
    save_inference_checkpoint(tmp_path / "first", first, cfg)
    kept = ModelConfig("toy_net", ("emotion8",), keep_heads=both, init_from=str(tmp_path / "first"))
    frozen = StageConfig(epochs=1, trainable="heads", batch_norm="running")
    config = prepared.toy_config(model=kept, stages=StagesConfig(frozen, StageConfig(epochs=0)))
    made = initial_variables(set_up(config, data_dir, tmp_path / "second"))
    assert set(made["params"]) == {*first["params"], "head_emotion8"}
    jax.tree.map(
        np.testing.assert_array_equal, {name: made["params"][name] for name in first["params"]}, first["params"]
    )


@pytest.mark.parametrize(
    "stage",
    [StageConfig(epochs=1), StageConfig(epochs=1, trainable="heads"), StageConfig(epochs=1, batch_norm="running")],
)
def test_heads_are_kept_only_on_a_backbone_that_does_not_change(stage):
    kept = ModelConfig(backbone="toy_net", keep_heads=("age",), init_from="first")
    frozen = StageConfig(epochs=1, trainable="heads", batch_norm="running")
    for stages in (StagesConfig(stage, dataclasses.replace(frozen, epochs=0)), StagesConfig(frozen, stage)):
        with pytest.raises(ConfigError, match=r"keep_heads=age: .* the backbone that they were trained on"):
            check_settings(prepared.toy_config(model=kept, stages=stages))
    check_settings(prepared.toy_config(model=kept, stages=StagesConfig(frozen, StageConfig(epochs=0))))


@pytest.mark.parametrize(
    ("backbone", "size", "message"),
    [("inception_v3", 74, r"inception_v3 needs images of at least 75 px, got \(74, 74\)"), ("mobilenet_v1", 1, "")],
)
def test_photos_that_are_too_small_for_the_network_are_refused(backbone, size, message):
    model = ModelConfig(backbone=backbone, image_size=size)
    with pytest.raises(ConfigError, match=rf"--config\.model\.image_size={size}: {message}"):
        build_model(prepared.toy_config(model=model))
    build_model(prepared.toy_config(model=dataclasses.replace(model, image_size=75)))


def test_weights_are_fed_as_before_but_for_size_and_kernel():
    """As the published code resizes for training (torchvision's Resize: bilinear), not as for ImageNet (bicubic)."""
    imagenet = dataclasses.replace(
        pretrained_cfg("toy_net"), preprocessing=Preprocessing(16, mean=(0.5, 0.4, 0.3), interpolation="bicubic")
    )
    model = ModelConfig(backbone="toy_net", init_from="imagenet", image_size=24)
    _, cfg = build_model(prepared.toy_config(model=model), imagenet)
    assert cfg.preprocessing == Preprocessing(24, mean=(0.5, 0.4, 0.3), interpolation="bilinear")


def test_a_network_pools_as_the_one_that_it_starts_from_unless_told_otherwise():
    maximum = dataclasses.replace(pretrained_cfg("toy_net"), global_pool="max", tasks=("emotion7",))

    def pooled_by(initial, **fields):
        wanted = ModelConfig(backbone="toy_net", init_from="maximum", **fields)
        model, cfg = build_model(prepared.toy_config(model=wanted), initial)
        assert model.backbone.global_pool == cfg.global_pool
        return cfg.global_pool

    assert pooled_by(None) == "avg"
    assert pooled_by(None, global_pool="max") == "max"
    assert pooled_by(maximum) == "max"
    assert pooled_by(maximum, global_pool="avg") == "avg"
    assert pooled_by(maximum, keep_heads=("emotion7",), global_pool="max") == "max"
    with pytest.raises(ConfigError, match=r"global_pool=avg: the kept heads of maximum expect .* pooled by max"):
        pooled_by(maximum, keep_heads=("emotion7",), global_pool="avg")


def test_a_run_that_goes_on_is_fed_as_it_began(data_dir, tmp_path):
    """Runs from ImageNet weights that were started when these used bicubic crops, which config.json does not record."""
    config = prepared.toy_config()
    made = set_up(config, data_dir, tmp_path)
    begun = dataclasses.replace(made.cfg.preprocessing, interpolation="bicubic")
    assert made.cfg.preprocessing != begun
    variables = init_variables(made.model, 0, begun.image_size)
    save_inference_checkpoint(tmp_path / "last", variables, dataclasses.replace(made.cfg, preprocessing=begun))
    assert set_up(config, data_dir, tmp_path).cfg.preprocessing == begun
    (tmp_path / "last" / "model.json").write_text("{")
    with pytest.raises(ConfigError, match=r"last/model\.json is damaged"):
        set_up(config, data_dir, tmp_path)


def test_random_resized_crops_are_cut_as_in_the_published_training():
    """Resized to 256 and cropped to 224 (official code); other sizes in proportion."""
    config = DataConfig(augmentation="random_resized_crop")
    assert augmentation(config, 224) == (Resize(256), RandomResizedCrop(224), RandomHorizontalFlip())
    assert augmentation(config, 112)[0] == Resize(128)

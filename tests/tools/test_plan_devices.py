"""The programs of a config, compiled for the simulated CPU devices; compilers for TPUs and GPUs are not tested here."""

import re
import sys
import types
import unittest.mock

import jax
import pytest

from tests.conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tools"))
import plan_devices

SMALL = ["--config.model.backbone=mobilenet_v1", "--config.model.image_size=32", "--config.batch_size=16"]
MEMORY = r"on each device (\S+) MiB of arguments and results and (\S+) MiB in between"


@pytest.fixture(autouse=True)
def environment():
    """The tool changes the environment of its process."""
    with unittest.mock.patch.dict("os.environ"):
        yield


@pytest.fixture
def eight(monkeypatch):
    """The simulated devices in place of a slice of TPUs."""
    desc = types.SimpleNamespace(devices=jax.devices())
    asked = []

    def describe(**settings):
        asked.append(settings)
        return desc

    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", describe)
    return asked


def plan(capsys, *arguments):
    assert plan_devices.main([*arguments]) == 0
    return capsys.readouterr().out


def parts(out, name, photos):
    found = re.search(f"{name} +{photos} photos; {MEMORY}; collectives: (.*);", out)
    assert found is not None
    return float(found[1].replace(",", "")), float(found[2].replace(",", "")), found[3]


def test_stages_and_evaluation_of_the_full_recipe(eight, capsys):
    out = plan(capsys, "--config", "emotion_b0", "--devices", "v5e:2x4", *SMALL)
    assert eight == [{"platform": "tpu", "topology_name": "v5e:2x4"}]
    assert "emotion_b0 for 8 x cpu; nothing is executed" in out
    head, full = parts(out, "head stage", 16), parts(out, "full stage", 16)
    # Weights, moments and new weights of 3.2 million parameters; the head stage only has moments for the head.
    assert full[0] == pytest.approx(4 * 3.2e6 * 3 / 2**20, rel=0.05)
    assert head[0] == pytest.approx(4 * 3.2e6 / 2**20, rel=0.05)
    assert full[1] > head[1]
    # The head is trained on features that were computed once: its step does not contain the backbone.
    assert parts(out, "head features", 64)[0] == pytest.approx(4 * 3.2e6 / 2**20, rel=0.1)
    assert head[1] < 1
    assert "all-reduce" in full[2]
    assert parts(out, "evaluation", 64)[2] == "1 all-gather"


def test_a_stage_with_random_photos_computes_features_in_every_step(eight, capsys):
    for augmentation, least in (("none", 0), ("flip", 1)):
        out = plan(
            capsys,
            *("--config", "emotion_b0_head_only", "--devices", "v5e:2x4", *SMALL, "--config.batch_size=1024"),
            f"--config.data.augmentation={augmentation}",
        )
        assert ("head features" in out) == (augmentation == "none")
        assert (parts(out, "head stage", 1024)[1] > 1) == least


@pytest.mark.parametrize("option", ["parallel=pmap", "sharding=full"])
def test_placements(eight, capsys, option):
    out = plan(
        capsys,
        "--config",
        "emotion_b0",
        "--devices",
        "v5e:2x4",
        *SMALL,
        f"--config.{option}",
        "--config.stages.head.epochs=0",
    )
    state, _, collectives = parts(out, "full stage", 16)
    whole = 4 * 3.2e6 * 3 / 2**20
    assert state == pytest.approx(whole / 8 if option == "sharding=full" else whole, rel=0.1)
    assert ("all-gather" in collectives) == (option == "sharding=full")
    assert "evaluation" in out


def test_gpus_are_described_to_their_compiler(eight):
    plan_devices.find_devices("h200:8")
    assert (eight[0]["platform"], eight[0]["topology"]) == ("cuda", "1x1x8")
    assert "NVIDIA H200" in eight[0]["target_config"]


@pytest.mark.parametrize(("devices", "package"), [("v5e:2x2", "jax[tpu]"), ("h200:2", "jax[cuda13]")])
def test_what_is_missing_is_named(monkeypatch, capsys, devices, package):
    def missing(**settings):
        raise NotImplementedError("no such plugin")

    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", missing)
    assert plan_devices.main(["--config", "emotion_b0", "--devices", devices]) == 1
    assert (
        f"no such plugin\nExpected h200:N, or a TPU slice such as v5e:2x2; pip install '{package}'"
        in capsys.readouterr().err
    )


def test_a_config_that_trains_nothing_and_a_batch_that_does_not_divide(eight, capsys):
    for words, arguments in (
        ("lfw_b0 trains no network", ["--config", "lfw_b0"]),
        ("batch_size 20 is not a multiple of the 8 devices", ["--config", "emotion_b0", "--config.batch_size=20"]),
        ("no config 'emotion_b9'", ["--config", "emotion_b9"]),
    ):
        assert plan_devices.main([*arguments, "--devices", "v5e:2x4"]) == 1
        assert words in capsys.readouterr().err

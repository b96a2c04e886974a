import dataclasses

import pytest

from experiments import run
from facejax.config import Config, ConfigError, LossConfig, ModelConfig, SamConfig, StageConfig, StagesConfig
from facejax.models import list_models
from facejax.train.dry_run import format_plan, plan
from facejax.train.setup import check_settings

# Multiply-adds of one photo in the published tables of timm and of the papers, in 1e9; each counts as two operations.
GMACS = {"mobilenet_v1": 0.57, "tf_efficientnet_b0": 0.40, "vgg16": 15.5}
TRAINED = [name for name in run.list_configs() if isinstance(run.load_config(name), Config)]


@pytest.mark.parametrize("name", GMACS)
def test_forward_counts_the_published_operations(name):
    task = ModelConfig(backbone=name, tasks=("emotion8",))
    found = plan(Config(model=task), 1000, 1e12)
    assert found.forward_flops / 2e9 == pytest.approx(GMACS[name], rel=0.08)


def test_steps_work_and_memory_of_the_stages():
    model = ModelConfig(backbone="mobilenet_v1", tasks=("emotion8",), image_size=64)
    stages = StagesConfig(StageConfig(epochs=3, trainable="heads", batch_norm="batch"), StageConfig(epochs=2))
    found = plan(Config(model=model, stages=stages, batch_size=16), 170, 1e12)
    head, full = found.stages
    assert (head.steps, full.steps) == (30, 20)
    assert head.trainable == 1024 * 8 + 8
    assert full.trainable == sum(found.parameters.values()) == 3206976 + head.trainable
    assert full.step_flops == 6 * head.step_flops == pytest.approx(6 * 16 * found.forward_flops)
    # On eight devices, each of which does an eighth of the work.
    assert head.seconds == pytest.approx(30 * head.step_flops / (8 * 0.3 * 1e12))
    assert full.seconds == pytest.approx(20 * full.step_flops / (8 * 0.3 * 1e12))
    assert full.memory_bytes > head.memory_bytes
    assert found.outputs == {"features": (16, 1024), "emotion8": (16, 8)}
    adam = plan(Config(model=model, stages=stages, batch_size=16, sam=SamConfig(rho=0.0)), 170, 1e12).stages[1]
    assert adam.step_flops == full.step_flops / 2
    assert full.memory_bytes - adam.memory_bytes == 4 * full.trainable  # SAM's perturbed copy


def test_kept_heads_do_not_count_as_trainable():
    config = run.resolve("ethnicity_mobilenet", [("profile", "full"), ("model.image_size", "64")])
    found = plan(config, 1000, 1e12)
    assert {"head_age", "head_gender"} < found.parameters.keys()
    assert [stage.trainable for stage in found.stages] == [1024 * 5 + 5]


def test_features_that_are_kept_are_computed_once():
    model = ModelConfig(backbone="mobilenet_v1", tasks=("emotion8",), image_size=64)
    stage = StageConfig(epochs=30, trainable="heads", batch_norm="running")
    config = Config(model=model, stages=StagesConfig(stage, StageConfig(epochs=0)), batch_size=16)
    found = plan(config, 160, 1e12)
    (head,) = found.stages
    assert (head.steps, head.keeps_features) == (300, True)
    assert head.seconds == pytest.approx(160 * found.forward_flops / (8 * 0.3 * 1e12))
    assert "per step of the first epoch" in format_plan(found, 160, 1e12)


def test_parts_and_microbatches_need_less_memory():
    model = ModelConfig(backbone="mobilenet_v1", tasks=("emotion8",), image_size=64)
    config = Config(model=model, stages=StagesConfig(StageConfig(epochs=0), StageConfig(epochs=1)), batch_size=32)
    (whole,) = plan(config, 320, 1e12).stages
    (cut,) = plan(dataclasses.replace(config, sam=SamConfig(parts=4)), 320, 1e12).stages
    (again,) = plan(dataclasses.replace(config, accumulate=4), 320, 1e12).stages
    weights = 4 * 6 * whole.trainable
    assert cut.memory_bytes - weights == again.memory_bytes - weights == (whole.memory_bytes - weights) // 4
    assert cut.step_flops == whole.step_flops
    assert again.step_flops == whole.step_flops * 8 / 6  # one more forward pass in each of the two
    with pytest.raises(ConfigError, match="batch_size 12 is not a multiple of the 8 devices"):
        plan(dataclasses.replace(config, batch_size=12), 320, 1e12)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_every_config_has_a_plan_at_its_full_size(name):
    config = run.resolve(name, [("profile", "full")])
    text = format_plan(plan(config, config.data.num_train, 1e12), config.data.num_train, 1e12)
    assert text.count(" stage ") == (config.stages.head.epochs > 0) + (config.stages.full.epochs > 0)
    assert all(f" {task} " in text for task in config.model.tasks)


def test_every_network_of_a_config_has_a_plan_at_a_small_size():
    """As above, but fast, at the CPU profile's size: each backbone once, with the heads of all its configs."""
    networks = {}
    for name in TRAINED:
        config = run.resolve(name, [("profile", "cpu")])
        check_settings(config)
        networks.setdefault((config.model.backbone, config.model.keep_heads, config.model.dtype), []).append(config)
    assert {backbone for backbone, _, _ in networks} <= set(list_models())
    for configs in networks.values():
        tasks = tuple({task: None for config in configs for task in config.model.tasks})
        shared = tuple({task: None for config in configs for task in config.model.shared_hidden})
        model = dataclasses.replace(configs[0].model, tasks=tasks, shared_hidden=shared)
        found = plan(dataclasses.replace(configs[0], model=model, loss=LossConfig()), 1000, 1e12)
        assert found.stages
        assert found.outputs.keys() == {"features", *tasks, *model.keep_heads}

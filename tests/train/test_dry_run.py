import pytest

from experiments import run
from facejax.config import Config, ModelConfig, SamConfig, StageConfig, StagesConfig
from facejax.models import list_models
from facejax.train.dry_run import in_words, plan

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
    stages = StagesConfig(StageConfig(epochs=3, trainable="heads"), StageConfig(epochs=2))
    found = plan(Config(model=model, stages=stages, batch_size=10), 107, 1e12)
    head, full = found.stages
    assert (head.steps, full.steps) == (30, 20)
    assert head.trainable == 1024 * 8 + 8
    assert full.trainable == sum(found.parameters.values()) == 3206976 + head.trainable
    assert full.step_flops == 6 * head.step_flops == pytest.approx(60 * found.forward_flops)
    assert full.memory_bytes > head.memory_bytes
    assert found.outputs == {"features": (10, 1024), "emotion8": (10, 8)}
    adam = plan(Config(model=model, stages=stages, batch_size=10, sam=SamConfig(rho=0.0)), 107, 1e12).stages[1]
    assert adam.step_flops == full.step_flops / 2
    assert full.memory_bytes - adam.memory_bytes == 4 * full.trainable  # SAM's perturbed copy


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_every_config_has_a_plan_at_its_full_size(name):
    config = run.resolve(name, [("profile", "full")])
    text = in_words(plan(config, config.data.num_train, 1e12), config.data.num_train, 1e12)
    assert text.count(" stage ") == (config.stages.head.epochs > 0) + (config.stages.full.epochs > 0)
    assert all(f" {task} " in text for task in config.model.tasks)


def test_every_network_of_a_config_has_a_plan_at_a_small_size():
    """As above for each pair of backbone and tasks, at 75 px so that the default tests stay quick."""
    different = {}
    for name in TRAINED:
        config = run.resolve(name, [("profile", "full"), ("model.image_size", "75")])
        different[config.model.backbone, config.model.tasks, config.model.keep_heads] = config
    assert {backbone for backbone, _, _ in different} <= set(list_models())
    assert all(plan(config, 1000, 1e12).stages for config in different.values())

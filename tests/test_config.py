import ast
import pathlib

import pytest

from facejax.config import Config, ConfigError
from facejax.overrides import flatten, override
from facejax.protocol_config import AttributesConfig, LfwConfig, VideoConfig


def test_override_replaces_one_field_of_its_type():
    config = override(Config(), "stages.full.lr", "3e-5")
    assert config.stages.full.lr == 3e-5
    assert config.stages.head == Config().stages.head
    assert override(Config(), "batch_size", "64").batch_size == 64
    assert override(Config(), "parallel", "pmap").parallel == "pmap"
    assert override(Config(), "data.name", "lfw").data.name == "lfw"


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("stages.ful.lr", "1", "no field 'ful'; did you mean 'full'"),
        ("batchsize", "1", "did you mean 'batch_size'"),
        ("batch_size", "3.5", "batch_size=3.5: expected a value of type int"),
        ("stages.full.lr", "fast", "expected a value of type float"),
        ("stages.full.lr", "nan", "stages.full.lr=nan: expected a finite number"),
        ("sam.rho", "inf", "sam.rho=inf: expected a finite number"),
        ("seed", "4294967295", "seed=4294967295: expected 0 to 4294967294"),
        ("stages.head.lr", "-1e-3", "stages.head.lr=-1e-3: expected 0 or more"),
        ("cpu.lr", "-1", "expected 0 or more"),
        ("sam.rho", "-0.05", "sam.rho=-0.05: expected 0 or more"),
        ("model.dropout_rate", "1", "model.dropout_rate=1: expected 0 to 0.999"),
        ("loss.label_smoothing", "2", "loss.label_smoothing=2: expected 0 to 0.999"),
        ("loss.task_weights", "1,-1", "loss.task_weights=-1: expected 0 or more"),
        ("parallel", "jitt", "no such choice; did you mean 'jit'? There are: jit, pmap"),
        ("stages.full", "1", "is a group; name one of its fields: epochs, lr"),
        ("stages.full.lr.x", "1", "'lr' is a value and has no field 'x'"),
    ],
)
def test_mistakes_end_in_one_line_with_the_nearest_name(path, text, message):
    with pytest.raises(ConfigError, match="--config") as caught:
        override(Config(), path, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_list_prints_of_every_field_can_be_typed_back():
    for config in (Config(), LfwConfig(), VideoConfig(), AttributesConfig()):
        for path, text in flatten(config).items():
            assert override(config, path, text) == config


def test_every_field_is_read_by_something():
    root = pathlib.Path(__file__).parents[1]
    read = set()
    for path in (*root.glob("facejax/**/*.py"), *root.glob("experiments/**/*.py")):
        nodes = ast.walk(ast.parse(path.read_text()))
        read |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    by_name = {"linear_svc", "svc_rbf", "random_forest", "logistic"}  # `AttributesPaper`: by getattr
    for config in (Config(), LfwConfig(), VideoConfig(), AttributesConfig()):
        fields = {path.rpartition(".")[2] for path in flatten(config)}
        assert fields - by_name <= read

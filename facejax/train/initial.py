"""The weights that a run starts from: a folder, another run, or published weights."""

import pathlib
from typing import Any

from facejax.config import ConfigError
from facejax.models import list_models
from facejax.models.pretrained import PretrainedCfg
from facejax.weights.checkpoint import CFG, load_inference_checkpoint
from facejax.weights.convert import load_published


def saved_model(init_from: str, workdir: pathlib.Path) -> pathlib.Path | None:
    """The folder that ``init_from`` refers to: itself, its best model, or that of the run next to `workdir`."""
    named = pathlib.Path(init_from)
    places = (named, named / "best", workdir.parent / named / "best")
    return next((directory.resolve() for directory in places if (directory / CFG).is_file()), None)


def load_initial(init_from: str, workdir: pathlib.Path) -> tuple[dict[str, Any], PretrainedCfg]:
    """Variables and configuration that a run starts from; see `facejax.config.ModelConfig.init_from`.

    Raises:
        FileNotFoundError: There is no such folder, run, or downloaded file; the message says what was looked for.
        ConfigError: The saved model is damaged.
    """
    try:
        if directory := saved_model(init_from, workdir):
            return load_inference_checkpoint(directory)
        if init_from in list_models(pretrained=True):
            return load_published(init_from)
    except ConnectionError as error:
        raise FileNotFoundError(str(error)) from error
    except ValueError as error:
        raise ConfigError(f"--config.model.init_from={init_from}: {error}") from error
    is_name = init_from.isidentifier()  # like the name of a config
    train = f"Train it first (python experiments/run.py --config {init_from}), or start" if is_name else "Start"
    raise FileNotFoundError(
        f"--config.model.init_from={init_from} is neither a folder with a saved model, nor a finished run "
        f"({workdir.parent / init_from / 'best'}), nor published weights. {train} from random weights: "
        "--config.model.init_from="
    )

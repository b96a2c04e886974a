"""Inference checkpoints: a folder with the variables (Orbax), their configuration (JSON), and the model card."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from facejax.cards.card import CARD, PARTIAL_CARD, model_card, write_card
from facejax.integrity import MANIFEST, find_damage, write_manifest
from facejax.models import PretrainedCfg, abstract_variables, model_from_cfg
from facejax.naming import did_you_mean
from facejax.tasks import TASKS
from facejax.weights.folders import atomic_folder
from facejax.weights.merge import merge_variables

VARIABLES, CFG = "checkpoint", "model.json"


def save_inference_checkpoint(
    directory: pathlib.Path | str, variables: Mapping[str, Any], cfg: PretrainedCfg, card: str | None = None
) -> None:
    """Writes ``DIRECTORY/checkpoint`` (Orbax), ``sha256.json``, ``model.json`` (`PretrainedCfg`), ``MODEL_CARD.md``.

    The folder appears complete or not at all; an existing inference checkpoint is replaced. If `card` is None it is
    generated from `cfg`, without any evaluation results.

    Raises:
        ValueError: If `variables` are not those of the model that `cfg` describes, or `cfg` is invalid.
        FileExistsError: If the folder contains something else.
    """
    _check(cfg)
    variables = _fitted(variables, cfg, "variables to be saved")
    with atomic_folder(pathlib.Path(directory), CFG, "architecture", VARIABLES, MANIFEST, CARD, PARTIAL_CARD) as folder:
        with _checkpointer() as checkpointer:
            # Orbax cannot store empty dicts, such as the batch_stats of a network without BatchNorm.
            checkpointer.save(folder / VARIABLES, {key: tree for key, tree in variables.items() if tree})
        write_manifest(folder, VARIABLES)
        (folder / CFG).write_text(json.dumps(cfg.to_dict(), indent=2) + "\n")
        write_card(folder, model_card(cfg) if card is None else card)


def load_inference_checkpoint(directory: pathlib.Path | str) -> tuple[dict[str, Any], PretrainedCfg]:
    """Variables (NumPy arrays, on any number of devices) and configuration of an inference checkpoint.

    Raises:
        FileNotFoundError: If the folder has none; the message gives the commands that create one.
        ValueError: If the variables are not those of the model that ``model.json`` describes, or the folder is
            incomplete or damaged.
    """
    directory = pathlib.Path(directory).absolute()
    cfg, path = load_cfg(directory), directory / VARIABLES
    if (directory / MANIFEST).exists() and (reason := find_damage(directory, VARIABLES)):  # older versions wrote none
        raise ValueError(f"{path} is damaged or incomplete: copy or create the folder again ({reason})")
    try:
        with _checkpointer() as checkpointer:
            tree = checkpointer.metadata(path).item_metadata.tree
            restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            variables = checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=restore_args))
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # Orbax and TensorStore raise errors of many kinds
        raise ValueError(f"{path} is damaged or incomplete: copy or create the folder again ({error})") from error
    return _fitted(variables, cfg, f"the variables of {path}"), cfg


def load_cfg(directory: pathlib.Path) -> PretrainedCfg:
    """Configuration of an inference checkpoint, without its variables.

    Raises:
        FileNotFoundError: If the folder has none; the message gives the commands that create one.
        ValueError: If ``model.json`` does not describe a valid model.
    """
    if not (directory / CFG).is_file():
        of_run = directory / "best"
        raise FileNotFoundError(
            f"no inference checkpoint in {directory} ({CFG} is missing): "
            + (
                f"did you mean {of_run}?"
                if (of_run / CFG).is_file()
                else "train one (experiments/run.py) or convert one: tools/convert_weights.py FORMAT FILE --out DIR"
            )
        )
    try:
        cfg = PretrainedCfg.from_dict(json.loads((directory / CFG).read_text()))
        _check(cfg)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{directory / CFG} is damaged, or was edited and is no longer valid: {error}") from error
    return cfg


def _check(cfg: PretrainedCfg) -> None:
    """Raises a ValueError if a configuration contradicts its network."""
    model = model_from_cfg(cfg)
    if cfg.num_features not in (0, model.backbone.num_features):  # 0: not specified
        raise ValueError(
            f"num_features is {cfg.num_features}, but {cfg.architecture} has {model.backbone.num_features}"
        )
    for task, labels in cfg.labels.items():
        if task not in TASKS:
            raise ValueError(f"labels of an unknown task: {task!r}{did_you_mean(task, TASKS)}")
        expected = len(TASKS[task].labels) or cfg.num_classes.get(task, 0)
        if not all(isinstance(label, str) for label in labels) or len(labels) not in (0, expected):
            raise ValueError(f"labels of {task} are {labels}, expected {expected} names")
    if not isinstance(cfg.training_data, tuple):
        raise ValueError(f"training_data is {cfg.training_data!r}, expected a list of names")


def _checkpointer() -> ocp.Checkpointer:
    """An Orbax checkpointer for this process only: one process saves, any may load, and none waits for the others."""
    this = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=this, active_processes={this})
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _fitted(variables, cfg, what):
    template = abstract_variables(model_from_cfg(cfg), cfg.preprocessing.image_size)
    try:
        return merge_variables(template, variables)
    except ValueError as error:
        raise ValueError(f"{what} are not those of {cfg.name}: {error}") from error

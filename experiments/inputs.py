"""The dataset and the initial weights of a run: the config's, or what is used instead."""

import dataclasses
import logging
import pathlib
from typing import Any

from facejax.config import Config, ConfigError, DataConfig
from facejax.data.metadata import count_records, find_set

logger = logging.getLogger("facejax")


def choose_data(
    config: Config, overrides: list[tuple[str, str]], data_dir: pathlib.Path
) -> tuple[Config, pathlib.Path, str]:
    """The config with a dataset that is available, the data folder with it, and its name in words.

    Raises:
        FileNotFoundError: The dataset was named on the command line and is not prepared; says how to prepare it.
    """
    if config.data.name != "people":
        try:
            for name in config.data.name.split("+"):
                find_set(data_dir, name)
            return config, data_dir, config.data.name
        except FileNotFoundError as error:
            if "data.name" in dict(overrides):
                raise
            logger.info("%s", error)
            logger.info("Using the built-in dataset `people` instead: rendered heads, not photos of real people.")
    # Overrides meant for `people` are kept; those meant for another dataset are not.
    named = dict(overrides) if config.data.name == "people" else {}
    splits = {"train_split": "train", "eval_split": "validation"}
    splits = {field: split for field, split in splits.items() if f"data.{field}" not in named}
    identities = config.model.identities if "model.identities" in named else 0
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, name="people", **splits),
        model=dataclasses.replace(config.model, identities=identities),
    )
    return config, prepare_people(config, data_dir), "people (built-in, rendered)"


def resolve_initial_weights(config: Config, overrides: list[tuple[str, str]], workdir: pathlib.Path) -> Config:
    """The config with its initial weights if they are available, else with random ones.

    Heads to keep set the input size, which the CPU profile reduces for all others.

    Raises:
        FileNotFoundError: They were named on the command line and do not exist.
    """
    from facejax.models import list_models
    from facejax.train.initial import load_initial

    # Without weights there is no head to keep either; if some were named, `build_model` reports it.
    alone = {"init_from": ""} if "model.keep_heads" in dict(overrides) else {"init_from": "", "keep_heads": ()}
    if not config.model.init_from:
        return dataclasses.replace(config, model=dataclasses.replace(config.model, **alone))
    try:
        _, cfg = load_initial(config.model.init_from, workdir)
    except FileNotFoundError as error:
        if "model.init_from" in dict(overrides):
            raise
        logger.info("%s", error)
        logger.info("Starting from RANDOM WEIGHTS: do not expect the paper's numbers.")
        base = f"{config.model.backbone}.vggface2"
        if base in list_models(pretrained=True):
            logger.info("The paper's authors publish such weights: --config.model.init_from=%s (docs/weights.md)", base)
        return dataclasses.replace(config, model=dataclasses.replace(config.model, **alone))
    size = cfg.preprocessing.image_size
    if config.model.keep_heads and size != config.model.image_size and "model.image_size" not in dict(overrides):
        logger.info("The input size is %d px, with which the kept heads were trained", size)
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, image_size=size))
    return config


def prepare_people(config: Config, data_dir: pathlib.Path) -> pathlib.Path:
    """Renders and prepares the built-in dataset at the config's size, once; returns the data folder with it.

    Raises:
        ConfigError: Another version of facejax, or of its dependencies, has begun it; says what to delete.
    """
    from facejax.datasets import get_dataset
    from facejax.datasets.prepare import is_prepared, prepare_dataset

    data = config.data
    options: dict[str, Any] = {
        "num_train": data.people_train,
        "num_validation": data.people_validation,
        "photos_per_person": data.people_photos_each,
        "imbalance": data.people_imbalance,
        # Identity is evaluated on the people of the training photos, all other tasks on unseen people.
        "same_people": "identity" in config.model.tasks,
    }
    # The edition is in the name, so that photos of an earlier one are not reused but rendered again.
    edition, sizes = get_dataset("people").edition, (data.people_train, data.people_validation)
    name = "people{}_{}_{}x{}".format(edition, *sizes, data.people_photos_each)
    name += "_same" if options["same_people"] else ""
    name += f"_{data.people_imbalance}" if data.people_imbalance != "none" else ""
    name += f"_{data.people_crop}" if data.people_crop != "mtcnn" else ""
    directory = data_dir / name
    if not is_prepared(directory, "people"):
        logger.info("rendering %d + %d photos of people into %s, once", *sizes, directory)
        try:
            prepare_dataset("people", None, directory, crop=data.people_crop, reader_options=options, log=logger.info)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    return directory


def is_comparable(config: Config, data_dir: pathlib.Path) -> bool:
    """Whether a run is evaluated on the data of the paper's row: that dataset or mixture, with its complete split."""
    from facejax.datasets import is_complete

    split = config.data.eval_split
    if (config.data.name, split) != (config.paper.dataset, DataConfig.eval_split):  # which no config changes
        return False
    photos = {name: count_records(find_set(data_dir, name)) for name in config.data.name.split("+")}
    # One dataset of the mixture, Adience, has no such split.
    return all(is_complete(name, split, counts) for name, counts in photos.items() if split in counts)

"""Converts published files, downloaded or local, to variables and their `PretrainedCfg`; checks their hashes."""

import dataclasses
import hashlib
import http.client
import os
import pathlib
import shutil
import tempfile
import urllib.request
from typing import Any

from facejax.locks import exclusive_lock
from facejax.models import PretrainedCfg, abstract_variables, list_models, model_from_cfg, pretrained_cfg
from facejax.models.layers import GlobalPool
from facejax.naming import did_you_mean
from facejax.weights import hse_facerec, hsemotion, keras, timm
from facejax.weights.cache import cache_dir
from facejax.weights.checkpoint import load_inference_checkpoint, save_inference_checkpoint
from facejax.weights.merge import merge_variables

FORMATS = ("timm", "keras", "hsemotion")


def convert_file(
    format_: str, path: pathlib.Path | str, name: str | None = None, *, unsafe_pickle: bool = False
) -> tuple[dict[str, Any], PretrainedCfg]:
    """Variables of a published file, strictly matched to the model, and its configuration with the file's hash.

    The global pooling is taken from the file if it specifies one (`facejax.weights.hsemotion`).

    Args:
        format_: ``timm`` (.safetensors, .pth), ``keras`` (.h5), ``hsemotion`` (.onnx, the .pb of HSE_FaceRec_tf, .pt).
        path: The file.
        name: ``architecture.tag`` of the weights; None to infer it from the file's name.
        unsafe_pickle: Allow pickled models, whose loading runs code (`facejax.weights.hsemotion.load_pickle`).

    Raises:
        ValueError: If the name is unknown, the hash is not the published one, the format does not have such files (the
            message names one that does), the file is damaged, or the weights do not fit.
    """
    path = pathlib.Path(path)
    if format_ not in FORMATS:
        raise ValueError(f"no format {format_!r}{did_you_mean(format_, FORMATS)}")
    cfg = pretrained_cfg(name or _guess(path))
    sha256 = file_sha256(path)
    if cfg.sha256 and sha256 != cfg.sha256:
        raise ValueError(f"{path} is not the file of {cfg.name}: its SHA-256 is {sha256}, expected {cfg.sha256}")
    _check_format(format_, path, cfg.architecture)
    template = abstract_variables(model_from_cfg(cfg), cfg.preprocessing.image_size)
    try:
        read, pool = _read(format_, path, cfg, unsafe_pickle)
    except (ImportError, MemoryError, PermissionError):
        raise
    except ValueError as error:  # the file is readable, but contains something else
        raise ValueError(f"{path} cannot be read as {cfg.name}: {error}") from error
    except (LookupError, AttributeError) as error:  # from the conversion: readers raise other errors for damaged files
        raise ValueError(f"{path} contains a different network from {cfg.name} ({error!r})") from error
    except Exception as error:  # for damaged files safetensors, protobuf, HDF5 and torch raise their own errors
        raise ValueError(
            f"{path} cannot be read as {cfg.name}: {error} (if it is a damaged download, delete it to download it "
            "again)"
        ) from error
    variables = merge_variables(template, read)
    return variables, dataclasses.replace(cfg, sha256=sha256, global_pool=pool)


def load_published(name: str, cache: pathlib.Path | str | None = None) -> tuple[dict[str, Any], PretrainedCfg]:
    """Variables and configuration of published weights, converted once and cached until their configuration changes.

    Args:
        name: ``architecture.tag`` (`facejax.models.list_models`, pretrained).
        cache: Folder for downloads and converted weights; None for `facejax.weights.cache.cache_dir`. A file that was
            copied there by other means (``CACHE/<name>/<file>``) is used instead of a download.

    Raises:
        ConnectionError: The file is not in the cache and cannot be downloaded.
        ValueError: There are no such weights, the file's hash is not the published one, or the file is damaged.
    """
    cfg = pretrained_cfg(name)
    if not cfg.source:
        raise ValueError(f"no weights are published for {name!r}{did_you_mean(name, list_models(pretrained=True))}")
    cache = pathlib.Path(cache or cache_dir())
    converted = cache / name / "converted"
    if (kept := _kept(converted, cfg)) is not None:
        return kept
    with exclusive_lock(cache / name, wait=True):
        if (kept := _kept(converted, cfg)) is None:  # nor has another process converted it meanwhile
            path = fetch(cfg, cache)
            kept = convert_file(_format(path), path, name)
            shutil.rmtree(converted, ignore_errors=True)  # a damaged folder would not be replaced
            save_inference_checkpoint(converted, *kept)
    return kept


def _kept(converted: pathlib.Path, cfg: PretrainedCfg) -> tuple[dict[str, Any], PretrainedCfg] | None:
    """An earlier conversion; None if there is none that is complete and has this configuration."""
    try:
        variables, found = load_inference_checkpoint(converted)
    except (FileNotFoundError, ValueError):
        return None
    # The pooling comes from the file, see `convert_file`, and so does the hash if none is published.
    expected = dataclasses.replace(cfg, sha256=cfg.sha256 or found.sha256, global_pool=found.global_pool)
    return (variables, found) if expected == found else None


def fetch(cfg: PretrainedCfg, cache: pathlib.Path | str) -> pathlib.Path:
    """The published file of `cfg` in the folder `cache`; it is downloaded if it is not there.

    The hash of a download is checked here, that of an existing file by `convert_file`.

    Raises:
        ConnectionError: If it cannot be downloaded completely; the message says how to use a local file instead.
        ValueError: If the hash is not the published one.
    """
    target = pathlib.Path(cache) / cfg.name / cfg.source.rsplit("/", 1)[-1]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not mkstemp, whose files only their owner may read.
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            partial = pathlib.Path(folder) / target.name
            try:
                _download(cfg.source, partial)
            except (OSError, http.client.HTTPException) as error:
                raise ConnectionError(
                    f"cannot download {cfg.source} ({error}). Get the file by other means and save it as {target}, or "
                    f"convert a local copy: python tools/convert_weights.py {_format(target)} FILE --name {cfg.name} "
                    "--out DIR, and use DIR instead of the name"
                ) from error
            sha256 = file_sha256(partial)
            if cfg.sha256 and sha256 != cfg.sha256:
                raise ValueError(f"{cfg.source} is not the file of {cfg.name}: its SHA-256 is {sha256}")
            os.replace(partial, target)
    return target


def _download(source: str, path: pathlib.Path) -> None:
    with path.open("xb") as file, urllib.request.urlopen(source, timeout=60) as response:
        shutil.copyfileobj(response, file)
        # A dropped connection looks like the end of the file.
        expected = response.headers.get("Content-Length")
        if expected is not None and file.tell() != int(expected):
            raise ConnectionError(f"the connection ended after {file.tell()} of {expected} bytes")


def file_sha256(path: pathlib.Path | str) -> str:
    """SHA-256 of a file, lower-case hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _format(path: pathlib.Path) -> str:
    """Format of a published file (``source`` of its configuration)."""
    return "keras" if path.suffix == ".h5" else "hsemotion" if path.suffix in (".pb", ".onnx") else "timm"


def _check_format(format_: str, path: pathlib.Path, architecture: str) -> None:
    """Raises a ValueError if the format has no such files, or none of this network."""
    suffixes: dict[str, tuple[str, ...]]
    if architecture == "mobilenet_v1":
        suffixes = {"keras": (".h5", ".hdf5"), "hsemotion": (".pb",)}
    else:
        suffixes = {"timm": (".safetensors", ".pth", ".pt", ".bin")}
        if architecture.startswith("tf_efficientnet"):
            suffixes["hsemotion"] = (".onnx", ".pt")
    if path.suffix not in suffixes.get(format_, ()):
        meant = " or ".join(name for name, theirs in suffixes.items() if path.suffix in theirs)
        known = "; ".join(f"{name} reads {', '.join(theirs)}" for name, theirs in suffixes.items())
        raise ValueError(
            f"{path}: the format {format_} reads no {path.suffix or 'such'} files of {architecture}"
            + (f"; did you mean the format {meant}?" if meant else f", for which {known}")
        )


def _guess(path: pathlib.Path) -> str:
    """Name of the published weights whose source has this file name, or whose tag or name is the file's stem."""
    names, fitting = list_models(pretrained=True), []
    for name in names:
        cfg = pretrained_cfg(name)
        published = cfg.source.rsplit("/", 1)[-1]
        if path.stem in (cfg.tag, cfg.name) or (path.name == published != "model.safetensors"):
            fitting.append(name)
    if len(fitting) != 1:
        known = ", ".join(fitting or names)
        raise ValueError(f"cannot infer the weights from the file name {path.name!r}: pass --name. Known: {known}")
    return fitting[0]


def _read(
    format_: str, path: pathlib.Path, cfg: PretrainedCfg, unsafe_pickle: bool
) -> tuple[dict[str, Any], GlobalPool]:
    """The variables of a file, and the global pooling: that of the file, or of `cfg` if the file has none."""
    if format_ == "timm":
        head = cfg.tasks[0] if cfg.tasks else None
        return timm.from_timm(cfg.architecture, timm.load_state_dict(path), head=head), cfg.global_pool
    if format_ == "keras":
        return keras.from_keras(cfg.architecture, keras.load_h5(path)), cfg.global_pool
    if path.suffix == ".pb":
        return hse_facerec.from_frozen_graph(hse_facerec.load_frozen_graph(path)), cfg.global_pool
    if path.suffix == ".onnx":
        layers, pool = hsemotion.load_onnx(path)
        return hsemotion.from_onnx(cfg.architecture, layers, cfg.tasks), pool
    state_dict, pool = hsemotion.load_pickle(path, run_its_code=unsafe_pickle)
    # HSEmotion wraps the classifier in a Sequential.
    state_dict = {key.replace("classifier.0.", "classifier."): value for key, value in state_dict.items()}
    weight, bias = (state_dict.pop(f"classifier.{key}") for key in ("weight", "bias"))
    return hsemotion.merge_heads(timm.from_timm(cfg.architecture, state_dict), weight, bias, cfg.tasks), pool

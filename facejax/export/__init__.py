"""Trained networks as files for other runtimes: ONNX, LiteRT, StableHLO, and bundles with the detector."""

import importlib.util

# By name, for `facejax.export.formats.export_models`; here so that the command can list them without loading JAX.
FORMATS = ("onnx", "litert", "litert_float16", "litert_int8", "stablehlo", "orbax")
# Beyond the package's own dependencies, by runtime: the extra, and what it brings.
_PACKAGES = {
    "onnx": ("export", ("onnx", "onnxruntime")),
    "stablehlo": ("export", ("flatbuffers",)),
    "litert": ("litert", ("ai_edge_litert", "ai_edge_quantizer", "litert_converter")),
}


def check_packages(format_: str) -> None:
    """Says before the work what is missing for it.

    Args:
        format_: One of `FORMATS`.

    Raises:
        ImportError: A package is missing, with the command that installs it.
    """
    extra, names = _PACKAGES.get(format_.partition("_")[0], ("", ()))
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"{format_} needs {name}: pip install 'facejax[{extra}]'")

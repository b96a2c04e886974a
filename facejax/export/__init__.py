"""Exports trained networks to other runtimes: ONNX, LiteRT, StableHLO, and bundles with the detector."""

import importlib.util

# Names for `facejax.export.formats.export_models`; defined here so that the CLI can list them without loading JAX.
FORMATS = ("onnx", "litert", "litert_float16", "litert_int8", "stablehlo", "orbax")
# Runtime -> (extra to install, modules it provides), beyond the package's own dependencies.
_PACKAGES = {
    "onnx": ("export", ("onnx", "onnxruntime")),
    "stablehlo": ("export", ("flatbuffers",)),
    "litert": ("litert", ("ai_edge_litert", "ai_edge_quantizer", "litert_converter")),
}
# Packages that some platforms lack, where the extra is installed without them.
_PUBLISHED_FOR = {"litert_converter": "Linux on x86-64 and macOS"}


def check_packages(format_: str) -> None:
    """Checks up front that the packages a format needs are installed.

    Args:
        format_: One of `FORMATS`.

    Raises:
        ImportError: A package is missing; the message has the command that installs it.
    """
    extra, names = _PACKAGES.get(format_.partition("_")[0], ("", ()))
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"{format_} needs {described(name)}: pip install 'facejax[{extra}]'")


def described(module: str) -> str:
    """A module that is missing, as error messages name it: with its platforms if it is not published for all."""
    platforms = _PUBLISHED_FOR.get(module)
    return f"{module} (only published for {platforms})" if platforms else module

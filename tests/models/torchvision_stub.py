"""Makes timm importable with a CPU-only PyTorch."""

import importlib.util
from types import ModuleType

import pytest


def skip_without(*packages: str) -> None:
    """Skips the test if a package is not installed. Importing timm to find out would fail without the stub."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")


def import_timm() -> ModuleType:
    """The module timm.

    timm imports torchvision, whose wheel on the package index is built for CUDA: its compiled operators do not load
    without it, and registering their fake versions then fails. Declaring the two operators that it registers is enough;
    no model here runs them.
    """
    import torch

    try:
        import torchvision
    except RuntimeError:
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401

        import_timm.operators = operators  # the declarations live as long as this object
    import timm

    return timm

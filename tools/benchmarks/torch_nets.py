"""Imports timm and facenet-pytorch even if torchvision's compiled operators cannot be loaded."""

from types import ModuleType
from typing import Any

import numpy as np

DEVICES = {"cpu": "cpu", "gpu": "cuda"}  # PyTorch's names
_TIMM_NAMES = {"mobilenet_v1": "mobilenetv1_100"}  # the others have timm's name
_declared: list[Any] = []  # operators exist only as long as their library object


def create_timm(model: str, **options: Any) -> Any:
    """The timm network of the same architecture as facejax's `model`, with random weights."""
    _load_torchvision()
    import timm

    return timm.create_model(_TIMM_NAMES.get(model, model), **options)


def import_facenet() -> ModuleType:
    """Imports and returns the module facenet_pytorch."""
    _load_torchvision()
    import facenet_pytorch

    return facenet_pytorch


def _load_torchvision() -> None:
    """Imports torchvision; declares the operators that its CUDA wheel lacks with a CPU build of PyTorch.

    Non-maximum suppression, which facenet-pytorch needs, then runs in NumPy, which for its few hundred boxes is as fast
    as any.
    """
    import torch

    try:
        import torchvision.extension
    except RuntimeError:
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        operators.impl("nms", _nms, "CPU")
        _declared.append(operators)
        import torchvision.extension
        import torchvision.ops.boxes

        torchvision.extension._assert_has_ops = lambda: None
        torchvision.ops.boxes._assert_has_ops = lambda: None


def _nms(dets: Any, scores: Any, iou_threshold: float) -> Any:
    import torch

    boxes, order = dets.numpy(), np.argsort(-scores.numpy(), kind="stable")
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1) * (y2 - y1)
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        width = np.minimum(x2[best], x2[order]) - np.maximum(x1[best], x1[order])
        height = np.minimum(y2[best], y2[order]) - np.maximum(y1[best], y1[order])
        shared = width.clip(0) * height.clip(0)
        order = order[shared / (areas[best] + areas[order] - shared) <= iou_threshold]
    return torch.tensor(kept, dtype=torch.long)


def set_threads() -> None:
    """Sets PyTorch's number of threads to the number of cores that the process may use."""
    import os

    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))


def timm_onnx(model: str, size: int) -> bytes:
    """The timm network as an ONNX file whose input ``images`` (1, 3, size, size) is already normalised."""
    import io
    import warnings

    import torch

    network = create_timm(model, num_classes=8, exportable=True).eval()
    file = io.BytesIO()
    with warnings.catch_warnings():
        # This exporter needs no further package, but warns that it is legacy.
        warnings.simplefilter("ignore")
        example = (torch.zeros(1, 3, size, size),)
        torch.onnx.export(network, example, file, input_names=["images"], dynamo=False, opset_version=17)  # pyright: ignore
    return file.getvalue()

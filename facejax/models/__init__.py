"""The networks: a registry of backbones, and the model that adds heads to them."""

# Importing a family registers its networks.
from facejax.models import efficientnet, inception, mobilenet, nfnet, resnet, rexnet, senet, vgg
from facejax.models.face_model import FaceModel, abstract_variables, create_model, init_variables, model_from_cfg
from facejax.models.pretrained import PretrainedCfg, pretrained_cfg
from facejax.models.registry import create_backbone, list_models, register_model

__all__ = [
    "FaceModel",
    "PretrainedCfg",
    "abstract_variables",
    "create_backbone",
    "create_model",
    "efficientnet",
    "inception",
    "init_variables",
    "list_models",
    "mobilenet",
    "model_from_cfg",
    "nfnet",
    "pretrained_cfg",
    "register_model",
    "resnet",
    "rexnet",
    "senet",
    "vgg",
]

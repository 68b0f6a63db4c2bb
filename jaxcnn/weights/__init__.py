"""Import and export of trained weights: published ones by name, PyTorch state dicts (torchvision, timm), files."""

from jaxcnn._transplant import transplant as transplant
from jaxcnn._weights_error import WeightsError as WeightsError
from jaxcnn.weights._convert import from_torch as from_torch
from jaxcnn.weights._convert import to_torch as to_torch
from jaxcnn.weights._file import load as load
from jaxcnn.weights._file import read_state_dict as read_state_dict
from jaxcnn.weights._file import save as save
from jaxcnn.weights._match import Match as Match
from jaxcnn.weights._match import match as match
from jaxcnn.weights._pretrained import Pretrained as Pretrained
from jaxcnn.weights._pretrained import available as available
from jaxcnn.weights._pretrained import imagenet_classes as imagenet_classes
from jaxcnn.weights._pretrained import pretrained as pretrained

__all__ = [
    "Match",
    "Pretrained",
    "WeightsError",
    "available",
    "from_torch",
    "imagenet_classes",
    "load",
    "match",
    "pretrained",
    "read_state_dict",
    "save",
    "to_torch",
    "transplant",
]

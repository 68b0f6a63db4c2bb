"""Import and export of trained weights: PyTorch state dicts (torchvision, timm) and safetensors files."""

from jaxcnn.weights._convert import from_torch as from_torch
from jaxcnn.weights._convert import to_torch as to_torch
from jaxcnn.weights._file import load as load
from jaxcnn.weights._file import save as save
from jaxcnn.weights._match import Match as Match
from jaxcnn.weights._match import match as match
from jaxcnn.weights._mismatch import WeightsError as WeightsError
from jaxcnn.weights._transplant import transplant as transplant

__all__ = ["Match", "WeightsError", "from_torch", "load", "match", "save", "to_torch", "transplant"]

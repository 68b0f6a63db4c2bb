"""Data sets of pictures as plain arrays, read from files whose every header is checked."""

from jaxcnn.data._idx import DataError as DataError
from jaxcnn.data._load import Dataset as Dataset
from jaxcnn.data._load import load as load

__all__ = ["DataError", "Dataset", "load"]

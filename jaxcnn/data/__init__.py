"""Image data sets as plain NumPy arrays. The file readers validate every header."""

from jaxcnn.data import augment as augment
from jaxcnn.data import corruptions as corruptions
from jaxcnn.data._error import DataError as DataError
from jaxcnn.data._folder import image_folder as image_folder
from jaxcnn.data._folder import is_hidden as is_hidden
from jaxcnn.data._folder import read_image as read_image
from jaxcnn.data._load import Dataset as Dataset
from jaxcnn.data._load import load as load
from jaxcnn.data._normalize import normalize as normalize
from jaxcnn.data._segmentation import segmentation_folder as segmentation_folder
from jaxcnn.data._source import Source as Source
from jaxcnn.data._source import source as source
from jaxcnn.data._split import train_test_split as train_test_split
from jaxcnn.data._stream import Stream as Stream
from jaxcnn.data._stream import image_stream as image_stream

__all__ = [
    "DataError",
    "Dataset",
    "Source",
    "Stream",
    "augment",
    "corruptions",
    "image_folder",
    "image_stream",
    "is_hidden",
    "load",
    "normalize",
    "read_image",
    "segmentation_folder",
    "source",
    "train_test_split",
]

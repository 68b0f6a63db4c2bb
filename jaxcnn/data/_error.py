"""The errors that all file readers raise."""


class DataError(ValueError):
    """A file is missing, damaged or not in the expected format."""


class LabelError(DataError):
    """A file has a label that is not one of the classes. Such files are not skipped, as that would bias the data."""

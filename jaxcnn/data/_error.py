"""The errors of data sets and file readers."""


class DataError(ValueError):
    """Data are missing, damaged, too few, or not in the expected format."""


class LabelError(DataError):
    """A file has a label that is not one of the classes. Such files are not skipped, as that would bias the data."""

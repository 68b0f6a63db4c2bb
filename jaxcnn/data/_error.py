"""The error that all file readers raise."""


class DataError(ValueError):
    """A file is missing, damaged or not in the expected format."""

"""The error of everything that is read from files."""


class DataError(ValueError):
    """A file that is missing or is not what it should be."""

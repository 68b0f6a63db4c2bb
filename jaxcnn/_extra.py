"""Packages that only some uses need."""


class MissingExtraError(ImportError):
    """One of them is not installed."""

    def __init__(self, what: str, extra: str):
        super().__init__(f"{what}: pip install 'jaxcnn[{extra}]'")

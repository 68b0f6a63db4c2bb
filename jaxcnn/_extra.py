"""Errors about optional dependencies."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed."""

    def __init__(self, reason: str, extra: str):
        super().__init__(f"{reason}: pip install 'jaxcnn[{extra}]'")

"""optax, imported at its first use: it takes longer to import than all layers."""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    return getattr(importlib.import_module("optax"), name)

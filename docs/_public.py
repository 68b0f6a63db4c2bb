"""The public names of jaxcnn, which must all be in the reference."""

import importlib
from types import ModuleType
from typing import Any

PACKAGES = ["curvature", "data", "explain", "metrics", "models", "report", "train", "uncertainty", "weights"]
MODULES = [
    "jaxcnn",
    *(f"jaxcnn.{package}" for package in PACKAGES),
    *("jaxcnn.data.augment", "jaxcnn.data.corruptions", "jaxcnn.train.callbacks", "jaxcnn.train.checkpoint"),
]
WITHOUT_ALL = {  # modules that do not list their names
    "jaxcnn.data.corruptions": ["CORRUPTIONS", "corrupt"],
    "jaxcnn.train.checkpoint": ["Restored", "best", "restore", "save", "steps", "versions"],
}


def public_names() -> dict[str, Any]:
    """full name -> the object, for all names that a user may import, without modules."""
    names = {}
    for path in MODULES:
        module = importlib.import_module(path)
        exported = getattr(module, "__all__", None) or WITHOUT_ALL[path]
        if path.endswith("corruptions"):
            exported = [*exported, *module.CORRUPTIONS]
        things = {f"{path}.{name}": getattr(module, name) for name in exported}
        names |= {name: thing for name, thing in things.items() if not isinstance(thing, ModuleType)}
    return names

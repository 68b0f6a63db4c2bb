"""Checks that weights fit a model. The errors name the nearest names."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxcnn._weights_error import WeightsError
from jaxcnn.weights._tables import Table

MAX_SHOWN = 5  # names per list in a message


def require_fit(
    model: str,
    given: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    wrong: Iterable[str],
    ignored: Iterable[str],
) -> None:
    """Raise WeightsError unless the names are the same, except `ignored` ones, and none has a wrong shape."""
    known = shapes.keys() | {*ignored}
    missing = [name for name in shapes if name not in given]
    unused = [name for name in given if name not in known]
    lists = {
        "missing": [f"{name} {shapes[name]}" for name in missing],
        "unused": [f"{name} {given[name].shape}" for name in unused],
        "wrong_shape": [f"{name} {given[name].shape}, expected {shapes[name]}" for name in wrong],
    }
    if shapes and not given.keys() & known:
        found = f"got the names {_shortened(map(repr, given))}" if given else "got no weights"
        message = f"these weights do not fit {model}: {found}; expected {_shortened(map(repr, shapes))}"
        if given:
            message += ". If only the names differ, pass names=weights.match(model, state_dict, x)"
        raise WeightsError(message, **lists)
    if any(lists.values()):
        shown = lists | {"missing": [_with_nearest(name, shapes[name], unused) for name in missing[:MAX_SHOWN]]}
        parts = [
            f"{kind.replace('_', ' ')} ({len(names)}): {_shortened(shown[kind], len(names))}"
            for kind, names in lists.items()
            if names
        ]
        full = " (all names: error.missing, .unused, .wrong_shape)" if max(map(len, lists.values())) > MAX_SHOWN else ""
        hint = ""
        if missing and not unused and not wrong and all("aux" in name.lower() for name in missing):
            hint = "\n  the weights have no auxiliary head: pass auxiliary=False, also to the model"
        raise WeightsError(
            f"these weights do not fit {model} with these options{full}\n  " + "\n  ".join(parts) + hint, **lists
        )


def require_options(model: str, table: Table, options: Mapping[str, Any]) -> None:
    """Raise WeightsError with the right call if the library's norms or padding differ from the model's defaults."""
    eps = table.tensorflow_eps if options.get("padding") == "tensorflow" else table.eps
    needed, differences = {}, []
    if eps and "norm" not in options:
        needed["norm"] = "jaxcnn.batch_norm" if eps == 1e-5 else f"functools.partial(jaxcnn.batch_norm, eps={eps:g})"
        differences.append(f"eps={eps:g} in its norms")
    if table.padding and "padding" not in options:
        needed["padding"] = repr(table.padding)
        differences.append(f"padding={table.padding!r} unless its config has tf_padding=false")
    if needed:
        owner = f"{table.library}'" if table.library.endswith("s") else f"{table.library}'s"
        given = {name: getattr(value, "__name__", repr(value)) for name, value in options.items()}
        arguments = ", ".join(f"{name}={value}" for name, value in (given | needed).items())
        raise WeightsError(
            f"these weights have {owner} names. {owner} {model} uses {' and '.join(differences)}, "
            f"but this model does not by default. Build models.{model}({arguments}), and pass the same options to "
            f"weights.from_torch({model!r}, state_dict, {arguments}) or weights.load"
        )


def _with_nearest(name: str, shape: tuple[int, ...], names: list[str]) -> str:
    nearest = difflib.get_close_matches(name, names, 1)
    return f"{name} {shape}" + (f" (nearest: {nearest[0]})" if nearest else "")


def _shortened(names: Iterable[str], total: int | None = None) -> str:
    names = list(names)
    total = len(names) if total is None else total
    return "; ".join(names[:MAX_SHOWN]) + (f"; .. ({total} in total)" if total > MAX_SHOWN else "")

"""Imports between the parts of jaxcnn point one way, at the top of a module as well as inside functions."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import jaxcnn

ROOT = pathlib.Path(jaxcnn.__file__).parent
CORE = "core"  # the modules right in jaxcnn/, _lowering/ and _onnx/
MAY_IMPORT = {
    CORE: set(),
    "data": {CORE},
    "models": {CORE},
    "weights": {CORE, "data", "models"},
    "curvature": {CORE},
    "explain": {CORE},
    "metrics": {CORE},
    "uncertainty": {CORE, "explain", "metrics"},
    "train": {CORE, "data", "metrics"},
    "report": {CORE, "data", "explain", "metrics", "train"},
}


def part_of(names):
    """The part that a module's path, as names below jaxcnn, belongs to."""
    return names[0] if names and names[0] in MAY_IMPORT else CORE


def imported(tree):
    """(line, names below jaxcnn) of all that a module imports from jaxcnn."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [[*(node.module or "").split("."), alias.name] for alias in node.names]
        else:
            continue
        yield from ((node.lineno, names[1:]) for names in found if names[0] == "jaxcnn")


def edges():
    """(where, part that imports, part that is imported), without imports in a part of its own modules."""
    for path in sorted(ROOT.rglob("*.py")):
        here = path.relative_to(ROOT)
        if str(here) in ("__init__.py", "__main__.py"):  # about all parts
            continue
        for line, names in imported(ast.parse(path.read_text())):
            if (source := part_of(here.parts)) != (target := part_of(names)):
                yield f"{here}:{line}", source, target


def test_every_folder_is_a_known_part():
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == MAY_IMPORT.keys() - {CORE} | {"_lowering", "_onnx"}


def test_arrows_point_one_way():
    found = list(edges())
    assert len(found) > 50
    wrong = [edge for edge in found if edge[2] not in MAY_IMPORT[edge[1]]]
    assert not wrong


def test_there_is_no_circle():
    """What may be imported can be put in an order in which each part imports only earlier ones."""
    ordered = set()
    while ready := {part for part, others in MAY_IMPORT.items() if others <= ordered} - ordered:
        ordered |= ready
    assert ordered == MAY_IMPORT.keys()


UNDOCUMENTED = re.compile(
    r"\bjax\.(_src|core|extend|interpreters)\b|\bfrom jax import .*\b(core|extend|interpreters)\b"
)


def test_undocumented_names_of_jax_are_in_one_file():
    files = [path.relative_to(ROOT) for path in ROOT.rglob("*.py")]
    found = {str(path) for path in files if UNDOCUMENTED.search((ROOT / path).read_text())}
    assert found == {"_jax.py"}


def test_each_undocumented_name_says_what_it_is_for():
    lines = [line for line in (ROOT / "_jax.py").read_text().splitlines() if line.startswith("from jax")]
    assert len(lines) > 5
    assert all(re.fullmatch(r"from [\w.]+ import (\w+) as \1  # .+", line) for line in lines)


def test_sub_packages_and_optax_are_imported_at_their_first_use():
    code = """
import sys, jaxcnn
def loaded():
    return sorted(name for name in sys.modules if name in {*%r} or name == "optax")
print(loaded(), {"train", "conv"} <= {*dir(jaxcnn)})
jaxcnn.metrics.accuracy
print(loaded())
jaxcnn.mean_squared_error(jaxcnn.identity)
print(loaded())
""" % [f"jaxcnn.{part}" for part in MAY_IMPORT]
    lines = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines == ["[] True", "['jaxcnn.metrics']", "['jaxcnn.metrics', 'optax']"]


def test_training_imports_neither_models_nor_weights():
    code = "import sys, jaxcnn.train; print({'jaxcnn.models', 'jaxcnn.weights'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "set()"


def test_all_public_names_exist():
    assert all(getattr(jaxcnn, name) is not None for name in jaxcnn.__all__)
    with pytest.raises(AttributeError, match="module 'jaxcnn' has no attribute 'layers'"):
        _ = jaxcnn.layers

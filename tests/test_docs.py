"""Every example in a docstring, in the README and in the documentation does what it says; the reference is complete."""

import contextlib
import doctest
import importlib
import inspect
import io
import pathlib
import pkgutil
import re

import jax
import jax.numpy as jnp
import pytest

import jaxcnn
from docs._public import public_names

ROOT = pathlib.Path(__file__).parent.parent
REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *REFERENCE]
MODULES = ["jaxcnn", *(module.name for module in pkgutil.walk_packages(jaxcnn.__path__, "jaxcnn."))]


def docstring_examples(*, of_models):
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in (name for name in MODULES if name.startswith("jaxcnn.models") == of_models):
        module = importlib.import_module(name)
        for test in finder.find(module, name, module, extraglobs={"jax": jax, "jnp": jnp, "jaxcnn": jaxcnn}):
            if test.examples:
                yield pytest.param(test, id=test.name)


def page_examples():
    """Each Python block, and what it prints: the comment on its last line, or a block without a language after it."""
    pattern = re.compile(r"(<!-- slow -->\n)?```python\n(.*?)```\n(?:\n```\n(.*?)```)?", re.DOTALL)
    for page in PAGES:
        for i, match in enumerate(pattern.finditer(page.read_text())):
            slow, code, block = match.groups()
            comment = re.search(r"print\(.*\)  # (.*)\n$", code)
            printed = block or (comment[1] + "\n" if comment else "")
            yield pytest.param(code, printed, id=f"{page.stem}{i}", marks=[pytest.mark.slow] if slow else [])


@pytest.mark.sample(4, 1)
@pytest.mark.parametrize("test", list(docstring_examples(of_models=False)))
def test_docstring(test):
    said = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


@pytest.mark.slow
@pytest.mark.sample(16)
@pytest.mark.parametrize("test", list(docstring_examples(of_models=True)))
def test_docstring_of_models(test):
    test_docstring(test)


@pytest.mark.parametrize(("code", "printed"), list(page_examples()))
def test_page(code, printed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    assert out.getvalue().endswith(printed)  # training tells its progress before


def test_blocks_that_do_not_run_are_python():
    """Blocks marked `py` need a download or files of the reader."""
    blocks = [code for page in PAGES for code in re.findall(r"```py\n(.*?)```", page.read_text(), re.DOTALL)]
    assert blocks
    for code in blocks:
        compile(code, "page", "exec")


def test_reference_has_every_public_name_once():
    documented = []
    for page in REFERENCE:
        module = ""
        for directive, name in re.findall(r"^\.\. ([\w:]+):: (\S+)$", page.read_text(), re.MULTILINE):
            if directive in ("automodule", "currentmodule"):
                module = name
            else:
                documented.append(f"{module}.{name}")
    assert sorted(documented) == sorted(public_names())


ONE_ARGUMENT = {
    "jaxcnn.data.is_hidden",
    "jaxcnn.flatten",
    "jaxcnn.train.callbacks.log",
    "jaxcnn.train.callbacks.progress",
}


@pytest.mark.parametrize("name", [name for name, thing in public_names().items() if inspect.getdoc(thing)])
def test_public_names_are_documented(name):
    thing = public_names()[name]
    doc = inspect.getdoc(thing)
    assert len(doc.splitlines()[0]) <= 120
    if inspect.isfunction(thing) and name not in ONE_ARGUMENT:
        for parameter in inspect.signature(thing).parameters:
            assert re.search(rf"\b{parameter}\b", doc), parameter
        assert "Example" in doc

"""Every example in a docstring and in the README does what it says."""

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

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
PACKAGES = {"data", "explain", "models", "report", "train", "weights"}
MODULES = ["jaxcnn", *(module.name for module in pkgutil.walk_packages(jaxcnn.__path__, "jaxcnn."))]


def docstring_examples(*, of_models):
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in (name for name in MODULES if name.startswith("jaxcnn.models") == of_models):
        module = importlib.import_module(name)
        for test in finder.find(module, name, module, extraglobs={"jax": jax, "jnp": jnp, "jaxcnn": jaxcnn}):
            if test.examples:
                yield pytest.param(test, id=test.name)


def readme_examples():
    """Each Python block, and what it prints: the comment on its last line, or a block without a language after it."""
    for i, match in enumerate(re.finditer(r"```python\n(.*?)```\n(?:\n```\n(.*?)```)?", README, re.DOTALL)):
        code, block = match.groups()
        comment = re.search(r"print\(.*\)  # (.*)\n$", code)
        if "class Layer(" not in code:
            yield pytest.param(code, block or (comment[1] + "\n" if comment else ""), id=f"block{i}")


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


@pytest.mark.parametrize(("code", "printed"), list(readme_examples()))
def test_readme(code, printed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    assert out.getvalue().endswith(printed)  # training tells its progress before


def test_readme_names_everything():
    for name in set(jaxcnn.__all__) - {"Layer", "LossFn"} - PACKAGES:
        assert re.search(rf"\b{name}\b", README), name


@pytest.mark.parametrize("name", sorted(set(jaxcnn.__all__) - PACKAGES))
def test_public_names_are_documented(name):
    thing = getattr(jaxcnn, name)
    doc = inspect.getdoc(thing)
    assert len(doc.splitlines()[0]) <= 120
    if inspect.isfunction(thing):
        for parameter in inspect.signature(thing).parameters:
            if parameter not in ("x", "layers", "named", "tree", "params", "fun"):
                assert re.search(rf"\b{parameter}\b", doc), parameter
        assert "Example" in doc

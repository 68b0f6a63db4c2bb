"""Every example in a docstring, and in the README, does what it says."""

import doctest
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import pytest

import jaxcnn

MODULES = ["jaxcnn", *(m.name for m in pkgutil.walk_packages(jaxcnn.__path__, "jaxcnn."))]


def examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in MODULES:
        module = importlib.import_module(name)
        for test in finder.find(module, name, module, extraglobs={"jax": jax, "jnp": jnp, "jaxcnn": jaxcnn}):
            if test.examples:
                yield pytest.param(test, id=test.name)


@pytest.mark.parametrize("test", list(examples()))
def test_docstring(test):
    said = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)

"""`python -m jaxcnn`: versions, devices, optional packages and folders."""

import importlib.metadata
import pathlib
import subprocess
import sys
import tomllib

import jax
import pytest

import jaxcnn
from jaxcnn.__main__ import environment, extras

PYPROJECT = pathlib.Path(__file__).parent.parent / "pyproject.toml"


def test_versions_and_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXCNN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    lines = dict(line.split(maxsplit=1) for line in environment().split("\n\n")[0].splitlines())
    assert lines["jaxcnn"] == f"{jaxcnn.__version__} in {pathlib.Path(jaxcnn.__file__).parent}"
    assert lines["Python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
    for package in ("jax", "jaxlib", "optax", "numpy"):
        assert lines[package] == importlib.metadata.version(package)
    assert lines["backend"] == f"{jax.default_backend()}, {jax.device_count()} x {jax.devices()[0].device_kind}"
    assert lines["data"].startswith(f"{tmp_path / 'data'}, then {pathlib.Path.home() / '.cache' / 'jaxcnn'}; ")
    assert lines["runs"].startswith(f"{tmp_path / 'runs'}, ")


def test_installed_and_missing_packages(monkeypatch):
    requirements = [
        "jax>=0.10",
        "numpy; python_version > '3'",
        'some-package[part]>=2 ; extra == "one"',
        "other_package<3,>=1; python_version >= '3.11' and extra == 'two'",
        "third; extra == 'two'",
        "third; extra == 'all'",
        "third; extra == 'dev'",
    ]
    assert extras(requirements) == {"one": ["some-package"], "two": ["other_package", "third"]}
    installed = {"some-package": "2.1", "third": "3.0"}

    def version(name):
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr("jaxcnn.__main__.versions", lambda: {"python": "3.11"})
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requirements)
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert environment().split("\n\n")[1].splitlines() == [
        "optional packages:",
        "  one      some-package 2.1",
        "  two      other_package missing, third 3.0: pip install 'jaxcnn[two]'",
    ]


def test_a_package_that_is_not_installed(monkeypatch):
    def requires(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert "imported from a folder and not installed" in environment()


def test_extras_are_those_of_the_project():
    """The metadata have the names that pyproject.toml declares."""
    try:
        requirements = importlib.metadata.requires("jaxcnn")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("jaxcnn is not installed")
    declared = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    assert extras(requirements).keys() == declared.keys() - {"all", "dev"}


@pytest.mark.slow
def test_the_command():
    done = subprocess.run([sys.executable, "-m", "jaxcnn"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"jaxcnn   {jaxcnn.__version__} in ")
    assert "optional packages" in done.stdout

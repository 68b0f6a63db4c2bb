"""The built distributions: their contents, and that they work without the checkout."""

import email
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import zipfile

import pytest

import jaxcnn

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_versions_agree():
    """Of the package, the changelog and the citation."""
    headings = re.findall(r"^## (\S+), (not yet released|\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0][0] == jaxcnn.__version__
    citation = dict(re.findall(r"^([\w-]+): (.+)$", (ROOT / "CITATION.cff").read_text(), re.M))
    assert citation["version"] == jaxcnn.__version__
    assert citation["license"] == "Apache-2.0"
    assert (headings[0][1] == "not yet released") == ("date-released" not in citation)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(wheel, sdist): the first built from the second, as by `python -m build`."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    build = "import sys, hatchling.build as b; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"

    def run(kind, root):
        call = [sys.executable, "-c", build, kind, str(folder)]
        done = subprocess.run(call, cwd=root, check=True, capture_output=True, text=True)
        return folder / done.stdout.split()[-1]

    sdist = run("sdist", ROOT)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    return run("wheel", source), sdist


@pytest.fixture(scope="module")
def unpacked(built):
    """(folder of the wheel, folder of the sdist)."""
    wheel, _ = built
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(wheel.parent / "wheel")
    (source,) = (wheel.parent / "source").iterdir()
    return wheel.parent / "wheel", source


def tracked(*folders):
    """The files in these folders of the checkout, without what tools leave behind."""
    files = (path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {str(path) for path in files if not {"__pycache__", "runs", "_build", "_figures"} & {*path.parts}}


def environment(folder):
    """Of a program that imports only this folder's jaxcnn."""
    return os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.slow
def test_wheel(built):
    wheel, _ = built
    assert wheel.name == f"jaxcnn-{jaxcnn.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = {*archive.namelist()}
        metadata = email.message_from_bytes(archive.read(f"jaxcnn-{jaxcnn.__version__}.dist-info/METADATA"))
    info = {name for name in names if name.startswith(f"jaxcnn-{jaxcnn.__version__}.dist-info/")}
    assert names - info == tracked("jaxcnn")
    assert {"jaxcnn/py.typed", "jaxcnn/data/mnist_small/train-images-idx3-ubyte.gz", "jaxcnn/__main__.py"} <= names
    assert {pathlib.PurePath(name).name for name in info} == {"METADATA", "WHEEL", "RECORD", "LICENSE"}
    assert metadata["Version"] == jaxcnn.__version__
    assert metadata.get_payload(decode=True).decode().strip() == README.strip()
    assert metadata["Description-Content-Type"] == "text/markdown"


@pytest.mark.slow
def test_source_distribution(built):
    _, sdist = built
    assert sdist.name == f"jaxcnn-{jaxcnn.__version__}.tar.gz"
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    single = {"README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "pyproject.toml", ".gitignore"}
    assert names == tracked("jaxcnn", "tests", "experiments", "docs", ".ci") | single | {"PKG-INFO"}


@pytest.mark.slow
def test_the_first_example_runs_from_the_wheel(unpacked, tmp_path):
    wheel, _ = unpacked
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    code += "\nimport jaxcnn; print(jaxcnn.__file__)"
    call = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(call, cwd=tmp_path, env=environment(wheel), check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["100%", str(wheel / "jaxcnn" / "__init__.py")]


@pytest.mark.slow
def test_the_source_distribution_passes_its_tests(unpacked):
    """All of its tests can be collected, and those on files next to the package run."""
    _, source = unpacked
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    options = {"cwd": source, "env": environment(source), "capture_output": True, "text": True}
    done = subprocess.run([*call, "--collect-only", "-m", ""], **options)
    assert done.returncode == 0, done.stdout[-2000:]
    quick = ["tests/test_imports.py", "tests/test_environment.py", "tests/test_release.py", "tests/test_path.py"]
    done = subprocess.run([*call, *quick], **options)
    assert done.returncode == 0, done.stdout[-2000:]
    assert not [path for path in source.rglob("__pycache__") if path.is_dir()]

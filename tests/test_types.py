"""What type checkers, and so editors, know of the public names."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PROGRAM = """
import jaxcnn
from jaxcnn import Layer, conv, models, train

good: Layer = models.resnet18(classes=10)
also: Layer = models.MODELS["resnet18"](10, dropout=0.1)
shape: tuple[int, ...] = models.resnet18.input_shape
init, apply = conv(3, bias=False)
fitted: train.FitResult = train.fit(good, (0, 0))
swept: train.SweepResult = train.fit(good, (0, 0), seeds=2)

models.resnet51()
models.resnet18(classes="ten")
conv("3")
conv(3, strides=2)
jaxcnn.cnov(3)
train.fit(good, (0, 0), seeds=2).train_state
train.fit(good, (0, 0), seeds=2, start=({}, {}))
"""
WRONG = {PROGRAM.splitlines().index(line) + 1 for line in PROGRAM.split("\n\n")[-1].splitlines()}


@pytest.mark.full
@pytest.mark.parametrize("checker", [["mypy"], ["pyright", "--pythonpath", sys.executable]])
def test_wrong_lines_are_errors_and_others_are_not(tmp_path, checker):
    pytest.importorskip(checker[0])
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "jaxcnn").symlink_to(ROOT / "jaxcnn")
    command = [sys.executable, "-m", *checker, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    found = [line.strip() for line in done.stdout.splitlines() if "program.py:" in line and "error" in line]
    assert {int(line.split("program.py:")[1].split(":")[0]) for line in found} == WRONG, done.stdout

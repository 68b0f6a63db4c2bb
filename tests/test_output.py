"""Progress output on streams of each kind: a terminal, a notebook, a pipe."""

import io
import itertools
import re
import sys
import time

import pytest

from jaxcnn.train import Run
from jaxcnn.train._output import Output


class Terminal(io.StringIO):
    def isatty(self):
        return True


class OutStream(io.StringIO):
    """Like that of a notebook's kernel."""

    __module__ = "ipykernel.iostream"


STREAMS = {"terminal": Terminal, "notebook": OutStream, "other": io.StringIO}


def shown(text):
    """What a screen shows of a text: lines, overwritten from the start after a carriage return."""
    lines = []
    for line in text.split("\n"):
        cells = []
        for part in line.split("\r"):
            if part.startswith("\x1b[K"):
                cells, part = [], part.removeprefix("\x1b[K")
            cells[: len(part)] = part
        lines.append("".join(cells).rstrip())
    return lines


@pytest.fixture
def clock(monkeypatch):
    """Time, in seconds, that only a test moves on."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("kind", ["terminal", "notebook"])
def test_progress_is_replaced_in_place(monkeypatch, clock, kind):
    stream = STREAMS[kind]()
    monkeypatch.setattr(sys, "stdout", stream)
    output = Output(enabled=True)
    output.say("start")
    for line in ("step 1 of 1000", "step 20", "3"):
        clock[0] += 1
        output.progress(line)
        assert shown(stream.getvalue()) == ["start", line]
    output.say("epoch")  # shorter than the first progress line
    output.say("end")
    assert shown(stream.getvalue()) == ["start", "epoch", "end", ""]
    if kind == "notebook":
        assert stream.getvalue().endswith("\nend\n")  # nothing is left to replace


def test_a_notebook_gets_no_escape_sequences_and_few_messages(monkeypatch, clock):
    stream = OutStream()
    monkeypatch.setattr(sys, "stdout", stream)
    output = Output(enabled=True)
    output.say("start")
    assert stream.getvalue() == "start\n"
    for i in range(1000):  # in one second
        clock[0] += 0.001
        output.progress(f"step {i}")
    assert "\x1b" not in stream.getvalue()
    assert 3 <= len(re.findall("step", stream.getvalue())) <= 4


def test_a_pipe_gets_each_line_once(monkeypatch, clock):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    output = Output(enabled=True)
    for epoch in (1, 2):
        for step in range(100):  # 9 seconds
            clock[0] += 0.09
            output.progress(f"epoch {epoch}: step {step}")
        output.say(f"epoch {epoch}")
    assert stream.getvalue() == "epoch 1\nepoch 2\n"


def test_long_activities_on_a_pipe(monkeypatch, clock):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    output = Output(enabled=True)
    for clock[0] in range(101, 1500):
        output.progress(f"at {clock[0]}")
    times = [int(line.removeprefix("at ")) - 100 for line in stream.getvalue().split("\n")[:-1]]
    assert times == [*itertools.accumulate([10, 30, 60, 120, 300, 300, 300])]


@pytest.mark.parametrize("kind", STREAMS)
def test_only_the_first_process_prints(monkeypatch, clock, kind):
    stream = STREAMS[kind]()
    monkeypatch.setattr(sys, "stdout", stream)
    output = Output(enabled=False)
    clock[0] += 1000
    output.progress("step")
    output.say("epoch")
    assert stream.getvalue() == ""


def test_a_run_in_a_notebook(monkeypatch, clock, tmp_path):
    stream = OutStream()
    monkeypatch.setattr(sys, "stdout", stream)
    run = Run("test", {}, folder=tmp_path)
    for epoch in (1, 2):
        for step in range(3):
            clock[0] += 1
            run.progress(f"epoch {epoch}: [###] step {step}")
        run.log(f"epoch {epoch}: done", epoch=epoch)
    assert shown(stream.getvalue()) == ["epoch 1: done", "epoch 2: done", ""]

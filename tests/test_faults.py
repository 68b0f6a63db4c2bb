"""Training gives the same result if it is killed, stopped by a signal, or distributed over devices."""

import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from jaxcnn.train import _checkpoint_folder, checkpoint
from tests import conftest

pytestmark = pytest.mark.slow

pytest.importorskip("orbax.checkpoint")

LONG = ["fit.epochs=16", "fit.checkpoint.every=2"]  # 128 steps
UNSAVED = ["fit.epochs=60", "fit.checkpoint.every=10000"]


def start(*arguments, program="tests.train_small", devices=1, **environment):
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(conftest.CACHE),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        **environment,
    }
    return subprocess.Popen(
        [sys.executable, "-m", program, *arguments],
        env=environment,
        cwd=pathlib.Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, timeout=120):
    out, _ = process.communicate(timeout=timeout)
    return out


def digest(out):
    found = re.findall(r"^digest (\w{64})$", out, re.MULTILINE)
    assert len(found) == 1, out
    return found[0]


def wait_for(process, text):
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"the program ended without {text!r}")


def test_killed_at_any_moment(tmp_path):
    """SIGKILL at three random times, most of them while a checkpoint is written; then training finishes."""
    rng = random.Random(0)
    saved = []
    for epoch in sorted(rng.sample(range(1, 11), 3)):
        process = start(*LONG, f"folder={tmp_path / 'killed'}")
        wait_for(process, f"epoch {epoch}: loss")
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        finish(process)
        assert process.returncode == -signal.SIGKILL
        saved.append(checkpoint.steps(tmp_path / "killed" / "checkpoints")[-1])
        left = {path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()}
        assert all(re.fullmatch(r"\d+(\.partial|\.removed)?", name) for name in left)
        assert 8 * epoch - 2 <= saved[-1] < 128  # no more is lost than the steps since the last save
    outs = [finish(start(*LONG, f"folder={tmp_path / name}")) for name in ("killed", "whole")]
    assert f"resuming from step {saved[-1]}" in outs[0]
    assert digest(outs[0]) == digest(outs[1])
    print(f"\nkilled with steps {saved} of 128 saved; the result is that of an uninterrupted run to the bit")


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.full)])
def test_killed_while_saving(tmp_path, keep, kills):
    """Each step that was complete before the kill, or its replacement, is valid afterwards."""
    rng = random.Random(keep)
    like = {"w": jax.numpy.zeros(1000, "int32"), "again": jax.numpy.int32(0)}
    last = 0
    for _ in range(kills):
        command = [sys.executable, "-m", "tests.save_many", tmp_path, str(last), str(keep)]
        process = subprocess.Popen(command, cwd=pathlib.Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True)
        for _ in range(rng.randint(2, 8)):
            saving = int(process.stdout.readline().split()[1])
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        finish(process)
        step, tree, _ = checkpoint.restore(tmp_path, like)
        assert step >= max(last, saving - 1)
        assert (tree["w"] == step).all()
        last = step
    assert len(checkpoint.steps(tmp_path)) <= keep + 1


@pytest.mark.full
@pytest.mark.parametrize("keep", [1, 3])
def test_killed_many_times(tmp_path, keep):
    """Twenty kills at random times do not change the result of training."""
    rng = random.Random(keep)
    arguments = [*LONG, f"fit.checkpoint.keep={keep}"]
    for i in range(20):
        process = start(*arguments, f"folder={tmp_path / 'killed'}")
        for line in process.stdout:
            if ("compiling" in line and i < 15) or line.startswith("epoch"):
                break
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        finish(process)
    outs = [finish(start(*arguments, f"folder={tmp_path / name}")) for name in ("killed", "whole")]
    assert digest(outs[0]) == digest(outs[1])


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.full),  # test_stopping sends all of them within a process
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.full),
    ],
)
def test_stopped_by_a_signal(tmp_path, number, status):
    process = start(*UNSAVED, f"folder={tmp_path}")
    wait_for(process, "epoch 1")
    process.send_signal(number)
    out = finish(process)
    assert process.returncode == status, out
    assert f"stopped by signal {int(number)}" in out
    saved = checkpoint.steps(tmp_path / "checkpoints")[-1]
    assert saved >= 8
    process = start(*UNSAVED, f"folder={tmp_path}")
    out = finish(process)
    assert f"resuming from step {saved}" in out
    whole = start(*UNSAVED, f"folder={tmp_path / 'whole'}")
    assert digest(out) == digest(finish(whole))


def test_a_second_signal_ends_it_at_once(tmp_path):
    code = (
        "import os, signal, time\n"
        "from jaxcnn.train._interrupt import stop_signal\n"
        "with stop_signal() as received_signal:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print(received_signal(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "15\n"
    assert done.returncode == -signal.SIGTERM


def test_signal_handlers_are_restored():
    from jaxcnn.train._interrupt import stop_signal

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stop_signal() as received_signal:
        assert received_signal() == 0
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    result = []
    thread = threading.Thread(target=lambda: result.append(stop_signal().__enter__()()))
    thread.start()
    thread.join()
    assert result == [0]


def test_errors_are_one_line_and_status_2(tmp_path):
    first = start("fit.epochs=1", f"folder={tmp_path}")
    digest(finish(first))
    process = start("fit.epochs=2", f"folder={tmp_path}")
    out = finish(process)
    assert process.returncode == 2
    assert "error: " in out
    assert "was saved with a different config" in out
    assert "  fit.epochs: was 1, now 2" in out
    assert "Traceback" not in out


def params_of(folder):
    """All values in the last checkpoint of a run."""
    about, _ = _checkpoint_folder.read_about(folder / str(checkpoint.steps(folder)[-1]))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = [jax.ShapeDtypeStruct(shape, dtype, sharding=here) for shape, dtype in about["arrays"].values()]
    import orbax.checkpoint

    with orbax.checkpoint.StandardCheckpointer() as reader:
        arrays = reader.restore(
            folder / str(checkpoint.steps(folder)[-1]) / "arrays",
            {f"{i:06}": leaf for i, leaf in enumerate(like)},
        )
    return {name: np.asarray(arrays[f"{i:06}"], np.float64) for i, name in enumerate(about["arrays"])}


def close(folder, other):
    """Check that the params and state of two runs agree up to the rounding of sums in a different order."""
    a, b = params_of(folder), params_of(other)
    assert a.keys() == b.keys()
    worst = 0.0
    for name in a:
        if "params" in name or "/state/" in name:
            worst = max(worst, np.abs(a[name] - b[name]).max(initial=0) / max(1e-3, np.abs(a[name]).max(initial=0)))
    assert worst < 1e-4, worst
    return worst


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The checkpoints of training on one device, with which others are compared."""
    folder = tmp_path_factory.mktemp("one")
    digest(finish(start(f"folder={folder}")))
    return folder / "checkpoints"


def test_eight_devices_are_one(tmp_path, one):
    eight = start(f"folder={tmp_path / 'eight'}", devices=8)
    digest(finish(eight))
    worst = close(one, tmp_path / "eight" / "checkpoints")
    print(f"\nafter 32 steps, 8 devices differ from 1 by {worst:.1e} of the largest value")


@pytest.mark.full
def test_resumes_with_a_different_number_of_devices(tmp_path):
    for name, first, second in (("grown", 1, 4), ("shrunk", 4, 1)):
        folder = tmp_path / name
        process = start(f"folder={folder}", devices=first)
        digest(finish(process))
        for step in checkpoint.steps(folder / "checkpoints"):
            if step > 30:
                _checkpoint_folder.remove(folder / "checkpoints" / str(step))
        process = start(f"folder={folder}", devices=second)
        out = finish(process)
        assert "resuming from step 30" in out
        digest(out)
    close(tmp_path / "grown" / "checkpoints", tmp_path / "shrunk" / "checkpoints")


def port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def together(folder, *arguments, count=2, **options):
    """Run the same command in several connected processes."""
    address = f"localhost:{port()}"
    processes = [
        start(
            f"folder={folder}",
            *arguments,
            "--distributed",
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES=str(count),
            JAX_PROCESS_ID=str(i),
            devices=2,
            **options,
        )
        for i in range(count)
    ]
    return processes


def test_two_processes_are_one(tmp_path, one):
    processes = together(tmp_path / "two", "fit.report=true")
    outs = [finish(process) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outs
    assert digest(outs[0]) == digest(outs[1])
    assert "Grad-CAM" in (tmp_path / "two" / "report.html").read_text()
    worst = close(one, tmp_path / "two" / "checkpoints")
    print(f"\nafter 32 steps, 2 processes of 2 devices differ from 1 device by {worst:.1e} of the largest value")


def test_two_processes_stop_together(tmp_path):
    processes = together(tmp_path, "fit.epochs=200")
    wait_for(processes[0], "epoch 1")
    processes[1].send_signal(signal.SIGTERM)
    outs = [finish(process) for process in processes]
    assert [process.returncode for process in processes] == [143, 143], outs
    saved = checkpoint.steps(tmp_path / "checkpoints")[-1]
    assert f"at step {saved:,}" in outs[0]

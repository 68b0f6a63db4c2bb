"""Exported programs, and what runs them."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn import batch_norm, conv, dense, dropout, global_avg_pool, serial

RUN = """
import pathlib, sys
import jax, numpy as np
program = jax.export.deserialize(pathlib.Path("model.bin").read_bytes())
x = np.load("x.npy")
np.save("y.npy", np.concatenate([program.call(x[:1]), program.call(x[1:])]))
assert not any(name.startswith("jaxcnn") for name in sys.modules)
"""


def test_program_runs_without_the_library(tmp_path):
    model = serial(conv(8, stride=2, padding=1), batch_norm(), jax.nn.relu, global_avg_pool, dropout(0.5), dense(3))
    x = np.random.default_rng(0).standard_normal((4, 9, 9, 3), np.float32)
    params, state = model.init(jax.random.key(0), x)
    program = jaxcnn.export(model, params, state, x)
    assert program.platforms == ("cpu", "cuda", "tpu")
    (tmp_path / "model.bin").write_bytes(program.serialize())
    np.save(tmp_path / "x.npy", x)
    subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, check=True, timeout=120)
    y, _ = model.apply(params, state, x, train=False)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), y, rtol=1e-5, atol=1e-5)


def test_platforms():
    spec = jax.ShapeDtypeStruct((1, 4), jnp.float32)
    assert jaxcnn.export(serial(jnp.sin), {}, {}, spec, platforms=["cpu"]).platforms == ("cpu",)


@pytest.mark.parametrize(("spec", "error", "message"), [((1, 4), TypeError, "an input"), (1.0, TypeError, "an input")])
def test_what_is_no_input(spec, error, message):
    with pytest.raises(error, match=message):
        jaxcnn.export(serial(jnp.sin), {}, {}, spec)


def test_input_without_batch():
    with pytest.raises(ValueError, match="batch dimension"):
        jaxcnn.export(serial(jnp.sin), {}, {}, jnp.float32(1))

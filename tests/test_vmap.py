"""`vmap` over parameters, inputs or both equals a Python loop over models, for all primitives and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcnn._lowering import convolve, convolve_transposed
from tests.test_lowering import close, convolutions

MODELS = 3
small = settings(max_examples=10, deadline=None, derandomize=True)


def derivatives(f, *args):
    """Value, vjp, jvp and a second derivative, each with the models' dimension in front."""
    bend = lambda *args: jnp.sin(f(*args)).sum()
    gradient = jax.grad(bend, range(len(args)))
    return {
        "value": f(*args),
        "vjp": gradient(*args),
        "jvp": jax.jvp(f, args, args)[1],
        "second": jax.jvp(gradient, args, args)[1],
    }


def mapped_and_looped(f, args, mapped):
    """`derivatives` under vmap, and for each model in turn. `mapped` tells which arguments differ between models."""
    args = [jnp.asarray(arg) for arg in args]
    scales = jnp.arange(1, MODELS + 1) / 2
    stacked = [
        jnp.stack([s * arg for s in scales]).astype(arg.dtype) if m else arg
        for arg, m in zip(args, mapped, strict=True)
    ]
    axes = [0 if m else None for m in mapped]
    of_model = lambda i: [arg[i] if m else arg for arg, m in zip(stacked, mapped, strict=True)]
    found = jax.jit(jax.vmap(lambda *args: derivatives(f, *args), axes))(*stacked)
    one = jax.jit(lambda *args: derivatives(f, *args))
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(one(*of_model(i)) for i in range(MODELS)))
    return found, expected


def gradients_of_vmap(f, args, mapped):
    """The gradient of a sum over models, outside of vmap, and the sum of the models' gradients."""
    axes = [0 if m else None for m in mapped]
    scales = jnp.arange(1, MODELS + 1) / 2
    stacked = [jnp.stack([s * arg for s in scales]) if m else arg for arg, m in zip(args, mapped, strict=True)]
    positions = tuple(range(len(args)))
    found = jax.jit(jax.grad(lambda *args: jnp.sin(jax.vmap(f, axes)(*args)).sum(), positions))(*stacked)

    def loop(*args):
        of_model = lambda i: [arg[i] if m else arg for arg, m in zip(args, mapped, strict=True)]
        return sum(jnp.sin(f(*of_model(i))).sum() for i in range(MODELS))

    return found, jax.jit(jax.grad(loop, positions))(*stacked)


which = st.sampled_from([(True, True), (True, False), (False, True)])


@pytest.mark.slow
@small
@given(convolutions(), which)
@pytest.mark.usefixtures("quick_compilation")
def test_convolution(case, mapped):
    x, w, problem = case
    f = lambda x, w: convolve(x, w, problem.window, problem.groups)
    close(*mapped_and_looped(f, (x, w), mapped))
    close(*gradients_of_vmap(f, (x, w), mapped))


@pytest.mark.slow
@small
@given(convolutions(), which)
@pytest.mark.usefixtures("quick_compilation")
def test_transposed_convolution(case, mapped):
    x, w, problem = case
    dy = np.random.default_rng(0).normal(size=(len(x), *problem.output, w.shape[-1])).astype(np.float32)
    w = (
        np.random.default_rng(0)
        .normal(size=(*problem.window.size, w.shape[-1] // problem.groups, x.shape[-1]))
        .astype(np.float32)
    )
    f = lambda dy, w: convolve_transposed(dy, w, problem.window, problem.groups, x.shape[1:-1])
    close(*mapped_and_looped(f, (dy, w), mapped))

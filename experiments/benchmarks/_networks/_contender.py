"""A network built in a framework. The JAX frameworks use the same optimizer and training step."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from experiments.benchmarks._networks._layers import Network
from experiments.benchmarks._tasks import Task

# Too small to overfit the single batch. Overfitting leads to denormal gradients, which only some frameworks flush.
LEARNING_RATE = 1e-4
MOMENTUM = 0.9


class Model(NamedTuple):
    """A network in a JAX framework as pure functions.

    `init` maps a key to (params, state), and `apply` (params, state, image, *, train) to (logits, state).
    """

    init: Callable[[jax.Array], tuple[Any, Any]]
    apply: Callable[..., tuple[jax.Array, Any]]
    channels_first: bool = False


class Contender(NamedTuple):
    """A network built in a framework. Both functions have their own data and block until their result is ready.

    `train` runs one training step and returns the loss. `infer` returns the logits in evaluation mode.
    """

    parameters: int
    train: Callable[[], Any]
    infer: Callable[[], Any] | None


def random_batch(net: Network | Task, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images, channels last, and labels."""
    rng = np.random.default_rng(seed)
    classes, spatial = (net.classes, net.shape[:-1] if net.dense else ()) if isinstance(net, Task) else (10, ())
    image = rng.normal(size=(net.batch, *net.shape)).astype(np.float32)
    return image, rng.integers(0, classes, (net.batch, *spatial))


def optimizer() -> optax.GradientTransformation:
    return optax.sgd(LEARNING_RATE, MOMENTUM)


def stateful(step: Callable, state: Any, batch: Any) -> Callable[[], jax.Array]:
    """Wrap `step`, (state, batch) -> (state, loss), as a function without arguments that stores the state."""

    def train():
        nonlocal state
        state, loss = step(state, batch)
        return loss.block_until_ready()  # all results of a program are ready at the same time

    return train


def sgd_step(loss_fn: Callable) -> Callable:
    """A training step for a loss function (params, state, batch) -> (loss, state)."""

    @functools.partial(jax.jit, donate_argnums=0)
    def step(train_state, batch):
        params, state, opt_state = train_state
        (loss, state), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params, state, batch)
        updates, opt_state = optimizer().update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), loss

    return step


def mean_loss(logits: jax.Array, label: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()


def copy_arrays(tree: Any) -> Any:
    """Copy arrays, because the first training step donates the memory of its arguments."""
    return jax.tree.map(lambda leaf: jax.device_put(np.array(leaf)) if isinstance(leaf, jax.Array) else leaf, tree)


def parameter_count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))

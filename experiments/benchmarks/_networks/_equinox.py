"""The networks in Equinox, with channels first."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks._networks import _layers
from experiments.benchmarks._networks._contender import (
    Contender,
    Model,
    copy_arrays,
    mean_loss,
    optimizer,
    parameter_count,
    random_batch,
    stateful,
)


def _equinox_init(net: _layers.Network) -> Callable[[jax.Array], tuple[Any, Any]]:
    """The function key -> (module, state)."""
    import equinox as eqx
    from equinox import nn

    class Sum(nn.StatefulLayer):
        branch: nn.Sequential
        shortcut: nn.Sequential

        def __call__(self, x, state, *, key=None):
            y, state = self.branch(x, state)
            x, state = self.shortcut(x, state)
            return y + x, state

    class ChannelNorm(eqx.Module):
        norm: nn.LayerNorm

        def __call__(self, x, *, key=None):
            return jax.vmap(jax.vmap(self.norm, 1, 1), 1, 1)(x)

    def build(layers, shape, key):
        built = []
        for layer, layer_key in zip(layers, jax.random.split(key, len(layers)), strict=True):
            built.append(layer_of(layer, shape, layer_key))
            shape = _layers.output_shape(layer, shape)
        return nn.Sequential(built)

    def layer_of(layer, shape, key):
        channels = shape[-1]
        match layer:
            case _layers.Conv(features, size, stride, groups, bias):
                padding = layer.padding
                return nn.Conv2d(channels, features, size, stride, padding, groups=groups, use_bias=bias, key=key)
            case _layers.Norm():
                return nn.BatchNorm(channels, axis_name="batch", momentum=0.9, mode="batch")
            case _layers.LayerNorm():
                return ChannelNorm(nn.LayerNorm(channels))
            case _layers.Relu():
                return nn.Lambda(jax.nn.relu)
            case _layers.Gelu():
                return nn.Lambda(functools.partial(jax.nn.gelu, approximate=False))
            case _layers.MaxPool(size, stride, padding):
                return nn.MaxPool2d(size, stride, padding)
            case _layers.GlobalAvgPool():
                return nn.Lambda(lambda x: x.mean((1, 2)))
            case _layers.Flatten():
                return nn.Lambda(jnp.ravel)
            case _layers.Dense(features):
                if len(shape) > 1:
                    return nn.Conv2d(channels, features, 1, key=key)
                return nn.Linear(channels, features, key=key)
            case _layers.Residual(branch, shortcut):
                branch_key, shortcut_key = jax.random.split(key)
                return Sum(build(branch, shape, branch_key), build(shortcut, shape, shortcut_key))

    return functools.partial(nn.make_with_state(build), net.layers, net.shape)


def _equinox_forward(model: Any, state: Any, image: jax.Array) -> tuple[jax.Array, Any]:
    """The logits of images with channels first, and the new state."""
    return jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(image, state)


def equinox_model(net: _layers.Network) -> Model:
    """The arrays of the module are `params`. Its other parts are the same for all keys."""
    import equinox as eqx

    create = _equinox_init(net)
    _, others = eqx.partition(create(jax.random.key(0))[0], eqx.is_inexact_array)

    def init(key):
        module, state = create(key)
        return eqx.filter(module, eqx.is_inexact_array), state

    def apply(params, state, image, *, train):
        module = eqx.combine(params, others)
        return _equinox_forward(module if train else eqx.nn.inference_mode(module), state, image)

    return Model(init, apply, channels_first=True)


def create(net: _layers.Network) -> Contender:
    import equinox as eqx
    from equinox import nn

    image, label = random_batch(net)
    batch = jnp.asarray(image.transpose(0, 3, 1, 2)), jnp.asarray(label)
    model, state = _equinox_init(net)(jax.random.key(0))

    @functools.partial(eqx.filter_value_and_grad, has_aux=True)
    def loss_fn(model, state, batch):
        image, label = batch
        logits, state = _equinox_forward(model, state, image)
        return mean_loss(logits, label), state

    @eqx.filter_jit(donate="all-except-first")
    def step(batch, train_state):
        model, state, opt_state = train_state
        (loss, state), gradient = loss_fn(model, state, batch)
        updates, opt_state = optimizer().update(gradient, opt_state, eqx.filter(model, eqx.is_inexact_array))
        return (eqx.apply_updates(model, updates), state, opt_state), loss

    logits = eqx.filter_jit(lambda model, state, image: _equinox_forward(model, state, image)[0])
    params = eqx.filter(model, eqx.is_inexact_array)
    eval_args = copy_arrays((nn.inference_mode(model), state))
    return Contender(
        parameter_count(params),
        stateful(lambda train_state, batch: step(batch, train_state), (model, state, optimizer().init(params)), batch),
        lambda: logits(*eval_args, batch[0]).block_until_ready(),
    )

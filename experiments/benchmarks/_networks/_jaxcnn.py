"""The networks in jaxcnn."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import jaxcnn
from experiments.benchmarks._networks import _layers
from experiments.benchmarks._networks._contender import (
    Contender,
    Model,
    copy_arrays,
    optimizer,
    parameter_count,
    random_batch,
    stateful,
)
from experiments.benchmarks._tasks import Task


def jaxcnn_parts(
    net: _layers.Network | Task,
) -> tuple[jaxcnn.Layer, optax.GradientTransformation, dict[str, jax.Array]]:
    """The model in jaxcnn, its optimizer and a batch."""

    def build(layers):
        return jaxcnn.serial(*map(layer_of, layers)) if layers else jaxcnn.identity

    def layer_of(layer):
        match layer:
            case _layers.Conv(features, size, stride, groups, bias):
                padding = layer.padding
                return jaxcnn.conv(features, size, stride=stride, padding=padding, groups=groups, bias=bias)
            case _layers.Norm():
                return jaxcnn.batch_norm()
            case _layers.LayerNorm():
                return jaxcnn.layer_norm()
            case _layers.Relu():
                return jax.nn.relu
            case _layers.Gelu():
                return functools.partial(jax.nn.gelu, approximate=False)
            case _layers.Silu():
                return jax.nn.silu
            case _layers.MaxPool(size, stride, padding):
                return jaxcnn.max_pool(size, stride=stride, padding=padding)
            case _layers.AvgPool(size):
                return jaxcnn.avg_pool(size)
            case _layers.GlobalAvgPool():
                return jaxcnn.global_avg_pool
            case _layers.Flatten():
                return jaxcnn.flatten
            case _layers.Dense(features):
                return jaxcnn.dense(features)
            case _layers.Residual(branch, shortcut):
                return jaxcnn.residual(build(branch), build(shortcut))
            case _layers.Append(branch):
                return jaxcnn.concatenate(jaxcnn.identity, build(branch))
            case _layers.Excite(features):
                return jaxcnn.squeeze_excite(features=features, activation=jax.nn.silu)

    image, label = map(jnp.asarray, random_batch(net))
    model = net.model() if isinstance(net, Task) else build(net.layers)
    model = model if net.dtype == "float32" else jaxcnn.cast(model, net.dtype)
    return model, optimizer(), {"image": image, "label": label}


def jaxcnn_model(net: _layers.Network) -> Model:
    layer, _, _ = jaxcnn_parts(net)
    image = jax.ShapeDtypeStruct((1, *net.shape), jnp.float32)
    return Model(lambda key: layer.init(key, image), layer.apply)


class Training(NamedTuple):
    """A training setup in jaxcnn. `step` donates its state, so every caller creates its own state."""

    model: jaxcnn.Layer
    batch: dict[str, jax.Array]
    create: Callable[[], jaxcnn.train.TrainState]
    step: Callable[..., Any]


def jaxcnn_training(net: _layers.Network | Task) -> Training:
    model, optimizer, batch = jaxcnn_parts(net)
    create = lambda: jaxcnn.train.TrainState.create(model, optimizer, jax.random.key(0), batch["image"])
    return Training(model, batch, create, jaxcnn.train.make_step(jaxcnn.cross_entropy(model), optimizer))


def create(net: _layers.Network | Task) -> Contender:
    model, batch, create, step = jaxcnn_training(net)
    train_state = create()

    def step_with_loss(train_state, batch):
        train_state, metrics = step(train_state, batch)
        return train_state, metrics["loss"]

    @jaxcnn.jit
    def logits(params, state, image):
        return model.apply(params, state, image, train=False)[0]

    params, state = copy_arrays((train_state.params, train_state.state))
    return Contender(
        parameter_count(params),
        stateful(step_with_loss, train_state, batch),
        lambda: logits(params, state, batch["image"]).block_until_ready(),
    )

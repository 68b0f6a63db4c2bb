"""The networks in stax."""

import jax
import jax.numpy as jnp

from experiments.benchmarks._networks import _layers
from experiments.benchmarks._networks._contender import (
    Contender,
    copy_arrays,
    mean_loss,
    optimizer,
    parameter_count,
    random_batch,
    sgd_step,
    stateful,
)


def create(net: _layers.Network) -> Contender | None:
    from jax.example_libraries import stax

    if any(
        isinstance(part, _layers.LayerNorm) or (isinstance(part, _layers.Conv) and part.groups > 1)
        for part in _layers.flattened(net.layers)
    ):
        return None

    def build(layers):
        return stax.serial(*map(layer_of, layers)) if layers else stax.Identity

    def without_bias(layer):
        init, apply = layer

        def init_kernel(key, shape):
            shape, (kernel, _) = init(key, shape)
            return shape, kernel

        return init_kernel, lambda kernel, x, **rest: apply((kernel, 0.0), x, **rest)

    def layer_of(layer):
        match layer:
            case _layers.Conv(features, size, stride, bias=bias):
                conv = stax.Conv(features, (size, size), (stride, stride), ((layer.padding,) * 2,) * 2)
                return conv if bias else without_bias(conv)
            case _layers.Norm():
                return stax.BatchNorm()
            case _layers.Relu():
                return stax.Relu
            case _layers.MaxPool(size, stride, padding):
                return stax.MaxPool((size, size), (stride, stride), "SAME" if padding else "VALID")
            case _layers.GlobalAvgPool():
                return (lambda key, shape: ((shape[0], shape[-1]), ())), (lambda params, x, **rest: x.mean((1, 2)))
            case _layers.Flatten():
                return stax.Flatten
            case _layers.Dense(features):
                return stax.Dense(features)
            case _layers.Residual(branch, shortcut):
                return stax.serial(stax.FanOut(2), stax.parallel(build(branch), build(shortcut)), stax.FanInSum)

    batch = tuple(map(jnp.asarray, random_batch(net)))
    init, apply = build(net.layers)
    _, params = init(jax.random.key(0), batch[0].shape)

    def loss_fn(params, state, batch):
        image, label = batch
        return mean_loss(apply(params, image), label), state

    eval_params = copy_arrays(params)
    logits = jax.jit(apply)
    return Contender(
        parameter_count(params),
        stateful(sgd_step(loss_fn), (params, (), optimizer().init(params)), batch),
        None
        if _layers.Norm() in _layers.flattened(net.layers)
        else lambda: logits(eval_params, batch[0]).block_until_ready(),
    )

"""The networks in Flax."""

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
    sgd_step,
    stateful,
)


def flax_model(net: _layers.Network) -> Model:
    from flax import linen as nn

    class Net(nn.Module):
        layers: tuple[Any, ...]

        @nn.compact
        def __call__(self, x, *, train):
            for layer in self.layers:
                match layer:
                    case _layers.Conv(features, size, stride, groups, bias):
                        window = {"kernel_size": (size, size), "strides": stride, "padding": layer.padding}
                        x = nn.Conv(features, **window, feature_group_count=groups, use_bias=bias, dtype=net.dtype)(x)
                    case _layers.Norm():
                        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=net.dtype)(x)
                    case _layers.LayerNorm():
                        x = nn.LayerNorm(epsilon=1e-5, dtype=net.dtype)(x)
                    case _layers.Relu():
                        x = nn.relu(x)
                    case _layers.Gelu():
                        x = nn.gelu(x, approximate=False)
                    case _layers.Silu():
                        x = nn.silu(x)
                    case _layers.MaxPool(size, stride, padding):
                        x = nn.max_pool(x, (size, size), (stride, stride), ((padding, padding),) * 2)
                    case _layers.AvgPool(size):
                        x = nn.avg_pool(x, (size, size), (size, size))
                    case _layers.GlobalAvgPool():
                        x = x.mean((1, 2))
                    case _layers.Flatten():
                        x = x.reshape(len(x), -1)
                    case _layers.Dense(features):
                        x = nn.Dense(features, dtype=net.dtype)(x)
                    case _layers.Residual(branch, shortcut):
                        y = Net(branch)(x, train=train)
                        x = y + (Net(shortcut)(x, train=train) if shortcut else x)
                    case _layers.Append(branch):
                        x = jnp.concatenate([x, Net(branch)(x, train=train)], -1)
                    case _layers.Excite(features):
                        y = nn.silu(nn.Dense(features, dtype=net.dtype)(x.mean((1, 2))))
                        x = x * nn.sigmoid(nn.Dense(x.shape[-1], dtype=net.dtype)(y))[:, None, None]
            return x

    module = Net(net.layers)

    def init(key):
        variables = module.init(key, jnp.zeros((1, *net.shape)), train=False)
        return variables["params"], variables.get("batch_stats", {})

    def apply(params, stats, image, *, train):
        variables = {"params": params, "batch_stats": stats}
        if not train:
            return module.apply(variables, image, train=False).astype(jnp.float32), stats
        logits, changed = module.apply(variables, image, train=True, mutable=["batch_stats"])
        return logits.astype(jnp.float32), changed.get("batch_stats", {})

    return Model(init, apply)


def create(net: _layers.Network) -> Contender:
    model = flax_model(net)
    batch = tuple(map(jnp.asarray, random_batch(net)))
    params, stats = jax.jit(model.init)(jax.random.key(0))

    def loss_fn(params, stats, batch):
        image, label = batch
        logits, stats = model.apply(params, stats, image, train=True)
        return mean_loss(logits, label), stats

    logits = jax.jit(lambda params, stats, image: model.apply(params, stats, image, train=False)[0])
    eval_args = copy_arrays((params, stats))
    return Contender(
        parameter_count(params),
        stateful(sgd_step(loss_fn), (params, stats, optimizer().init(params)), batch),
        lambda: logits(*eval_args, batch[0]).block_until_ready(),
    )

"""The networks of the benchmarks: framework-independent descriptions and a builder for each framework.

All frameworks do the same work: the same layers on the same shapes, the same number of parameters, cross entropy, and
SGD with momentum. In bfloat16, parameters and losses stay float32: `cast` in jaxcnn, `dtype=` in Flax, autocast in
PyTorch. Otherwise the code of each framework is idiomatic. PyTorch and Equinox use channels
first by default, the others channels last. Only jaxcnn sets compiler options. `Silu`, `AvgPool`, `Append` and `Excite`
are for the networks of `compilation`, which Equinox and stax do not build. Differences:

    stax has no grouped convolution and no layer norm. Networks that need one are not built.
    The batch norm of stax has no running statistics. Its training step does less, and inference is not measured.
    stax pads max pooling only by "SAME". At stride 2 this pads only at the end. The output shapes are equal.
"""

import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcnn
from experiments.benchmarks import _measure
from experiments.benchmarks._tasks import Task
from jaxcnn.models._efficientnet import V1 as EFFICIENTNET_STAGES

# Too small to overfit the single batch. Overfitting leads to denormal gradients, which only some frameworks flush.
LEARNING_RATE = 1e-4
MOMENTUM = 0.9


@dataclass(frozen=True)
class Conv:
    features: int
    size: int = 3
    stride: int = 1
    groups: int = 1
    bias: bool = True
    valid: bool = False

    @property
    def padding(self) -> int:
        return 0 if self.valid else (self.size - 1) // 2


@dataclass(frozen=True)
class Norm:
    """Batch norm."""


@dataclass(frozen=True)
class LayerNorm:
    """Layer norm over the channels."""


@dataclass(frozen=True)
class Relu:
    pass


@dataclass(frozen=True)
class Gelu:
    """Exact GELU, not the tanh approximation."""


@dataclass(frozen=True)
class Silu:
    pass


@dataclass(frozen=True)
class MaxPool:
    size: int
    stride: int
    padding: int = 0


@dataclass(frozen=True)
class AvgPool:
    """Average pooling without padding and with windows that do not overlap."""

    size: int


@dataclass(frozen=True)
class GlobalAvgPool:
    pass


@dataclass(frozen=True)
class Flatten:
    pass


@dataclass(frozen=True)
class Dense:
    """Dense layer over the channels. Before `Flatten` or `GlobalAvgPool` it equals a 1x1 convolution."""

    features: int


@dataclass(frozen=True)
class Residual:
    branch: tuple[Any, ...]
    shortcut: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Append:
    """Concatenate the channels of the input and of the branch, as DenseNet does."""

    branch: tuple[Any, ...]


@dataclass(frozen=True)
class Excite:
    """Squeeze-and-excitation with a hidden layer of `features` units and SiLU."""

    features: int


class Network(NamedTuple):
    shape: tuple[int, int, int]  # height, width, channels
    batch: int
    layers: tuple[Any, ...]
    dtype: str = "float32"  # of the layers; "bfloat16" in jaxcnn, Flax and PyTorch


def _conv_norm(features: int, size: int = 3, stride: int = 1, groups: int = 1) -> tuple[Any, ...]:
    return Conv(features, size, stride, groups, bias=False), Norm()


def _basic(features: int, stride: int, widens: bool) -> tuple[Any, ...]:
    """The block of ResNet-18 and -20."""
    branch = (*_conv_norm(features, stride=stride), Relu(), *_conv_norm(features))
    return Residual(branch, _conv_norm(features, 1, stride) if widens else ()), Relu()


def _bottleneck(features: int, stride: int, widens: bool) -> tuple[Any, ...]:
    """The block of ResNet-50."""
    narrow = (*_conv_norm(features, 1), Relu(), *_conv_norm(features, stride=stride), Relu())
    branch = (*narrow, *_conv_norm(4 * features, 1))
    return Residual(branch, _conv_norm(4 * features, 1, stride) if widens else ()), Relu()


def _resnet(
    widths: tuple[int, ...], counts: tuple[int, ...], block: Callable = _basic, expansion: int = 1, classes: int = 10
) -> tuple[Any, ...]:
    """The stages, pooling and classifier. The input must have as many channels as `widths[0]`."""
    layers, channels = [], widths[0]
    for stage, (width, count) in enumerate(zip(widths, counts, strict=True)):
        for i in range(count):
            layers += block(width, 2 if stage and i == 0 else 1, channels != expansion * width)
            channels = expansion * width
    return (*layers, GlobalAvgPool(), Dense(classes))


def _separable(channels: int, features: int, stride: int) -> tuple[Any, ...]:
    """The block of MobileNet: a depthwise and a pointwise convolution."""
    return *_conv_norm(channels, stride=stride, groups=channels), Relu(), *_conv_norm(features, 1), Relu()


def _convnext(width: int, count: int = 3) -> tuple[Any, ...]:
    """ConvNeXt blocks."""
    branch = (Conv(width, 7, groups=width), LayerNorm(), Dense(4 * width), Gelu(), Dense(width))
    return (Residual(branch),) * count


def _vgg(*widths: int) -> tuple[Any, ...]:
    return sum(((*_conv_norm(width), Relu()) * 2 + (MaxPool(2, 2),) for width in widths), ())


NETWORKS = {
    "lenet5": Network(
        (28, 28, 1),
        128,
        (
            *(Conv(6, 5), Relu(), MaxPool(2, 2)),
            *(Conv(16, 5, valid=True), Relu(), MaxPool(2, 2), Flatten()),
            *(Dense(120), Relu(), Dense(84), Relu(), Dense(10)),
        ),
    ),
    "small": Network(
        (28, 28, 1),
        128,
        (Conv(32), Relu(), MaxPool(2, 2), Conv(64), Relu(), MaxPool(2, 2), Flatten(), Dense(10)),
    ),
    "resnet20": Network((32, 32, 3), 128, (*_conv_norm(16), Relu(), *_resnet((16, 32, 64), (3, 3, 3)))),
    "mobilenet": Network(
        (32, 32, 3),
        64,
        (
            *(*_conv_norm(32), Relu()),
            *_separable(32, 64, 1),
            *_separable(64, 128, 2),
            *_separable(128, 128, 1),
            *_separable(128, 256, 2),
            *_separable(256, 256, 1),
            *(GlobalAvgPool(), Dense(10)),
        ),
    ),
    "convnext": Network(
        (32, 32, 3),
        64,
        (
            *(Conv(64, 2, 2), LayerNorm(), *_convnext(64)),
            *(LayerNorm(), Conv(128, 2, 2), *_convnext(128)),
            *(GlobalAvgPool(), Dense(10)),
        ),
    ),
    "vgg": Network((32, 32, 3), 64, (*_vgg(64, 128, 256), Flatten(), Dense(256), Relu(), Dense(10))),
    "resnet18": Network(
        (64, 64, 3),
        16,
        (*_conv_norm(64, 7, 2), Relu(), MaxPool(3, 2, 1), *_resnet((64, 128, 256, 512), (2, 2, 2, 2))),
    ),
}


def resnet50(batch: int) -> Network:
    stages = _resnet((64, 128, 256, 512), (3, 4, 6, 3), _bottleneck, expansion=4, classes=1000)
    return Network((224, 224, 3), batch, (*_conv_norm(64, 7, 2), Relu(), MaxPool(3, 2, 1), *stages))


def convnext_tiny(batch: int) -> Network:
    """Without the scale of each residual branch."""
    first, *stages = zip((96, 192, 384, 768), (3, 3, 9, 3), strict=True)
    layers = (Conv(96, 4, 4), LayerNorm(), *_convnext(*first))
    for width, count in stages:
        layers += (LayerNorm(), Conv(width, 2, 2), *_convnext(width, count))
    return Network((224, 224, 3), batch, (*layers, GlobalAvgPool(), LayerNorm(), Dense(1000)))


def densenet121(batch: int) -> Network:
    def norm_conv(features, size):
        return Norm(), Relu(), Conv(features, size, bias=False)

    layers, channels = (*_conv_norm(64, 7, 2), Relu(), MaxPool(3, 2, 1)), 64
    for stage, count in enumerate((6, 12, 24, 16)):
        if stage:
            channels //= 2
            layers += (*norm_conv(channels, 1), AvgPool(2))
        layers += (Append((*norm_conv(128, 1), *norm_conv(32, 3))),) * count
        channels += 32 * count
    return Network((224, 224, 3), batch, (*layers, Norm(), Relu(), GlobalAvgPool(), Dense(1000)))


def efficientnet_b0(batch: int) -> Network:
    """Without dropout and stochastic depth."""
    layers, channels = (*_conv_norm(32, 3, 2), Silu()), 32
    for expansion, size, first_stride, features, count in EFFICIENTNET_STAGES:
        for stride in (first_stride, *[1] * (count - 1)):
            wide = expansion * channels
            expand = (*_conv_norm(wide, 1), Silu()) if expansion > 1 else ()
            branch = (*expand, *_conv_norm(wide, size, stride, wide), Silu(), Excite(channels // 4))
            branch = (*branch, *_conv_norm(features, 1))
            layers += (Residual(branch),) if stride == 1 and channels == features else branch
            channels = features
    return Network((224, 224, 3), batch, (*layers, *_conv_norm(1280, 1), Silu(), GlobalAvgPool(), Dense(1000)))


def widen(layers: tuple[Any, ...], factor: int) -> tuple[Any, ...]:
    """Multiply the channels of all layers by `factor`, except for the classifier at the end."""

    def widen_layer(layer):
        match layer:
            case Conv(features, groups=groups):
                return replace(layer, features=factor * features, groups=groups if groups == 1 else factor * groups)
            case Dense(features):
                return Dense(factor * features)
            case Residual(branch, shortcut):
                return Residual(tuple(map(widen_layer, branch)), tuple(map(widen_layer, shortcut)))
        return layer

    return *map(widen_layer, layers[:-1]), layers[-1]


def _flatten(layers: Iterable[Any]) -> Iterator[Any]:
    """All layers. The layers inside a residual layer replace it."""
    for layer in layers:
        if isinstance(layer, Residual):
            yield from _flatten((*layer.branch, *layer.shortcut))
        else:
            yield layer


def _output_shape(layer: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The output shape of a layer for an input shape (*spatial, C), without the batch dimension."""
    *spatial, channels = shape
    match layer:
        case Conv() | MaxPool():
            features = layer.features if isinstance(layer, Conv) else channels
            return (*((n + 2 * layer.padding - layer.size) // layer.stride + 1 for n in spatial), features)
        case AvgPool(size):
            return (*(n // size for n in spatial), channels)
        case GlobalAvgPool():
            return (channels,)
        case Flatten():
            return (math.prod(shape),)
        case Dense():
            return (*spatial, layer.features)
        case Residual():
            return functools.reduce(lambda shape, inner: _output_shape(inner, shape), layer.branch, shape)
        case Append():
            *_, added = functools.reduce(lambda shape, inner: _output_shape(inner, shape), layer.branch, shape)
            return (*spatial, channels + added)
    return shape


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


def _optimizer() -> optax.GradientTransformation:
    return optax.sgd(LEARNING_RATE, MOMENTUM)


def _stateful(step: Callable, state: Any, batch: Any) -> Callable[[], jax.Array]:
    """Wrap `step`, (state, batch) -> (state, loss), as a function without arguments that stores the state."""

    def train():
        nonlocal state
        state, loss = step(state, batch)
        return loss.block_until_ready()  # all results of a program are ready at the same time

    return train


def _sgd_step(loss_fn: Callable) -> Callable:
    """A training step for a loss function (params, state, batch) -> (loss, state)."""

    @functools.partial(jax.jit, donate_argnums=0)
    def step(train_state, batch):
        params, state, opt_state = train_state
        (loss, state), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params, state, batch)
        updates, opt_state = _optimizer().update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), loss

    return step


def mean_loss(logits: jax.Array, label: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()


def _copy_arrays(tree: Any) -> Any:
    """Copy arrays, because the first training step donates the memory of its arguments."""
    return jax.tree.map(lambda leaf: jax.device_put(np.array(leaf)) if isinstance(leaf, jax.Array) else leaf, tree)


def parameter_count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def jaxcnn_parts(net: Network | Task) -> tuple[jaxcnn.Layer, optax.GradientTransformation, dict[str, jax.Array]]:
    """The model in jaxcnn, its optimizer and a batch."""

    def build(layers):
        return jaxcnn.serial(*map(layer_of, layers)) if layers else jaxcnn.identity

    def layer_of(layer):
        match layer:
            case Conv(features, size, stride, groups, bias):
                padding = layer.padding
                return jaxcnn.conv(features, size, stride=stride, padding=padding, groups=groups, bias=bias)
            case Norm():
                return jaxcnn.batch_norm()
            case LayerNorm():
                return jaxcnn.layer_norm()
            case Relu():
                return jax.nn.relu
            case Gelu():
                return functools.partial(jax.nn.gelu, approximate=False)
            case Silu():
                return jax.nn.silu
            case MaxPool(size, stride, padding):
                return jaxcnn.max_pool(size, stride=stride, padding=padding)
            case AvgPool(size):
                return jaxcnn.avg_pool(size)
            case GlobalAvgPool():
                return jaxcnn.global_avg_pool
            case Flatten():
                return jaxcnn.flatten
            case Dense(features):
                return jaxcnn.dense(features)
            case Residual(branch, shortcut):
                return jaxcnn.residual(build(branch), build(shortcut))
            case Append(branch):
                return jaxcnn.concatenate(jaxcnn.identity, build(branch))
            case Excite(features):
                return jaxcnn.squeeze_excite(features=features, activation=jax.nn.silu)

    image, label = map(jnp.asarray, random_batch(net))
    model = net.model() if isinstance(net, Task) else build(net.layers)
    model = model if net.dtype == "float32" else jaxcnn.cast(model, net.dtype)
    return model, _optimizer(), {"image": image, "label": label}


def jaxcnn_model(net: Network) -> Model:
    layer, _, _ = jaxcnn_parts(net)
    image = jax.ShapeDtypeStruct((1, *net.shape), jnp.float32)
    return Model(lambda key: layer.init(key, image), layer.apply)


class Training(NamedTuple):
    """A training setup in jaxcnn. `step` donates its state, so every caller creates its own state."""

    model: jaxcnn.Layer
    batch: dict[str, jax.Array]
    create: Callable[[], jaxcnn.train.TrainState]
    step: Callable[..., Any]


def jaxcnn_training(net: Network | Task) -> Training:
    model, optimizer, batch = jaxcnn_parts(net)
    create = lambda: jaxcnn.train.TrainState.create(model, optimizer, jax.random.key(0), batch["image"])
    return Training(model, batch, create, jaxcnn.train.make_step(jaxcnn.cross_entropy(model), optimizer))


def _jaxcnn(net: Network | Task) -> Contender:
    model, batch, create, step = jaxcnn_training(net)
    train_state = create()

    def step_with_loss(train_state, batch):
        train_state, metrics = step(train_state, batch)
        return train_state, metrics["loss"]

    @jaxcnn.jit
    def logits(params, state, image):
        return model.apply(params, state, image, train=False)[0]

    params, state = _copy_arrays((train_state.params, train_state.state))
    return Contender(
        parameter_count(params),
        _stateful(step_with_loss, train_state, batch),
        lambda: logits(params, state, batch["image"]).block_until_ready(),
    )


def flax_model(net: Network) -> Model:
    from flax import linen as nn

    class Net(nn.Module):
        layers: tuple[Any, ...]

        @nn.compact
        def __call__(self, x, *, train):
            for layer in self.layers:
                match layer:
                    case Conv(features, size, stride, groups, bias):
                        window = {"kernel_size": (size, size), "strides": stride, "padding": layer.padding}
                        x = nn.Conv(features, **window, feature_group_count=groups, use_bias=bias, dtype=net.dtype)(x)
                    case Norm():
                        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=net.dtype)(x)
                    case LayerNorm():
                        x = nn.LayerNorm(epsilon=1e-5, dtype=net.dtype)(x)
                    case Relu():
                        x = nn.relu(x)
                    case Gelu():
                        x = nn.gelu(x, approximate=False)
                    case Silu():
                        x = nn.silu(x)
                    case MaxPool(size, stride, padding):
                        x = nn.max_pool(x, (size, size), (stride, stride), ((padding, padding),) * 2)
                    case AvgPool(size):
                        x = nn.avg_pool(x, (size, size), (size, size))
                    case GlobalAvgPool():
                        x = x.mean((1, 2))
                    case Flatten():
                        x = x.reshape(len(x), -1)
                    case Dense(features):
                        x = nn.Dense(features, dtype=net.dtype)(x)
                    case Residual(branch, shortcut):
                        y = Net(branch)(x, train=train)
                        x = y + (Net(shortcut)(x, train=train) if shortcut else x)
                    case Append(branch):
                        x = jnp.concatenate([x, Net(branch)(x, train=train)], -1)
                    case Excite(features):
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


def _flax(net: Network) -> Contender:
    model = flax_model(net)
    batch = tuple(map(jnp.asarray, random_batch(net)))
    params, stats = jax.jit(model.init)(jax.random.key(0))

    def loss_fn(params, stats, batch):
        image, label = batch
        logits, stats = model.apply(params, stats, image, train=True)
        return mean_loss(logits, label), stats

    logits = jax.jit(lambda params, stats, image: model.apply(params, stats, image, train=False)[0])
    eval_args = _copy_arrays((params, stats))
    return Contender(
        parameter_count(params),
        _stateful(_sgd_step(loss_fn), (params, stats, _optimizer().init(params)), batch),
        lambda: logits(*eval_args, batch[0]).block_until_ready(),
    )


def _equinox_init(net: Network) -> Callable[[jax.Array], tuple[Any, Any]]:
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
            shape = _output_shape(layer, shape)
        return nn.Sequential(built)

    def layer_of(layer, shape, key):
        channels = shape[-1]
        match layer:
            case Conv(features, size, stride, groups, bias):
                padding = layer.padding
                return nn.Conv2d(channels, features, size, stride, padding, groups=groups, use_bias=bias, key=key)
            case Norm():
                return nn.BatchNorm(channels, axis_name="batch", momentum=0.9, mode="batch")
            case LayerNorm():
                return ChannelNorm(nn.LayerNorm(channels))
            case Relu():
                return nn.Lambda(jax.nn.relu)
            case Gelu():
                return nn.Lambda(functools.partial(jax.nn.gelu, approximate=False))
            case MaxPool(size, stride, padding):
                return nn.MaxPool2d(size, stride, padding)
            case GlobalAvgPool():
                return nn.Lambda(lambda x: x.mean((1, 2)))
            case Flatten():
                return nn.Lambda(jnp.ravel)
            case Dense(features):
                if len(shape) > 1:
                    return nn.Conv2d(channels, features, 1, key=key)
                return nn.Linear(channels, features, key=key)
            case Residual(branch, shortcut):
                branch_key, shortcut_key = jax.random.split(key)
                return Sum(build(branch, shape, branch_key), build(shortcut, shape, shortcut_key))

    return functools.partial(nn.make_with_state(build), net.layers, net.shape)


def _equinox_forward(model: Any, state: Any, image: jax.Array) -> tuple[jax.Array, Any]:
    """The logits of images with channels first, and the new state."""
    return jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(image, state)


def equinox_model(net: Network) -> Model:
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


def _equinox(net: Network) -> Contender:
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
        updates, opt_state = _optimizer().update(gradient, opt_state, eqx.filter(model, eqx.is_inexact_array))
        return (eqx.apply_updates(model, updates), state, opt_state), loss

    logits = eqx.filter_jit(lambda model, state, image: _equinox_forward(model, state, image)[0])
    params = eqx.filter(model, eqx.is_inexact_array)
    eval_args = _copy_arrays((nn.inference_mode(model), state))
    return Contender(
        parameter_count(params),
        _stateful(
            lambda train_state, batch: step(batch, train_state), (model, state, _optimizer().init(params)), batch
        ),
        lambda: logits(*eval_args, batch[0]).block_until_ready(),
    )


def _stax(net: Network) -> Contender | None:
    from jax.example_libraries import stax

    if any(
        isinstance(part, LayerNorm) or (isinstance(part, Conv) and part.groups > 1) for part in _flatten(net.layers)
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
            case Conv(features, size, stride, bias=bias):
                conv = stax.Conv(features, (size, size), (stride, stride), ((layer.padding,) * 2,) * 2)
                return conv if bias else without_bias(conv)
            case Norm():
                return stax.BatchNorm()
            case Relu():
                return stax.Relu
            case MaxPool(size, stride, padding):
                return stax.MaxPool((size, size), (stride, stride), "SAME" if padding else "VALID")
            case GlobalAvgPool():
                return (lambda key, shape: ((shape[0], shape[-1]), ())), (lambda params, x, **rest: x.mean((1, 2)))
            case Flatten():
                return stax.Flatten
            case Dense(features):
                return stax.Dense(features)
            case Residual(branch, shortcut):
                return stax.serial(stax.FanOut(2), stax.parallel(build(branch), build(shortcut)), stax.FanInSum)

    batch = tuple(map(jnp.asarray, random_batch(net)))
    init, apply = build(net.layers)
    _, params = init(jax.random.key(0), batch[0].shape)

    def loss_fn(params, state, batch):
        image, label = batch
        return mean_loss(apply(params, image), label), state

    eval_params = _copy_arrays(params)
    logits = jax.jit(apply)
    return Contender(
        parameter_count(params),
        _stateful(_sgd_step(loss_fn), (params, (), _optimizer().init(params)), batch),
        None if Norm() in _flatten(net.layers) else lambda: logits(eval_params, batch[0]).block_until_ready(),
    )


def torch_module(net: Network | Task) -> Any:
    import torch
    from torch import nn

    class Sum(nn.Module):
        def __init__(self, branch, shortcut):
            super().__init__()
            self.branch, self.shortcut = branch, shortcut

        def forward(self, x):
            return self.branch(x) + self.shortcut(x)

    class Concatenated(nn.Module):
        def __init__(self, branch):
            super().__init__()
            self.branch = branch

        def forward(self, x):
            return torch.cat([x, self.branch(x)], 1)

    class Excited(nn.Module):
        def __init__(self, channels, features):
            super().__init__()
            conv = nn.Conv2d
            pool = nn.AdaptiveAvgPool2d(1)
            self.weights = nn.Sequential(pool, conv(channels, features, 1), nn.SiLU(), conv(features, channels, 1))

        def forward(self, x):
            return x * self.weights(x).sigmoid()

    class OverChannels(nn.Module):
        """Apply a layer for (N, H, W, C) to (N, C, H, W) by permuting views, as in the official ConvNeXt code."""

        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class Mean(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    def build(layers, shape):
        built = []
        for layer in layers:
            built.append(layer_of(layer, shape))
            shape = _output_shape(layer, shape)
        return nn.Sequential(*built)

    def layer_of(layer, shape):
        channels = shape[-1]
        match layer:
            case Conv(features, size, stride, groups, bias):
                return nn.Conv2d(channels, features, size, stride, layer.padding, groups=groups, bias=bias)
            case Norm():
                return nn.BatchNorm2d(channels)
            case LayerNorm():
                return OverChannels(nn.LayerNorm(channels))
            case Relu():
                return nn.ReLU(inplace=True)
            case Gelu():
                return nn.GELU()
            case Silu():
                return nn.SiLU(inplace=True)
            case MaxPool(size, stride, padding):
                return nn.MaxPool2d(size, stride, padding)
            case AvgPool(size):
                return nn.AvgPool2d(size)
            case GlobalAvgPool():
                return Mean()
            case Flatten():
                return nn.Flatten()
            case Dense(features):
                dense = nn.Linear(channels, features)
                return dense if len(shape) == 1 else OverChannels(dense)
            case Residual(branch, shortcut):
                return Sum(build(branch, shape), build(shortcut, shape))
            case Append(branch):
                return Concatenated(build(branch, shape))
            case Excite(features):
                return Excited(channels, features)

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return net.module() if isinstance(net, Task) else build(net.layers, net.shape)


def _torch(net: Network | Task, *, channels_last: bool = False, compiled: bool = False) -> Contender:
    import torch
    from torch import nn

    torch.manual_seed(0)
    device = torch_device()
    last = torch.channels_last_3d if len(net.shape) == 4 else torch.channels_last
    layout = last if channels_last else torch.contiguous_format
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None

    if compiled:
        torch._dynamo.reset()  # all networks share the cache of nn.Sequential.forward, which holds 8 entries

    def create_model():
        module = torch_module(net).to(device, memory_format=layout)
        return torch.compile(module) if compiled else module

    def loss_of(output):
        if isinstance(output, dict):  # of torchvision's segmentation models
            return sum(
                weight * nn.functional.cross_entropy(output[name], label)
                for name, weight in (("out", 1.0), ("aux", 0.3))
            )
        return nn.functional.cross_entropy(output, label)

    image, label = map(torch.from_numpy, random_batch(net))
    image = image.movedim(-1, 1).to(device).contiguous(memory_format=layout)
    label = label.to(device)
    model, eval_model = create_model(), create_model().eval()
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)
    autocast = torch.autocast(device, torch.bfloat16, enabled=net.dtype != "float32")

    def train():
        with autocast:
            loss = loss_of(model(image))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()  # at the end, so that gradients count as memory of the step, as in JAX
        synchronize()
        return loss.detach()

    @torch.inference_mode()
    def infer():
        with autocast:
            logits = eval_model(image)
        synchronize()
        return logits

    return Contender(sum(param.numel() for param in model.parameters()), train, infer)


def torch_device() -> str:
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def _keras(net: Network) -> Contender:
    from experiments.benchmarks._keras import contender

    return contender(net)


_BUILDERS: dict[str, Callable[[Network], Contender | None]] = {
    "jaxcnn": _jaxcnn,
    "torch": _torch,
    "torch channels_last": functools.partial(_torch, channels_last=True),
    "torch compile": functools.partial(_torch, compiled=True),
    "torch compile channels_last": functools.partial(_torch, channels_last=True, compiled=True),
    "flax": _flax,
    "equinox": _equinox,
    "stax": _stax,
    "keras": _keras,  # only for compilation and the start: its calls copy the batch
}
FRAMEWORKS = tuple(dict.fromkeys(name.split()[0] for name in _BUILDERS if name != "keras"))


def create_contender(net: Network | Task, name: str) -> Contender | None:
    """Build a network and initialize its parameters, without running it. None if the framework lacks a layer.

    A `Task` is built in jaxcnn and PyTorch. PyTorch has no channels last for signals.
    """
    if net.dtype != "float32" and name in ("equinox", "stax"):
        return None
    if isinstance(net, Task) and (not name.startswith(("jaxcnn", "torch")) or ("last" in name and len(net.shape) < 3)):
        return None
    return _BUILDERS[name](net)


def installed_frameworks(frameworks: Iterable[str]) -> list[str]:
    """The frameworks that are installed. Prints which are skipped."""
    installed = []
    for framework in frameworks:
        if framework in ("torch", "flax", "equinox") and not _measure.installed(framework):
            print(f"skipping {framework}: not installed")
        else:
            installed.append(framework)
    return installed


def contenders(frameworks: Iterable[str]) -> list[str]:
    """The contenders of the frameworks that work on this machine. Prints why the others are skipped."""
    frameworks = installed_frameworks(frameworks)
    names = [name for framework in frameworks for name in _BUILDERS if name.split()[0] == framework]
    if "torch" in names and (reason := _torch_compile_error()):
        print(f"skipping torch.compile, which fails: {reason}")
        names = [name for name in names if "compile" not in name]
    return names


def build(net: Network | Task, names: Iterable[str]) -> dict[str, Contender]:
    """Build a network in each contender that supports it. Checks the parameter counts and runs one training step."""
    built = {name: contender for name in names if (contender := create_contender(net, name))}
    check(built)
    return built


def check(built: dict[str, Contender]) -> None:
    """Raise an error unless all contenders have the same size and a finite loss after a training step."""
    counts = {name: contender.parameters for name, contender in built.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"the contenders have different parameter counts: {counts}")
    for name, contender in built.items():
        if not math.isfinite(loss := float(contender.train())):
            raise ValueError(f"{name}: the loss of the first step is {loss}, expected a finite value")


def _torch_compile_error() -> str | None:
    """The error message of a minimal torch.compile call, or None if it works."""
    import torch

    try:
        torch.compile(torch.sin)(torch.ones(8, device=torch_device()))
    except Exception as error:
        return str(error).strip().splitlines()[0]
    return None

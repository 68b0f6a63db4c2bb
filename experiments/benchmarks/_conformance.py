"""Values and gradients on the default device against those on the CPU, in the same process, for `gpu`."""

import functools
import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxcnn
from experiments.benchmarks import _networks, vmap
from jaxcnn import as_layer, identity, models
from jaxcnn._jit import backend_options
from tests import layers

TOLERANCES = {"float32": 1e-4, "bfloat16": 3e-2}
# An array near zero, such as the gradient of a bias before a batch norm, only shows the rounding of other arrays. Its
# scale is this fraction of the largest value of all results.
SMALLEST_SCALES = {"float32": 1e-3, "bfloat16": 0.1}


class Case(NamedTuple):
    """`build(dtype)` returns a function of the arguments that computes in this dtype.

    The arguments are float32 and are rounded to the dtype. The expected results are those of `build("float32")` on a
    CPU, for the rounded arguments.
    """

    name: str
    build: Callable[[str], Callable[..., Any]]
    arguments: Callable[[], tuple[Any, ...]]
    dtypes: tuple[str, ...] = tuple(TOLERANCES)


def value_and_gradients(apply: Callable[..., Any], *args: Any) -> dict[str, Any]:
    """Results of `apply(*args)`, a pair (y, others), and the gradients of the sum of y with random weights."""
    y, back, others = jax.vjp(apply, *args, has_aux=True)
    gradients = back(np.random.default_rng(0).normal(size=y.shape).astype(np.float32))
    return {"y": y, "others": others, "gradients": gradients}


def layer_case(name: str) -> Case:
    """A layer of `tests.layers` in training mode, with the key 0."""
    case = layers.BY_NAME[name]

    def build(dtype):
        layer = _in_dtype(case.layer, dtype)
        return lambda params, state, x: value_and_gradients(
            lambda params, x: layer.apply(params, state, x, train=True, key=jax.random.key(0)), params, x
        )

    dtypes = ("float32",) if name in SENSITIVE else tuple(TOLERANCES)
    return Case(f"layer {name}", build, lambda: layers.example(case), dtypes)


def _in_dtype(layer: jaxcnn.Layer, dtype: str) -> jaxcnn.Layer:
    return layer if dtype == "float32" else jaxcnn.cast(layer, dtype)


def loss_case(name: str, loss: Callable[[jaxcnn.Layer], jaxcnn.LossFn], label: np.ndarray) -> Case:
    """A loss of random logits (6, 4) in training."""

    def build(dtype):
        loss_fn = loss(_in_dtype(as_layer(identity), dtype))

        def loss_of_logits(logits):
            value, (_, metrics) = loss_fn({}, {}, {"image": logits, "label": label}, train=True, key=jax.random.key(0))
            return value, metrics

        return jax.value_and_grad(loss_of_logits, has_aux=True)

    return Case(f"loss {name}", build, lambda: (2 * np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32),))


def with_gelu(layers: tuple[Any, ...]) -> tuple[Any, ...]:
    """GELU instead of ReLU. Rounding changes the sign of a few of many inputs, and with it a gradient through ReLU."""

    def replaced(layer):
        match layer:
            case _networks.Relu():
                return _networks.Gelu()
            case _networks.Residual(branch, shortcut):
                return _networks.Residual(with_gelu(branch), with_gelu(shortcut))
        return layer

    return tuple(map(replaced, layers))


def step_cases(name: str, net: _networks.Network) -> list[Case]:
    """A training step of a network. The momentum of SGD after the first step is the gradient.

    In bfloat16 only the loss and the statistics are compared: rounding changes which inputs a max pool selects, and
    with them single gradients.
    """
    net = net._replace(layers=with_gelu(net.layers))

    def build(dtype):
        step = _networks.jaxcnn_training(net._replace(dtype=dtype)).step

        def train(params, state, opt_state, image, label):
            train_state = jaxcnn.train.TrainState(jnp.int32(0), params, state, opt_state, jax.random.key(0))
            new, metrics = step(train_state, {"image": image, "label": label})
            return {"params": new.params, "state": new.state, "momentum": new.opt_state, "metrics": metrics}

        return train

    def build_loss(dtype):
        train = build(dtype)

        def loss_and_state(*args):
            results = train(*args)
            return results["metrics"]["loss"], results["state"]

        return loss_and_state

    def arguments():
        training = _networks.jaxcnn_training(net)
        state = training.create()
        return state.params, state.state, state.opt_state, training.batch["image"], training.batch["label"]

    title = f"training step of {name}"
    return [Case(title, build, arguments, ("float32",)), Case(title, build_loss, arguments, ("bfloat16",))]


def classifier_case(name: str, side: int) -> Case:
    """Logits of a classifier in evaluation mode, and gradients if it is smooth (see `with_gelu`).

    In bfloat16, rounding adds up over its many layers.
    """
    model = getattr(models, name)()

    def build(dtype):
        del dtype  # always float32
        if name not in SMOOTH:
            return lambda params, state, x: model.apply(params, state, x, train=False)[0]
        return lambda params, state, x: value_and_gradients(
            lambda params, x: model.apply(params, state, x, train=False), params, x
        )

    def arguments():
        x = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
        return *jax.jit(model.init)(jax.random.key(0), x), x

    return Case(f"classifier {name}", build, arguments, ("float32",))


# Layers that interpolate at learned coordinates, which bfloat16 stores with few digits: only float32.
SENSITIVE = ("deform_conv", "deform_conv_masked", "grid_sample")
LAYERS = (
    *("conv", "conv1d", "conv3d", "conv_strided", "conv_grouped", "conv_reflect", "conv_circular", "conv_pointwise"),
    *("depthwise_conv", "separable_conv", "conv_transpose", "conv_transpose1d", "conv_transpose3d"),
    *("deform_conv", "deform_conv_masked", "resize", "resize_corners", "resize_nearest", "upsample_linear"),
    *("grid_sample", "crop_and_resize", "roi_align"),
    *("max_pool_overlapping", "max_pool_dilated", "max_pool3d", "max_unpool", "avg_pool", "lp_pool", "blur_pool"),
    *("adaptive_avg_pool", "adaptive_max_pool", "dense", "pixel_shuffle", "batch_norm", "layer_norm", "group_norm"),
    *("instance_norm", "local_response_norm", "prelu", "dropout", "drop_block", "residual", "repeat"),
    *("squeeze_excite", "weight_norm", "weight_standardized", "spectral_norm", "ensemble", "remat"),
)
INTEGERS = np.array([0, 3, 1, 1, 2, 0])
NUMBERS = np.random.default_rng(2).uniform(size=(6, 4)).astype(np.float32)
LOSSES: dict[str, tuple[Callable[[jaxcnn.Layer], jaxcnn.LossFn], np.ndarray]] = {
    "cross_entropy": (functools.partial(jaxcnn.cross_entropy, label_smoothing=0.1), INTEGERS),
    "focal": (functools.partial(jaxcnn.focal, gamma=2.0), INTEGERS),
    "dice": (jaxcnn.dice, NUMBERS),
    "binary_cross_entropy": (jaxcnn.binary_cross_entropy, NUMBERS),
    "mean_squared_error": (jaxcnn.mean_squared_error, NUMBERS),
    "mean_absolute_error": (jaxcnn.mean_absolute_error, NUMBERS),
    "huber": (jaxcnn.huber, NUMBERS),
}
STEPS = ("lenet5", "resnet20", "mobilenet", "convnext")
SMOOTH = ("convnext_tiny", "efficientnet_b0")
CLASSIFIERS = ("resnet18", "convnext_tiny", "efficientnet_b0", "mobilenet_v3_small", "shufflenet_v2_x1_0")
SIDE = 64


def all_cases() -> list[Case]:
    """The slowest to compile first, as all cores compile cases at the same time."""
    nets = {name: _networks.NETWORKS[name]._replace(batch=8) for name in STEPS}
    return [
        *(classifier_case(name, SIDE) for name in CLASSIFIERS),
        *(case for name, net in nets.items() for case in step_cases(name, net)),
        *map(layer_case, LAYERS),
        *(loss_case(name, *options) for name, options in LOSSES.items()),
    ]


def tiny_cases(net: _networks.Network) -> list[Case]:
    return [*step_cases("tiny", net), layer_case("conv"), layer_case("roi_align"), loss_case("dice", *LOSSES["dice"])]


def compare(case: Case, dtype: str) -> dict[str, Any]:
    """The largest difference between the devices, relative to the largest value of an array, and where it is."""
    rounded = jax.tree.map(lambda leaf: _rounded(leaf, dtype), case.arguments())
    found = run(case.build(dtype), rounded, jax.devices()[0], dtype)
    expected = run(case.build("float32"), rounded, jax.devices("cpu")[0], "float32")
    difference, where = largest_difference(found, expected, SMALLEST_SCALES[dtype])
    tolerance = TOLERANCES[dtype]
    passed = difference <= tolerance  # false if not finite
    return {"dtype": dtype, "difference": difference, "where": where, "tolerance": tolerance, "passed": passed}


def _rounded(leaf: Any, dtype: str) -> np.ndarray:
    leaf = np.asarray(leaf)
    return np.asarray(leaf.astype(jnp.dtype(dtype)), np.float32) if leaf.dtype == np.float32 else leaf


def run(function: Callable[..., Any], arguments: tuple[Any, ...], device: Any, dtype: str) -> Any:
    """The results on a device, with the compiler options of `jaxcnn.jit` for it.

    In float32 with full precision: a GPU rounds the operands of products by default.
    """
    precision = jax.default_matmul_precision("highest" if dtype == "float32" else None)
    with precision, jax.default_device(device):
        compiled = jax.jit(function, compiler_options=backend_options(device.platform) or None)
        return jax.device_get(compiled(*jax.device_put(arguments, device)))


def largest_difference(found: Any, expected: Any, smallest_scale: float) -> tuple[float, str]:
    """The largest difference relative to the largest value of its array, and the path of the array.

    The scale of an array is at least `smallest_scale` times the largest value of all arrays.
    """
    arrays = [
        (jax.tree_util.keystr(path), np.asarray(b, np.float64), np.asarray(a, np.float64))
        for (path, b), a in zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(found), strict=True)
    ]
    smallest = smallest_scale * max((np.abs(b).max(initial=0) for _, b, _ in arrays), default=0)
    differences = {}
    for path, b, a in arrays:
        scale = max(np.abs(b).max(initial=0), smallest) or 1.0
        difference = np.abs(a - b).max(initial=0) / scale
        differences[path] = float(difference) if np.isfinite(difference) else float("inf")
    where = max(differences, key=differences.__getitem__)
    return differences[where], where


def check_export(net: _networks.Network) -> dict[str, Any]:
    """A network exported for the platform of the default device, and called there, against the network on a CPU."""
    training = _networks.jaxcnn_training(net)
    state, image = training.create(), training.batch["image"]
    platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    with jax.default_matmul_precision("highest"):
        program = jaxcnn.export(training.model, state.params, state.state, image, platforms=(platform,))
        found = jax.device_get(program.call(image))
    host = jax.device_get((state.params, state.state, image))
    apply = lambda params, state, image: training.model.apply(params, state, image, train=False)[0]
    expected = run(apply, host, jax.devices("cpu")[0], "float32")
    difference, _ = largest_difference(found, expected, SMALLEST_SCALES["float32"])
    tolerance = TOLERANCES["float32"]
    return {"dtype": "float32", "difference": difference, "tolerance": tolerance, "passed": difference <= tolerance}


def check_vmap(net: _networks.Network) -> dict[str, Any]:
    """Three networks in one program against separate calls. `vmap.check` raises an error if they differ."""
    with jax.default_matmul_precision("highest"):
        for kind in ("train", "infer"):
            vmap.check({"jaxcnn": vmap.create("jaxcnn", net, kind, 3)}, kind)
    return {"passed": True}


def check_repeat(net: _networks.Network) -> dict[str, Any]:
    """Whether a second run of a training step gives the same bits. It passes either way."""
    training = _networks.jaxcnn_training(net)
    first, second = (
        jax.device_get(training.step(training.create(), training.batch)[0]._replace(key=None)) for _ in range(2)
    )
    equal = jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), first, second)
    return {"passed": True, "bit-exact": all(jax.tree.leaves(equal))}


def tasks(tiny: _networks.Network | None) -> Generator[tuple[str, Callable[[], dict[str, Any]]]]:
    """(name, function that waits for the row) of each case. All cores compile cases at the same time.

    With a tiny network, only a few small cases.
    """
    net = tiny or _networks.NETWORKS["resnet20"]._replace(batch=8)
    cases = tiny_cases(tiny) if tiny else all_cases()
    work = {f"{case.name}, {dtype}": functools.partial(compare, case, dtype) for case in cases for dtype in case.dtypes}
    work |= {
        "export": functools.partial(check_export, net),
        "vmap": functools.partial(check_vmap, net),
        "repeat of a step": functools.partial(check_repeat, net),
    }
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        futures = {name: pool.submit(function) for name, function in work.items()}
        try:
            for name, future in futures.items():
                yield name, future.result
        finally:  # after the last case, or where the budget ended
            pool.shutdown(cancel_futures=True)

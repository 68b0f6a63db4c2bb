"""What jaxcnn says to the commonest mistakes: what is wrong, where, and what to do instead.

Each row makes one mistake. The message, or a note on it, must name the argument or the layer, show the value or
the shape, and say what would be right where there is one such thing.
"""

import functools
import inspect
import operator
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn
from docs._public import public_names
from jaxcnn import (
    as_layer,
    batch_norm,
    capture,
    concatenate,
    conv,
    conv_transpose,
    count_params,
    cross_entropy,
    dense,
    depthwise_conv,
    dropout,
    flatten,
    identity,
    layer_norm,
    mask,
    max_pool,
    mean_squared_error,
    mixup,
    parallel,
    pixel_shuffle,
    regularized,
    remat,
    repeat,
    residual,
    serial,
    spectral_norm,
    weight_norm,
    with_dropout,
)
from jaxcnn.explain import summary
from jaxcnn.models import lenet5, resnet50
from jaxcnn.train import TrainState, evaluate, make_step

KEY = jax.random.key(0)
IMAGE = (2, 8, 8, 3)
NET = serial(conv=conv(4), norm=batch_norm(), flat=flatten, head=dense(10))
CONV = {"conv": {"kernel": np.zeros((3, 3, 1, 4)), "bias": np.zeros(4)}}
LOGITS, CLASSES = np.zeros((4, 10), np.float32), np.zeros(4, int)
DATA = {"image": LOGITS, "label": CLASSES}


def unweighted(params, state, batch, *, train, key=None):
    return optax.softmax_cross_entropy_with_integer_labels(batch["image"], batch["label"]).mean(), (state, {})


def step_of(loss_fn=None, state_of=lambda train_state: train_state, optimizer=None):
    """One step of a dense layer on `DATA`, whose TrainState was created with SGD and momentum."""
    created = TrainState.create(dense(10), optax.sgd(0.1, momentum=0.9), KEY, LOGITS)
    step = make_step(loss_fn or cross_entropy(dense(10)), optimizer or optax.sgd(0.1, momentum=0.9))
    return step(state_of(created), DATA)


IGNORE_LABEL = "ignore_label must be None or an int such as 255, got"
SPACE = r"\(N, \*spatial, C\)"
SCALE = r"got uint8 of shape \(2, 8, 8, 3\).*convert and scale.*float32\) / 255"


def spec(shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def use(layer, made_for, given=None, *, dtype=jnp.float32, state=None, **options):
    """The shape of the output for input `given` with the parameters that were made for input `made_for`."""
    layer = as_layer(layer)

    def program(x, y):
        params, fresh = layer.init(KEY, x)
        return layer.apply(params, fresh if state is None else state, y, **({"train": False} | options))[0]

    return jax.eval_shape(program, spec(made_for), spec(given or made_for, dtype))


def lend(owner, borrower, shape=IMAGE, other=None):
    """Apply one network with the parameters and the state of another."""

    def program(x, y):
        return borrower.apply(*owner.init(KEY, x), y, train=False)[0]

    return jax.eval_shape(program, spec(shape), spec(other or shape))


def loss(output, label, make=cross_entropy, transform=identity, train=False, key=None, **rest):
    """The loss of a model that gives `output` for any image."""
    loss_fn = transform(make(as_layer(identity)))
    return loss_fn({}, {}, {"image": output, "label": label} | rest, train=train, key=key)[0]


def zeros(*shape):
    return np.zeros(shape, np.float32)


without_state = jaxcnn.Layer(lambda key, x: ({}, {}), lambda params, state, x, *, train, key=None: 2 * x)


def step(loss_fn, optimizer, key=KEY):
    train_state = TrainState.create(NET, optax.sgd(0.1), key, spec(IMAGE))
    return make_step(loss_fn, optimizer)(train_state, {"image": zeros(*IMAGE), "label": np.zeros(2, int)})


def table(*rows):
    return [pytest.param(*row, id=name) for name, *row in rows]


ANY_LOSS = (
    cross_entropy,
    jaxcnn.focal,
    jaxcnn.binary_cross_entropy,
    jaxcnn.dice,
    mean_squared_error,
    jaxcnn.mean_absolute_error,
    jaxcnn.huber,
)

SHAPES = table(
    ("no batch, no channels", lambda: use(conv(4), (28, 28)), ValueError, rf"conv needs {SPACE}.*\(28, 28\)"),
    ("a scalar", lambda: use(conv(4), ()), ValueError, rf"conv needs {SPACE}"),
    ("four spatial dimensions", lambda: use(conv(4), (1,) * 6), ValueError, r"1 to 3 spatial dimensions.*1, 1, 1, 1"),
    ("no batch", lambda: use(NET, IMAGE, (8, 8, 3)), ValueError, r"(?s)conv: .*\(8, 8, 3\).*in layer 'conv'"),
    ("no channels", lambda: use(NET, IMAGE, (2, 8, 8)), ValueError, r"(?s)conv: .*\(2, 8, 8\).*in layer 'conv'"),
    (
        "NCHW",
        lambda: use(NET, IMAGE, (2, 3, 8, 8)),
        ValueError,
        r"(?s)kernel .*channels-last.*\(3, 3, 8, 4\).*in layer 'conv'",
    ),
    ("NCHW, LeNet", lambda: use(lenet5(), (1, 1, 28, 28)), ValueError, "are the channels last, and is it large enough"),
    (
        "NCHW, depthwise",
        lambda: use(serial(dw=depthwise_conv(3)), (1, 8, 8, 3), (1, 3, 8, 8)),
        ValueError,
        r"(?s)conv: .*\(1, 3, 8, 8\).*channels-last.*in layer 'dw'",
    ),
    ("other size", lambda: use(NET, IMAGE, (2, 9, 9, 3)), ValueError, r"(?s)dense.*\(2, 324\).*in layer 'head'"),
    ("too small", lambda: use(lenet5(), (1, 8, 8, 1)), ValueError, r"(?s)window \(5, 5\).*\(1, 4, 4, 6\).*'conv2'"),
    ("channels / groups", lambda: use(conv(4, groups=2), IMAGE), ValueError, r"conv: the 3 channels.*groups=2"),
    ("features / groups", lambda: conv(5, groups=2), ValueError, r"conv: features=5 .* groups=2"),
    ("group_norm", lambda: use(jaxcnn.group_norm(4), (1, 2, 6)), ValueError, r"group_norm: the 6 channels.*groups=4"),
    (
        "conv window",
        lambda: use(conv(4, 9, padding="VALID"), IMAGE),
        ValueError,
        r"conv: the window \(9, 9\).*larger",
    ),
    (
        "dilated conv window",
        lambda: use(conv(4, dilation=4, padding="VALID"), IMAGE),
        ValueError,
        r"conv: the window \(9, 9\) \(size \(3, 3\) dilated by \(4, 4\)\) is larger.*\(2, 8, 8, 3\)",
    ),
    ("pool window", lambda: use(max_pool(9), IMAGE), ValueError, r"max_pool: the window \(9, 9\).*\(2, 8, 8, 3\)"),
    (
        "dilated pool window",
        lambda: use(jaxcnn.avg_pool(3, dilation=4), IMAGE),
        ValueError,
        r"avg_pool: the window \(9, 9\) .*dilated by \(4, 4\)",
    ),
    (
        "pool of padding",
        lambda: use(max_pool(2, padding=2), IMAGE),
        ValueError,
        r"max_pool: .*\(2, 2\).*only padding",
    ),
    ("pool rank", lambda: use(max_pool(2), (8, 3)), ValueError, rf"max_pool needs {SPACE}.*\(8, 3\)"),
    ("global pool rank", lambda: use(jaxcnn.global_avg_pool, (8, 3)), ValueError, rf"global_avg_pool needs {SPACE}"),
    (
        "adaptive rank",
        lambda: use(jaxcnn.adaptive_max_pool(2), (8, 3)),
        ValueError,
        rf"adaptive_max_pool needs {SPACE}",
    ),
    (
        "adaptive sizes",
        lambda: use(jaxcnn.adaptive_avg_pool((2, 2, 2)), IMAGE),
        ValueError,
        r"adaptive_avg_pool: output_size=\(2, 2, 2\) has 3 entries for input \(2, 8, 8, 3\)",
    ),
    ("upsample rank", lambda: use(jaxcnn.upsample(2), (8, 3)), ValueError, rf"upsample needs {SPACE}.*\(8, 3\)"),
    ("pixel_shuffle", lambda: use(pixel_shuffle(2), IMAGE), ValueError, r"pixel_shuffle: the 3 channels.* 4"),
    (
        "pixel_unshuffle",
        lambda: use(jaxcnn.pixel_unshuffle(3), IMAGE),
        ValueError,
        r"pixel_unshuffle: the spatial dimensions of input \(2, 8, 8, 3\).* 3",
    ),
    ("instance_norm rank", lambda: use(jaxcnn.instance_norm(), (2, 3)), ValueError, rf"instance_norm needs {SPACE}"),
    ("batch_norm rank", lambda: use(batch_norm(), (3,)), ValueError, r"batch_norm needs \(N, \*spatial, C\).*\(3,\)"),
    ("layer_norm axis", lambda: use(layer_norm(axis=4), IMAGE), ValueError, r"layer_norm: axis=4 .*\(2, 8, 8, 3\)"),
    ("layer_norm of a scalar", lambda: use(layer_norm(), ()), ValueError, r"layer_norm: axis=-1 .*\(\)"),
    ("layer_norm batch", lambda: use(layer_norm(axis=0), IMAGE), ValueError, r"layer_norm: axis=0 is the batch"),
    ("sizes", lambda: use(conv(3, (3, 3, 3)), IMAGE), ValueError, r"conv: size=\(3, 3, 3\) has 3 entries for 2"),
    (
        "dense on a map",
        lambda: lend(dense(3), dense(3), (2, 48), (2, 4, 4, 3)),
        ValueError,
        r"dense: kernel .*\(48, 3\).*\(2, 4, 4, 3\).*needs \(3, 3\)",
    ),
    (
        "residual",
        lambda: use(serial(block=residual(conv(8))), IMAGE),
        ValueError,
        r"(?s)residual: .*\(2, 8, 8, 8\).*shortcut.*\(2, 8, 8, 3\).*in layer 'block'",
    ),
    ("repeat", lambda: use(repeat(conv(8), 3), IMAGE), ValueError, r"repeat: .*\(2, 8, 8, 3\).*\(2, 8, 8, 8\)"),
    (
        "concatenate",
        lambda: use(concatenate(conv(3), conv(3, stride=2)), IMAGE),
        (TypeError, ValueError),
        r"(?s)concatenate: .*\(2, 8, 8, 3\).*\(2, 4, 4, 3\)",
    ),
    (
        "parallel",
        lambda: use(parallel(operator.add, conv(3), conv(4)), IMAGE),
        (TypeError, ValueError),
        r"(?s)\(2, 8, 8, 3\).*\(2, 8, 8, 4\)",
    ),
    ("init with a shape", lambda: conv(3).init(KEY, (2, 8, 8, 3)), TypeError, r"ShapeDtypeStruct"),
    ("summary, no batch", lambda: summary(NET, spec((8, 8))), ValueError, rf"(?s){SPACE}.*\(8, 8\).*in layer 'conv'"),
    ("summary with a shape", lambda: summary(NET, (2, 8, 8, 3)), TypeError, r"ShapeDtypeStruct"),
)

EMPTY = table(
    *(
        (
            name,
            lambda layer=layer: as_layer(layer).apply({}, {}, zeros(1, 0, 4, 1), train=True, key=KEY),
            ValueError,
            rf"{name} needs at least one position in each spatial dimension, got shape \(1, 0, 4, 1\)",
        )
        for name, layer in (
            ("resize", jaxcnn.resize(3)),
            ("drop_block", jaxcnn.drop_block(0.3)),
            ("adaptive_max_pool", jaxcnn.adaptive_max_pool(1)),
            ("adaptive_avg_pool", jaxcnn.adaptive_avg_pool(3)),
            ("global_max_pool", jaxcnn.global_max_pool),
            ("global_avg_pool", jaxcnn.global_avg_pool),
            ("global_response_norm", jaxcnn.global_response_norm()),
            ("max_pool", max_pool(1)),
        )
    ),
)

NO_ARRAYS = table(
    *(
        (
            f"{name} of {x}",
            lambda layer=layer, x=x: as_layer(layer).apply({}, {}, x, train=False),
            TypeError,
            rf"{name} needs an array, or for init a jax.ShapeDtypeStruct, got",
        )
        for name, layer in (
            ("flatten", flatten),
            ("upsample", jaxcnn.upsample(2)),
            ("pixel_shuffle", pixel_shuffle(2)),
            ("pixel_unshuffle", jaxcnn.pixel_unshuffle(2)),
            ("global_max_pool", jaxcnn.global_max_pool),
            ("max_pool", max_pool(1)),
            ("adaptive_max_pool", jaxcnn.adaptive_max_pool(1)),
            ("squeeze_excite", jaxcnn.squeeze_excite(2)),
            ("pad", jaxcnn.pad(1)),
            ("resize", jaxcnn.resize(3, "nearest")),
            ("repeat", repeat(identity, 2)),
        )
        for x in (None, [1.0], (np.ones((1, 2, 1)),) * 2)
    ),
    (
        "global_max_pool of bool",
        lambda: jaxcnn.global_max_pool(zeros(*IMAGE) > 0),
        TypeError,
        r"global_max_pool needs integers or real floating-point numbers, got bool",
    ),
)

OPTIONS = table(
    ("rate 1.5", lambda: dropout(1.5), ValueError, r"rate .* at least 0 and below 1, got 1\.5"),
    ("rate 1", lambda: dropout(1), ValueError, r"rate .* below 1, got 1"),
    ("rate in percent", lambda: jaxcnn.drop_path(conv(3), 50), ValueError, r"rate .* below 1, got 50"),
    ("rate negative", lambda: jaxcnn.drop_block(-0.1), ValueError, r"rate .*got -0\.1"),
    ("rate a string", lambda: dropout("0.5"), TypeError, r"rate .*'0\.5'"),
    ("rate first", lambda: with_dropout(0.5, conv(3)), TypeError, r"expected a Layer .*got 0\.5"),
    ("rate of a model", lambda: lenet5(dropout=2), ValueError, r"rate .*got 2"),
    ("stddev", lambda: jaxcnn.gaussian_noise(-1), ValueError, r"stddev .*got -1"),
    ("features 3.5", lambda: conv(3.5), TypeError, r"conv: features .*an int, got 3\.5"),
    ("features 0", lambda: dense(0), ValueError, r"dense: features must be at least 1, got 0"),
    *(
        (
            f"{layer}, {option}",
            functools.partial(getattr(jaxcnn, layer), *args, **{option: value}),
            TypeError,
            f"^{layer}: {option} must be True or False, got {shown}",
        )
        for layer, option, *args in (
            ("conv", "bias", 2),
            ("max_pool", "ceil_mode", 2),
            ("avg_pool", "count_include_pad", 2),
            ("batch_norm", "scale"),
            ("grid_sample", "align_corners"),
            ("resize", "antialias", 2),
        )
        for value, shown in (("no", "'no'"), (1, "1"), (None, "None"))
    ),
    *(
        (
            f"{layer} {option}, traced",
            functools.partial(jax.eval_shape, mistake, spec(())),
            TypeError,
            f"^{layer}: {option} must be known at compilation, got a traced number",
        )
        for layer, option, mistake in (
            ("lp_pool", "p", lambda p: jaxcnn.lp_pool(p, 2)),
            ("resize", "scale", lambda scale: jaxcnn.resize(scale=scale)),
            ("resize", "scale", lambda scale: jaxcnn.resize(scale=(2, scale))),
            ("resize", "a", lambda a: jaxcnn.resize(2, "cubic", a=a)),
        )
    ),
    *(
        (
            f"squeeze_excite, {option}",
            functools.partial(jaxcnn.squeeze_excite, 2, **{option: None}),
            TypeError,
            f"squeeze_excite: {option} must be a function x -> y or a layer, got None",
        )
        for option in ("activation", "gate")
    ),
    *(
        (f"{option} True", mistake, TypeError, rf"{option} must be an int.*, got True")
        for option, mistake in (
            ("features", lambda: conv(True)),
            ("size", lambda: conv(2, True)),
            ("groups", lambda: jaxcnn.group_norm(True)),
        )
    ),
    *(
        (
            f"{make.__name__}, {option} {value}",
            functools.partial(make, 2, **{option: value}),
            TypeError,
            rf"{make.__name__}: {option} must be a function \(key, shape, dtype\) -> array, .*, got {value}",
        )
        for make in (conv, conv_transpose, dense)
        for option, value in (("kernel_init", None), ("bias_init", 0.0))
    ),
    (
        "padding_mode in a list",
        lambda: conv(2, padding_mode=["reflect"]),
        ValueError,
        r"conv: unknown padding_mode \['reflect'\]; expected one of: zeros, reflect",
    ),
    *(
        (
            f"flatten, {name}",
            functools.partial(flatten, zeros(2, 3), **{name: value}),
            TypeError,
            f"flatten: {name} must",
        )
        for name, value in (("start_dim", "a"), ("end_dim", None))
    ),
    *(
        (
            f"{option} {value}",
            functools.partial(make, NET, **{option: value}),
            TypeError,
            rf"{make.__name__}: {option} must be numbers, got ",
        )
        for make, option in ((cross_entropy, "class_weight"), (jaxcnn.binary_cross_entropy, "pos_weight"))
        for value in ("a", "1", [[1], [1, 2]], 1j)
    ),
    *(
        (
            f"a penalty gives {value}",
            lambda value=value: loss(LOGITS, CLASSES, transform=lambda f: regularized(f, lambda params: value)),
            TypeError,
            r"regularized: the penalty <function .* must give a scalar, got ",
        )
        for value in (jnp.ones(2), None)
    ),
    (
        "orthogonal, a scalar",
        lambda: jaxcnn.orthogonal(1.0)({"kernel": jnp.ones(())}),
        ValueError,
        r"orthogonal needs kernels \(\.\., features\), got one of shape \(\)",
    ),
    (
        "several keys",
        lambda: dropout(0.5).apply({}, {}, zeros(2, 3), train=True, key=jax.random.split(KEY)),
        TypeError,
        r"key must be one random key such as jax\.random\.key\(0\), got .*\(2,\); for several, use jax\.vmap",
    ),
    (
        "several raw keys",
        lambda: dropout(0.5).apply({}, {}, zeros(2, 3), train=True, key=jax.random.split(jax.random.PRNGKey(0))),
        TypeError,
        r"key must be one random key .*, got uint32 of shape \(2, 2\)",
    ),
    *(
        ("ignore_label", functools.partial(loss, NET, ignore_label=value), TypeError, IGNORE_LABEL)
        for loss in (cross_entropy, jaxcnn.focal, jaxcnn.dice, jaxcnn.binary_cross_entropy)
        for value in (True, 0.5, "255", [1])
    ),
    (
        "norm with a call",
        lambda: resnet50(norm=batch_norm()),
        TypeError,
        r"resnet50: norm must be a function that makes a layer, such as batch_norm .* got batch_norm\(\)",
    ),
    (
        "teacher a layer",
        lambda: jaxcnn.distillation(cross_entropy, NET),
        TypeError,
        "teacher must be a function images -> logits",
    ),
    (
        "loss without its model",
        lambda: regularized(cross_entropy),
        TypeError,
        r"pass cross_entropy\(model\), not cross_entropy; for fit, loss=lambda model: regularized",
    ),
    (
        "step without a model",
        lambda: make_step(cross_entropy, optax.sgd(0.1)),
        TypeError,
        r"make_step .* pass cross_entropy\(model\), not cross_entropy$",
    ),
    *(
        (
            "loss of a model",
            functools.partial(make, cross_entropy(NET)),
            TypeError,
            r"loss must map a model to a LossFn: pass cross_entropy, not cross_entropy\(model\)",
        )
        for make in (
            functools.partial(jaxcnn.distillation, teacher=identity),
            lambda loss: jaxcnn.weighted_sum((1.0, loss)),
            jaxcnn.per_member,
        )
    ),
    (
        "argument of PyTorch",
        lambda: conv(3, kernel_size=2),
        TypeError,
        r"conv\(\) has no argument 'kernel_size'.*: .*size",
    ),
    (
        "channels of PyTorch",
        lambda: conv(3, 16, 3),
        TypeError,
        r"conv\(\) takes \(features, size\) by position, got \(3, 16, 3\).* its channels, are not arguments",
    ),
    (
        "train left out",
        lambda: conv(3).apply({}, {}, np.ones((1, 4, 4, 1))),
        TypeError,
        r"^conv\.apply\(\) missing 1 required keyword-only argument: 'train'",
    ),
    ("argument of Flax", lambda: max_pool(2, strides=2), TypeError, r"max_pool\(\) .*'strides'; its arguments.*stride"),
    (
        "model of torchvision",
        lambda: resnet50(num_classes=3),
        TypeError,
        r"resnet50\(\) .*'num_classes'; .*: classes, ",
    ),
    ("size first", lambda: conv((3, 3), 16), TypeError, r"conv: features .*got \(3, 3\)"),
    ("size 0", lambda: conv(3, 0), ValueError, r"conv: size must be at least 1, got 0"),
    ("size a string", lambda: max_pool("2"), TypeError, r"max_pool: size .*an int.*, got '2'"),
    ("stride 0", lambda: conv(3, stride=0), ValueError, r"conv: stride .*got 0"),
    ("stride negative", lambda: max_pool(2, stride=-2), ValueError, r"max_pool: stride .*got -2"),
    ("dilation 0", lambda: conv(3, dilation=0), ValueError, r"conv: dilation .*got 0"),
    ("groups 0", lambda: conv(4, groups=0), ValueError, r"conv: groups .*got 0"),
    ("multiplier 0", lambda: depthwise_conv(multiplier=0), ValueError, r"depthwise_conv: multiplier .*got 0"),
    (
        "padding SMAE",
        lambda: conv(3, padding="SMAE"),
        ValueError,
        r"conv: unknown padding 'SMAE'; expected one of: .*VALID.*did you mean 'SAME'",
    ),
    ("padding negative", lambda: conv(3, padding=-1), ValueError, r"conv: padding must be at least 0, got -1"),
    ("padding 0.5", lambda: conv(3, padding=0.5), TypeError, r"conv: padding .*an int, got 0\.5"),
    ("padding None", lambda: conv(3, padding=None), TypeError, r"conv: padding .*got None"),
    (
        "padding of three",
        lambda: use(conv(3, padding=(1, 1, 1)), IMAGE),
        ValueError,
        r"\(1, 1, 1\) has 3 entries for 2",
    ),
    ("padding in triples", lambda: conv(3, padding=((1, 1, 1),) * 2), ValueError, r"padding .*\(low, high\) pairs"),
    (
        "CAUSAL images",
        lambda: use(conv(3, padding="CAUSAL"), IMAGE),
        ValueError,
        r"conv: CAUSAL .*1-D.*2 dimensions",
    ),
    (
        "padding_mode",
        lambda: conv(3, padding_mode="reflct"),
        ValueError,
        r"conv: unknown padding_mode .*did you mean 'reflect'",
    ),
    ("pad mode", lambda: jaxcnn.pad(1, mode="edge"), ValueError, r"pad: unknown mode .*'edge'.*replicate"),
    *(
        (
            f"pad {value} of {np.dtype(dtype)}",
            lambda value=value, dtype=dtype: use(jaxcnn.pad(1, value=value), IMAGE, IMAGE, dtype=dtype),
            ValueError,
            rf"pad: value={value} does not fit into the input's dtype, {np.dtype(dtype)}",
        )
        for value, dtype in ((0.5, np.int32), (np.inf, np.int32), (300, np.uint8), (-1, np.uint8), (2**70, np.int32))
    ),
    ("pad SAME", lambda: jaxcnn.pad("SAME"), ValueError, r"pad: padding='SAME' needs a window; pass an int"),
    ("output_padding", lambda: conv_transpose(3, output_padding=-1), ValueError, r"output_padding .*got -1"),
    (
        "nothing left",
        lambda: use(conv_transpose(3, padding=9), IMAGE),
        ValueError,
        r"conv_transpose: .*padding.*\(2, 8, 8, 3\)",
    ),
    (
        "resize method",
        lambda: jaxcnn.resize(8, "bilinear"),
        ValueError,
        r"resize: unknown method .*did you mean 'linear'",
    ),
    ("upsample 1.5", lambda: jaxcnn.upsample(1.5), TypeError, r"upsample: scale .*got 1\.5"),
    ("p 0", lambda: jaxcnn.lp_pool(0, 2), ValueError, r"lp_pool: p must be at least 1 .*got 0"),
    ("p a string", lambda: jaxcnn.lp_pool("2", 2), TypeError, r"lp_pool: p must be a number, got '2'"),
    ("p infinite", lambda: jaxcnn.lp_pool(np.inf, 2), ValueError, r"lp_pool: p must be finite, got inf; use max_pool"),
    ("output_size 0", lambda: jaxcnn.adaptive_avg_pool(0), ValueError, r"adaptive_avg_pool: output_size .*got 0"),
    *(
        (
            f"{option} of {name}: {value!r}",
            lambda make=make, option=option, value=value: make(**{option: value}),
            error,
            rf"{name}: {option} must be {message}",
        )
        for name, make, option in (
            ("batch_norm", batch_norm, "eps"),
            ("layer_norm", layer_norm, "eps"),
            ("rms_norm", jaxcnn.rms_norm, "eps"),
            ("instance_norm", jaxcnn.instance_norm, "eps"),
            ("group_norm", functools.partial(jaxcnn.group_norm, 2), "eps"),
            ("weight_standardized", functools.partial(jaxcnn.weight_standardized, dense(3)), "eps"),
            ("global_response_norm", jaxcnn.global_response_norm, "eps"),
            ("local_response_norm", jaxcnn.local_response_norm, "alpha"),
            ("local_response_norm", jaxcnn.local_response_norm, "beta"),
            ("local_response_norm", jaxcnn.local_response_norm, "k"),
        )
        for value, error, message in (
            (-1, ValueError, "at least 0 and finite, got -1"),
            (np.nan, ValueError, "at least 0 and finite, got nan"),
            (None, TypeError, "a number, got None"),
            ("1e-5", TypeError, "a number, got '1e-5'"),
        )
    ),
    *(
        (f"slope {value}", lambda value=value: jaxcnn.prelu(slope=value), TypeError, r"prelu: slope must be a number")
        for value in (None, [0.25])
    ),
    *(
        (
            f"axis {axis!r} of {make.__name__}",
            lambda make=make, axis=axis: make(axis=axis),
            TypeError,
            rf"{make.__name__}: axis must be an int or a sequence of ints, got {got}",
        )
        for make in (layer_norm, jaxcnn.rms_norm)
        for axis, got in (
            (1.0, r"1\.0"),
            (True, "True"),
            ((1, True), r"\(1, True\)"),
            (np.array([1, 2]), r"int64 of shape \(2,\)"),
            ("1", "'1'"),
        )
    ),
    ("decay", lambda: batch_norm(decay=1.5), ValueError, r"batch_norm: decay, .*at most 1, got 1\.5"),
    ("strength negative", lambda: jaxcnn.l2(-1e-4), ValueError, r"l2: the strength .*got -0\.0001"),
    ("l1 negative", lambda: jaxcnn.elastic_net(-1, 1), ValueError, r"elastic_net: l1 .*got -1"),
    ("strength a string", lambda: jaxcnn.l1("0.1"), TypeError, r"l1: .*'0\.1'"),
    (
        "label_smoothing",
        lambda: cross_entropy(NET, label_smoothing=2),
        ValueError,
        r"label_smoothing .*below 1, got 2",
    ),
    ("mixup alpha", lambda: mixup(cross_entropy(NET), 0), ValueError, r"mixup: alpha .*above 0.*got 0"),
    ("cutmix alpha", lambda: jaxcnn.cutmix(cross_entropy(NET), -1), ValueError, r"cutmix: alpha .*got -1"),
    ("repeat 0", lambda: repeat(dense(8), 0), ValueError, r"repeat: n must be at least 1, got 0"),
    (
        "cast to int8",
        lambda: jaxcnn.cast(dense(8), jnp.int8),
        TypeError,
        r"cast: dtype must be floating-point, such as jnp.bfloat16, got .*int8",
    ),
    ("cast to None", lambda: jaxcnn.cast(dense(8), None), TypeError, r"cast: None is not a dtype; use .*bfloat16"),
    ("cast to bflot16", lambda: jaxcnn.cast(dense(8), "bflot16"), TypeError, r"cast: 'bflot16' is not a dtype"),
    ("reduction 0", lambda: jaxcnn.squeeze_excite(0), ValueError, r"squeeze_excite: reduction .*got 0"),
    ("block_size 0", lambda: jaxcnn.drop_block(0.1, 0), ValueError, r"drop_block: block_size .*got 0"),
    (
        "batch_size 0",
        lambda: evaluate(cross_entropy(NET), {}, {}, DATA, batch_size=0),
        ValueError,
        r"batch_size .*got 0",
    ),
)

DTYPES = table(
    ("conv", lambda: use(conv(3), IMAGE, dtype=jnp.uint8), TypeError, f"conv needs floating-point input, {SCALE}"),
    ("dense", lambda: use(dense(3), IMAGE, dtype=jnp.uint8), TypeError, f"dense needs .*{SCALE}"),
    ("batch_norm", lambda: use(batch_norm(), IMAGE, dtype=jnp.uint8), TypeError, f"batch_norm needs .*{SCALE}"),
    ("avg_pool", lambda: use(jaxcnn.avg_pool(2), IMAGE, dtype=jnp.uint8), TypeError, f"avg_pool needs .*{SCALE}"),
    (
        "init",
        lambda: NET.init(KEY, np.zeros(IMAGE, np.uint8)),
        TypeError,
        f"(?s)conv needs .*{SCALE}.*in layer 'conv'",
    ),
    (
        "summary",
        lambda: summary(NET, spec(IMAGE, jnp.uint8)),
        TypeError,
        f"(?s)conv needs .*{SCALE}.*in layer 'conv'",
    ),
    (
        "mixup",
        lambda: loss(np.zeros(IMAGE, np.uint8), np.zeros(2, int), transform=mixup, train=True, key=KEY),
        TypeError,
        f"mixup needs .*{SCALE}",
    ),
)

APPLY = table(
    ("train forgotten", lambda: NET.apply(CONV, {}, zeros(*IMAGE)), TypeError, r"missing .*keyword.*'train'"),
    (
        "no key",
        lambda: use(serial(block1=serial(conv=conv(3), drop=dropout(0.5))), IMAGE, train=True),
        ValueError,
        r"(?s)dropout is random in training: .*key=jax\.random\.key.*in layer 'block1/drop'",
    ),
    (
        "no key, transforms",
        lambda: use(serial(block1=serial(conv=with_dropout(conv(3), 0.5))), IMAGE, train=True),
        ValueError,
        r"(?s)with_dropout is random in training.*in layer 'block1/conv'",
    ),
    (
        "no key, in remat",
        lambda: serial(block1=remat(serial(drop=dropout(0.5)))).apply({}, {}, LOGITS, train=True),
        ValueError,
        r"(?s)dropout is random in training.*in layer 'block1/drop'",
    ),
    (
        "no key, in repeat",
        lambda: serial(block1=repeat(serial(drop=dropout(0.5)), 2)).apply({}, {}, LOGITS, train=True),
        ValueError,
        r"(?s)dropout is random in training.*in layer 'block1/drop'",
    ),
    (
        "last layer of a block",
        lambda: serial(block1=serial(conv=conv(3), pool=max_pool(9)), flat=flatten).init(KEY, spec(IMAGE)),
        ValueError,
        r"(?s)max_pool: the window.*in layer 'block1/pool'",
    ),
    (
        "no key, mixup",
        lambda: loss(LOGITS, CLASSES, transform=mixup, train=True),
        ValueError,
        r"mixup .*key=jax\.random",
    ),
    ("key 0, init", lambda: NET.init(0, spec(IMAGE)), TypeError, r"key must be a random key such as .*got 0"),
    (
        "key 0, dropout",
        lambda: dropout(0.5).apply({}, {}, LOGITS, train=True, key=0),
        TypeError,
        r"key must be a random key such as .*got 0",
    ),
    (
        "key 0, repeat",
        lambda: repeat(dense(3), 2).init(0, spec((2, 3))),
        TypeError,
        r"key must be a random key such as .*got 0",
    ),
    (
        "key 0, TrainState",
        lambda: TrainState.create(dense(3), optax.sgd(0.1), 0, spec((2, 3))),
        TypeError,
        r"key must be a random key such as .*got 0",
    ),
    ("key None, init", lambda: NET.init(None, spec(IMAGE)), TypeError, r"key must be a random key such as"),
    (
        "train traced",
        lambda: jaxcnn.jit(NET.apply)({}, {"norm": {"mean": zeros(4)}}, zeros(*IMAGE), train=True),
        Exception,
        r"static_argnames",
    ),
)

TREES = table(
    (
        "another network",
        lambda: NET.apply({"cnv": CONV["conv"]}, {}, zeros(*IMAGE), train=False),
        ValueError,
        r"params has an entry 'cnv'.*expected one of: conv, norm, flat, head; did you mean 'conv'",
    ),
    (
        "a layer without its own",
        lambda: lend(serial(conv=conv(4)), NET),
        (KeyError, ValueError),
        r"(?s)batch_norm: 'mean' is missing, got \[\]; pass .*that init returned.*in layer 'norm'",
    ),
    ("dense for conv", lambda: lend(dense(4), conv(4)), ValueError, r"conv: .*\(3, 4\).*\(2, 8, 8, 3\)"),
    ("conv for dense", lambda: lend(conv(4), dense(4)), ValueError, r"dense: .*\(3, 3, 3, 4\).*\(2, 8, 8, 3\)"),
    ("more features, conv", lambda: lend(conv(8), conv(16)), ValueError, r"conv: .*\(3, 3, 3, 8\).*16"),
    ("more features, dense", lambda: lend(dense(8), dense(16)), ValueError, r"dense: .*\(3, 8\).*16"),
    (
        "fewer channels, depthwise",
        lambda: use(depthwise_conv(3), (1, 8, 8, 8), (1, 8, 8, 4)),
        ValueError,
        r"conv: .*\(3, 3, 1, 8\).*\(1, 8, 8, 4\)",
    ),
    (
        "other channels, batch_norm",
        lambda: use(batch_norm(), (1, 4, 3), (1, 4, 1)),
        ValueError,
        r"batch_norm: .*\(3,\)",
    ),
    *(
        (
            f"{n} channels for {m}, {name}",
            lambda name=name, args=args, m=m, n=n: use(getattr(jaxcnn, name)(*args), (1, 4, m), (1, 4, n)),
            ValueError,
            rf"{name}: .*\({m},\).*\(1, 4, {n}\)",
        )
        for name, args in (
            ("layer_norm", ()),
            ("rms_norm", ()),
            ("instance_norm", ()),
            ("group_norm", (1,)),
            ("global_response_norm", ()),
            ("prelu", ()),
        )
        for m, n in ((3, 4), (3, 1), (1, 3))
    ),
    ("repeat of another n", lambda: lend(repeat(dense(3), 2), repeat(dense(3), 3)), ValueError, r"repeat: .*n=3"),
    (
        "pair for params",
        lambda: NET.apply((CONV, {}), {}, zeros(*IMAGE), train=False),
        TypeError,
        r"params must be the dict that init returned, got \(\{'conv'",
    ),
    (
        "pair for params, one layer",
        lambda: dense(3).apply(({}, {}), {}, LOGITS, train=False),
        TypeError,
        r"dense: params and state must be the dicts that init returned, got \(\{\}, \{\}\)",
    ),
    (
        "state None",
        lambda: NET.apply(CONV, None, zeros(*IMAGE), train=False),
        TypeError,
        r"state must be the dict that init returned, got None",
    ),
    (
        "state forgotten",
        lambda: use(NET, IMAGE, state={}),
        (KeyError, ValueError),
        r"(?s)batch_norm: 'mean' is missing.*pass the params and the state that init returned.*in layer 'norm'",
    ),
    (
        "state forgotten, one layer",
        lambda: use(batch_norm(), IMAGE, state={}),
        ValueError,
        r"batch_norm: 'mean' is missing.*the state that init returned",
    ),
    (
        "spectral_norm without state",
        lambda: lend(dense(3), spectral_norm(dense(3)), (2, 3)),
        ValueError,
        r"spectral_norm: no 'spectral_norm' .*the state that init returned",
    ),
    (
        "weight_norm without scale",
        lambda: lend(dense(3), weight_norm(dense(3)), (2, 3)),
        ValueError,
        r"weight_norm: 'scale' is missing, got \['bias', 'kernel'\]; pass the params .*that init returned",
    ),
    ("weight_norm of flatten", lambda: use(weight_norm(flatten), IMAGE), ValueError, r"weight_norm: .*no kernel"),
    (
        "spectral_norm twice",
        lambda: use(spectral_norm(spectral_norm(dense(3))), (2, 3)),
        ValueError,
        r"spectral_norm: .*already",
    ),
)

PATTERNS = table(
    (
        "mask",
        lambda: mask(CONV, "head/.*"),
        ValueError,
        r"'head/\.\*' does not match the whole path of any parameter; expected one of: conv/bias, conv/kernel",
    ),
    ("mask, nearest", lambda: mask(CONV, "conv/kernal"), ValueError, r"did you mean 'conv/kernel'"),
    ("mask, half a path", lambda: mask(CONV, "kernel"), ValueError, r"whole path"),
    (
        "mask, wildcard",
        lambda: mask(CONV, "*kernel"),
        ValueError,
        r"'\*kernel' is not a regular expression: nothing to",
    ),
    ("l2", lambda: jaxcnn.l2(1e-4, "head/.*")(CONV), ValueError, r"'head/\.\*' does not match .* any parameter"),
    ("l2, invalid", lambda: jaxcnn.l2(1e-4, "(")(CONV), ValueError, r"'\(' is not a regular expression"),
    ("count_params", lambda: count_params(CONV, "head.*"), ValueError, r"'head\.\*' does not match .* any parameter"),
    ("count_params, invalid", lambda: count_params(CONV, "["), ValueError, r"'\[' is not a regular expression"),
    (
        "drop_connect",
        lambda: use(jaxcnn.drop_connect(conv(3), 0.5, where="weight"), IMAGE, train=True, key=KEY),
        ValueError,
        r"'weight' does not match .* any parameter; expected one of: bias, kernel",
    ),
    (
        "capture",
        lambda: use(capture(NET, "cnv"), IMAGE),
        ValueError,
        r"'cnv' does not match .* any layer.*did you mean 'conv'",
    ),
    ("capture, invalid", lambda: use(capture(NET, "["), IMAGE), ValueError, r"'\[' is not a regular expression"),
    (
        "capture, offset",
        lambda: use(capture(NET, "conv"), IMAGE, offsets={"cov": 0.0}),
        ValueError,
        r"no activation for offset 'cov'; .*did you mean 'conv'",
    ),
)

COMPOSITION = table(
    (
        "uncalled dense",
        lambda: use(serial(flatten, dense), IMAGE),
        TypeError,
        r"(?s)dense.*call it, as in dense\(.*'1'",
    ),
    ("uncalled conv", lambda: use(serial(first=conv), IMAGE), TypeError, r"(?s)call it, as in conv\(.*'first'"),
    (
        "uncalled batch_norm",
        lambda: use(serial(batch_norm), IMAGE),
        TypeError,
        r"(?s)call it, as in batch_norm\(.*'0'",
    ),
    ("uncalled dropout", lambda: use(serial(dropout), IMAGE), Exception, r"(?s)call it, as in dropout\(.*'0'"),
    ("uncalled lenet5", lambda: use(lenet5, IMAGE), TypeError, r"call it, as in lenet5\("),
    (
        "uncalled, eagerly",
        lambda: serial(identity, dense).apply({}, {}, zeros(*IMAGE), train=False),
        TypeError,
        r"(?s)call it, as in dense\(.*'1'",
    ),
    (
        "uncalled l2",
        lambda: regularized(cross_entropy(as_layer(identity)), jaxcnn.l2)(CONV, {}, DATA, train=True),
        TypeError,
        r"l2",
    ),
    ("uncalled, cross_entropy", lambda: cross_entropy(lenet5)({}, {}, DATA, train=False), TypeError, r"as in lenet5\("),
    (
        "an argument too many",
        lambda: jaxcnn.freeze(NET, "head"),
        TypeError,
        r"freeze\(\) takes \(layer\) by position, got .*; pass options by name$",
    ),
    (
        "data before params",
        lambda: jaxcnn.train.predict(dense(10), LOGITS, {"kernel": LOGITS}, {"layer": LOGITS}),
        ValueError,
        r'predict\(model, params, state, data\): data must have an entry "image", got \[.layer.\]',
    ),
    ("PyTorch's kernel_size", lambda: conv(8, kernel_size=3), TypeError, r"'kernel_size'; .*; did you mean 'size'\?$"),
    ("PyTorch's p", lambda: dropout(p=0.5), TypeError, r"no argument 'p'; .*; did you mean 'rate'\?$"),
    ("PyTorch's momentum", lambda: batch_norm(momentum=0.1), TypeError, r"'decay'\? PyTorch's momentum is 1 - decay$"),
    ("Keras' units", lambda: conv(4, units=3), TypeError, r"did you mean 'features'\?$"),
    (
        "init returns only params",
        lambda: serial(a=jaxcnn.Layer(lambda key, x: {"a": 1, "b": 2}, None)).init(KEY, np.ones(IMAGE, np.float32)),
        TypeError,
        r"init must return \(params, state\), where state may be \{\}, got \{'a': 1, 'b': 2\}",
    ),
    (
        "init returns only params, TrainState",
        lambda: TrainState.create(jaxcnn.Layer(lambda key, x: {"a": 1}, None), optax.sgd(0.1), KEY, np.ones(IMAGE)),
        TypeError,
        r"init must return \(params, state\), where state may be \{\}, got \{'a': 1\}",
    ),
    (
        "a loss that is a scalar",
        lambda: step_of(loss_fn=lambda params, state, batch, *, train, key=None: params["kernel"].sum()),
        TypeError,
        r"a LossFn must return \(loss, \(state, metrics\)\), got float32 of shape \(\)",
    ),
    (
        "params instead of a TrainState",
        lambda: step_of(state_of=lambda train_state: train_state.params),
        TypeError,
        r"call step\(train_state, batch\) with a TrainState, got \{'bias'",
    ),
    (
        "another optimizer in the step",
        lambda: step_of(optimizer=optax.adam(0.1)),
        ValueError,
        r"step: the train_state was created with another optimizer",
    ),
    (
        "an own loss without weights",
        lambda: evaluate(unweighted, {}, {}, (LOGITS, CLASSES), batch_size=3),
        ValueError,
        r'evaluate: the loss ignores batch\["weight"\], which is 0 for the examples that fill the last batch of 4',
    ),
    (
        "jaxcnn.relu",
        lambda: jaxcnn.relu,
        AttributeError,
        r"'relu'; .* those of JAX: jax\.nn\.relu",
    ),
    ("called flatten", lambda: serial(flatten()), TypeError, r"flatten\(\) missing .*'x'"),
    (
        "a list as kernel",
        lambda: dense(1).apply({"kernel": [[1.0]], "bias": np.zeros(1)}, {}, np.ones((1, 1)), train=False),
        TypeError,
        r"kernel must be an array, got \[\[1\.0\]\]",
    ),
    ("a mode as padding", lambda: conv(3, padding="REFLECT"), ValueError, r"pass padding_mode='reflect'"),
    (
        "a called layer",
        lambda: conv(3)(IMAGE),
        TypeError,
        r"use y, state = layer\.apply\(params, state, x, train=False\)",
    ),
    ("a layer as norm", lambda: resnet50(norm=jaxcnn.batch_norm()), TypeError, r"norm must be a function that makes"),
    *(
        (
            f"apply without state, {count} images",
            lambda count=count: use(serial(a=without_state), (count, 3)),
            TypeError,
            r"(?s)apply must return \(y, state\), where state is a dict, got float32 of shape.*in layer 'a'",
        )
        for count in (1, 2, 3)
    ),
    (
        "apply without state, not initialized",
        lambda: serial(a=without_state).apply({}, {}, np.ones((2, 3)), train=False),
        TypeError,
        r"(?s)apply must return \(y, state\), .*in layer 'a'",
    ),
    ("a list", lambda: serial([conv(3), flatten]), TypeError, r"expected a Layer .*unpack it: serial\(\*layers\)"),
    ("None", lambda: serial(conv(3), None), TypeError, r"(?s)expected a Layer .*got None.*in layer '1'"),
    ("a string", lambda: serial(act="relu"), TypeError, r"(?s)expected a Layer .*got 'relu'.*in layer 'act'"),
    ("a slash", lambda: serial(**{"a/b": conv(3)}), ValueError, r"invalid layer name 'a/b': .*slash"),
    ("no name", lambda: serial(**{"": conv(3)}), ValueError, r"invalid layer name ''.*empty"),
    (
        "a name twice",
        lambda: serial(conv(3), **{"0": conv(3)}),
        ValueError,
        r"invalid layer name '0': it is already used",
    ),
    (
        "parallel, no combine",
        lambda: parallel(conv(3), conv(3)),
        TypeError,
        r"parallel: the first argument must be a function that combines",
    ),
    *(
        (
            f"{name} of a pair",
            functools.partial(use, layer, IMAGE),
            TypeError,
            rf"{name} needs a layer that returns an array, got \(",
        )
        for name, layer in (
            ("residual", residual(lambda x: (x, x))),
            ("residual", residual(conv(3), lambda x: (x, x))),
            ("repeat", repeat(lambda x: (x, x), 2)),
            ("concatenate", concatenate(conv(3), lambda x: (x, x))),
        )
    ),
    ("repeat, n first", lambda: repeat(3, dense(8)), TypeError, r"expected a Layer .*got 3"),
    (
        "a number as penalty",
        lambda: regularized(cross_entropy(NET), 1e-4),
        TypeError,
        r"such as l2\(1e-4\), got 0\.0001",
    ),
    (
        "evaluate a model",
        lambda: evaluate(as_layer(identity), {}, {}, DATA),
        TypeError,
        r"loss_fn|LossFn|cross_entropy",
    ),
    ("train a model", lambda: step(NET, optax.sgd(0.1)), TypeError, r"loss_fn|LossFn|cross_entropy"),
    ("optimizer uncalled", lambda: step(cross_entropy(NET), optax.sgd), TypeError, r"optimizer"),
    ("learning rate as optimizer", lambda: step(cross_entropy(NET), 0.1), TypeError, r"optimizer.*0\.1"),
    ("summary of params", lambda: summary(CONV, spec(IMAGE)), TypeError, r"expected a Layer"),
)

LABELS = table(
    (
        "one-hot, too narrow",
        lambda: loss(LOGITS, zeros(4, 9)),
        ValueError,
        r"\(4, 9\).*logits \(4, 10\).*classes \(N,\)",
    ),
    (
        "one-hot of ints",
        lambda: loss(LOGITS, np.zeros((4, 10), int)),
        ValueError,
        r"dtype int.*floating-point class probabilities",
    ),
    ("a column", lambda: loss(LOGITS, np.zeros((4, 1), int)), ValueError, r"labels of shape \(4, 1\).*classes \(N,\)"),
    ("too many", lambda: loss(LOGITS, np.zeros(5, int)), ValueError, r"labels of shape \(5,\).*logits \(4, 10\)"),
    ("floats", lambda: loss(LOGITS, zeros(4)), ValueError, r"dtype float32.*convert them, as in label.astype\(np.int"),
    ("bools", lambda: loss(LOGITS, np.zeros(4, bool)), ValueError, r"dtype bool.*convert them, as in label.astype"),
    (
        "class names as labels",
        lambda: jaxcnn.train.fit(NET, {"image": LOGITS, "label": np.array(["a", "b", "a", "b"])}),
        TypeError,
        r"'label' must be an array of numbers.*np.unique\(labels, return_inverse=True\) numbers them",
    ),
    ("a signal without channels", lambda: conv(3).init(KEY, zeros(4, 10)), ValueError, r"for signals \(N, T\), pass x"),
    (
        "an image without channels",
        lambda: use(conv(3), (2, 8, 8, 1), (2, 8, 8)),
        ValueError,
        r"or is the dimension of the batch \(x\[None\]\) or of the channels \(x\[..., None\]\) missing\?",
    ),
    (
        "channels first",
        lambda: use(conv(3), (2, 8, 8, 3), (2, 3, 8, 8)),
        ValueError,
        r"or is it \(N, C, H, W\), so that it needs x.transpose\(0, 2, 3, 1\)\?",
    ),
    (
        "a name of an activation",
        lambda: serial(conv(3), "relu"),
        TypeError,
        "'relu', which is a str; activation functions",
    ),
    (
        "a loss instead of a model",
        lambda: TrainState.create(cross_entropy(NET), optax.sgd(0.1), KEY, LOGITS),
        TypeError,
        "expected a Layer or a function x -> y, got loss_fn, which cannot be called with x alone",
    ),
    ("init without an input", lambda: serial(dense(2)).init(KEY), TypeError, r"serial.init\(\) missing 1 required"),
    (
        "parameters of a part of the model",
        lambda: jaxcnn.weights.transplant({"body": {"a": zeros(1)}, "head": {"b": zeros(1)}}, {"a": zeros(1)}),
        ValueError,
        r"the model has no a; .*is the part that of body, as in \{'body': part\}\?",
    ),
    (
        "parameters of another number of classes",
        lambda: jaxcnn.weights.transplant({"head": zeros(2)}, {"head": zeros(3)}),
        ValueError,
        r"head has shape \(3,\), the model needs \(2,\); leave out layers that differ, such as the last one",
    ),
    (
        "a synonym in a sweep",
        lambda: jaxcnn.train.sweep(NET, DATA, over={"lr": [0.1, 0.2]}),
        ValueError,
        "unknown 'lr'; expected one of: .*; did you mean 'optimizer.learning_rate'",
    ),
    (
        "a map of logits",
        lambda: loss(zeros(4, 2, 2, 10), CLASSES),
        ValueError,
        r"do not fit logits \(4, 2, 2, 10\).*logits \(N, classes\): end the model with a global pool",
    ),
    (
        "column and row",
        lambda: loss(zeros(4, 1), zeros(4), mean_squared_error),
        ValueError,
        r"mean_squared_error: the output has shape \(4, 1\), but the labels have shape \(4,\)",
    ),
    (
        "no label",
        lambda: cross_entropy(as_layer(identity))({}, {}, {"image": LOGITS, "labels": CLASSES}, train=False),
        (KeyError, ValueError),
        r"batch.*'label'",
    ),
    (
        "a pair as batch",
        lambda: cross_entropy(as_layer(identity))({}, {}, (LOGITS, CLASSES), train=False),
        TypeError,
        r"batch .*dict",
    ),
    (
        "classes from 1",
        lambda: loss(zeros(3, 2), np.array([1, 2, 1])),
        ValueError,
        r"label\[1\] is 2, .* labels start at 1: subtract 1$",
    ),
    (
        "classes from 1, ignored ones",
        lambda: loss(zeros(3, 2), np.array([1, 2, 0]), make=functools.partial(cross_entropy, ignore_label=0)),
        ValueError,
        r"labels start at 1: subtract 1$",
    ),
    ("classes from 0", lambda: loss(zeros(3, 2), np.array([1, 2, 0])), ValueError, r"label\[1\] is 2, .*correct the"),
    *(
        (f"weight {value}", functools.partial(loss, LOGITS, CLASSES, weight=weight, **more), ValueError, message)
        for value in (-1, np.nan, np.inf)
        for weight in (np.array([1, value, 1, 1], np.float32),)
        for message in (rf"weights of a batch must be finite and at least 0, but weight\[1\] is {value}",)
        for more in (
            {},
            {"transform": mixup, "train": True, "key": KEY},
            {"transform": lambda f: jaxcnn.clip_per_example(f, 1.0), "train": True},
        )
    ),
    (
        "member_weight",
        lambda: jaxcnn.per_member(cross_entropy)(as_layer(lambda x: x[None]))(
            {}, {}, DATA | {"member_weight": -np.ones((4, 1))}, train=True
        ),
        ValueError,
        r"weights of a batch must be finite .*, but member_weight\[0, 0\] is -1",
    ),
    *(
        (
            f"{make.__name__} of {kind}",
            functools.partial(loss, output, zeros(4, 10), make=make),
            TypeError,
            f"{make.__name__}: the output of the model must be {message}",
        )
        for make in ANY_LOSS
        for kind, output, message in (
            ("complex numbers", LOGITS * 1j, r"floating-point, got complex64 of shape \(4, 10\); use jnp\.real"),
            ("integers", LOGITS.astype(int), r"floating-point, got int.* of shape \(4, 10\); convert it, as in"),
        )
    ),
    *(
        (
            f"{make.__name__} of a tuple",
            functools.partial(loss, (LOGITS, LOGITS), zeros(4, 10), make=make),
            TypeError,
            rf"{make.__name__}: the output of the model must be one array, got \('float32 of shape",
        )
        for make in ANY_LOSS[2:]
    ),
    *(
        (
            f"{make.__name__} of a scalar",
            functools.partial(loss, np.zeros(()), np.zeros(()), make=make),
            ValueError,
            rf"{make.__name__} needs logits \(N, \*spatial, K\), but the model gives a scalar",
        )
        for make in (jaxcnn.binary_cross_entropy, jaxcnn.dice)
    ),
    *(
        (f"{make.__name__} of None", functools.partial(loss, LOGITS, None, make=make), ValueError, r"shape \(\)")
        for make in ANY_LOSS
    ),
    (
        "a teacher with heads",
        lambda: loss(LOGITS, CLASSES, make=jaxcnn.distillation(cross_entropy, lambda x: (x, x)), train=True),
        TypeError,
        "distillation: the output of the teacher must be one array, got",
    ),
    ("weights, a column", lambda: loss(LOGITS, CLASSES, weight=zeros(4, 1)), ValueError, r"weight.*\(4, 1\)"),
    ("weights, too many", lambda: loss(LOGITS, CLASSES, weight=zeros(5)), ValueError, r"weight.*\(5,\)"),
    (
        "evaluate, too few",
        lambda: evaluate(cross_entropy(NET), {}, {}, {"image": LOGITS, "label": CLASSES[1:]}),
        ValueError,
        r"evaluate needs entries of the same length.*'image': 4, 'label': 3",
    ),
    (
        "evaluate, none",
        lambda: evaluate(cross_entropy(NET), {}, {}, {}),
        ValueError,
        r"evaluate needs .*at least 1, got .*\{\}",
    ),
)


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    SHAPES + EMPTY + NO_ARRAYS + OPTIONS + DTYPES + APPLY + TREES + PATTERNS + COMPOSITION + LABELS,
)
def test_mistake(mistake, error, message):
    with pytest.raises(error, match=message) as caught:
        mistake()
    assert len(str(caught.value)) < 600, "a message is there to be read: no dump of arrays"


NAMES_LAYERS = {jaxcnn.concatenate, jaxcnn.parallel, jaxcnn.serial}  # by keywords
PUBLIC = [
    pytest.param(value, id=name)
    for name, value in public_names().items()
    if (inspect.isfunction(value) and value not in NAMES_LAYERS) or value is jaxcnn.Layer
]
FIRST = {
    jaxcnn.jit: (abs,),
    jaxcnn.models.backbone: ("resnet18",),
    jaxcnn.weights.from_torch: ("resnet18", {}),
    jaxcnn.weights.load: ("weights.npz",),
    jaxcnn.weights.match: ("resnet18", {}),
}  # what must be there before a keyword is looked at


@pytest.mark.parametrize("function", PUBLIC)
def test_typo_in_a_keyword(function):
    with pytest.raises(TypeError, match="typo"):
        function(*FIRST.get(function, ()), typo=1)


def test_misspelled_name_is_an_error_for_which_python_suggests_a_name():
    with pytest.raises(AttributeError, match=r"^module 'jaxcnn' has no attribute 'batchnorm'$") as caught:
        operator.attrgetter("batchnorm")(jaxcnn)
    assert (caught.value.name, caught.value.obj) == ("batchnorm", jaxcnn)


def test_typo_covers_the_constructors():
    assert len(PUBLIC) > 300


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (max_pool(9), IMAGE),
        (pixel_shuffle(2), IMAGE),
        (jaxcnn.upsample(2), (8, 3)),
        (serial(pool=jaxcnn.global_max_pool), (8, 3)),
        (jaxcnn.squeeze_excite(2), (8, 3)),
    ],
    ids=["max_pool", "pixel_shuffle", "upsample", "global_max_pool", "squeeze_excite"],
)
def test_nobody_is_told_to_call_what_is_called(layer, shape):
    with pytest.raises(ValueError, match=r"got shape|has shape|of input") as caught:
        use(layer, shape)
    assert not [note for note in getattr(caught.value, "__notes__", []) if "constructor" in note]


def test_plain_function_is_a_model_for_a_loss():
    value, _ = cross_entropy(identity)({}, {}, DATA, train=False)
    np.testing.assert_allclose(value, np.log(10), rtol=1e-6)


def test_plain_function_is_a_model_for_summary():
    assert [layer.output.shape for layer in summary(flatten, spec(IMAGE)).layers] == [(2, 192)]


@pytest.mark.parametrize("label", [10, -1, 2**31 - 1])
def test_label_out_of_range_gives_no_plausible_loss(label):
    batch = {"image": LOGITS, "label": np.array([0, 1, 2, label])}
    loss_fn = functools.partial(cross_entropy(as_layer(identity)), {}, {}, train=False)
    with pytest.raises(
        ValueError, match=rf"label\[3\] is {label}, but the model has 10 outputs, for labels from 0 to 9"
    ):
        loss_fn(batch)
    value, (_, metrics) = jax.jit(loss_fn)(batch)  # a compiled program cannot raise
    assert np.isnan(value)
    assert np.isnan(metrics["loss"])


def test_label_in_range_gives_a_loss():
    np.testing.assert_allclose(loss(LOGITS, np.array([0, 1, 2, 9])), np.log(10), rtol=1e-6)


def test_error_of_a_function_of_ones_own_passes_unchanged():
    def broken(x):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match=re.compile("^mine\nin layer 'block/broken'$")):
        serial(block=serial(broken=broken)).apply({}, {}, LOGITS, train=False)


def test_switches_of_numpy():
    assert repr(conv(2, bias=np.False_)) == "conv(2, bias=False)"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: jaxcnn.deform_conv(4, kernel_init=0.0), TypeError, "deform_conv: kernel_init"),
        (lambda: jaxcnn.models.resnet18(width=128), ValueError, "resnet: groups=1 and width=128 have no effect"),
        (lambda: jaxcnn.models.resnet18(norm=None), TypeError, "resnet18: norm must be a function that makes a layer"),
        (
            lambda: jaxcnn.models.vgg11(norm="batch_norm"),
            TypeError,
            "vgg11: norm must be a function that makes a layer",
        ),
        (
            lambda: depthwise_conv().apply({}, {}, (jnp.ones((1, 8, 8, 3)), 1), train=False),
            TypeError,
            "depthwise_conv needs an array",
        ),
        (lambda: jax.jit(lambda s: jaxcnn.prelu(slope=s))(0.1), TypeError, "slope must be known at compilation"),
        (lambda: jaxcnn.batch_norm(eps=True), TypeError, "batch_norm: eps must be a number, got True"),
        (lambda: jaxcnn.dropout(np.True_), TypeError, "must be a number, got"),
        (
            lambda: jaxcnn.local_response_norm().apply({}, {}, jnp.ones(()), train=False),
            ValueError,
            "local_response_norm needs input (N, ..., C), got a scalar",
        ),
    ],
)
def test_arguments_that_were_accepted_or_refused_by_jax(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
    jaxcnn.models.vgg11(norm=None)  # its default

"""Networks for signals and time series, with 1-D convolutions."""

import jax

from jaxcnn._combine import AnyLayer, concatenate, residual, serial
from jaxcnn._conv import conv
from jaxcnn._dense import identity
from jaxcnn._layer import Layer, from_input_shape
from jaxcnn._norm import batch_norm
from jaxcnn._pool import global_avg_pool, max_pool
from jaxcnn.models._unit import Norm, conv_norm_act, head
from jaxcnn.models._variant import input_shape


@input_shape(128, 1)
def fcn1d(
    classes: int | None = 2,
    *,
    widths: tuple[int, ...] = (128, 256, 128),
    kernels: tuple[int, ...] = (8, 5, 3),
    norm: Norm = batch_norm,
) -> Layer:
    """(N, T, C) -> (N, classes): FCN, the fully convolutional network for time series.

    y = dense(mean over T of f3(f2(f1(x)))),  f = relu(norm(conv(x)))

    New in 2017: no pooling before the mean over time, so that the network accepts any length, and no preprocessing
    except normalization. It was among the most accurate classifiers on the UCR archive. The convolutions have no bias,
    because a norm follows.

    Variants, for 128 steps of one channel:
        name   parameters  multiply-adds
        fcn1d     264,450         33.7 M

    Args:
        classes: number of classes; None gives the features (N, widths[-1]).
        widths: channels of each convolution.
        kernels: kernel size of each convolution, in steps.
        norm: constructor of a normalization layer.

    Raises:
        ValueError: for other numbers of kernels than widths.

    Example:
        >>> params, _ = jax.eval_shape(jaxcnn.models.fcn1d().init, jax.random.key(0), jnp.zeros((1, 150, 1)))
        >>> jaxcnn.count_params(params)
        264450

    Source: Wang, Yan and Oates, "Time series classification from scratch with deep neural networks: a strong
    baseline", 2017.
    """
    if len(kernels) != len(widths):
        raise ValueError(f"kernels={kernels!r} must have one entry per convolution, got widths={widths!r}")
    layers = {
        f"conv{i}": conv_norm_act(width, kernel, padding="SAME", norm=norm)
        for i, (width, kernel) in enumerate(zip(widths, kernels, strict=True), 1)
    }
    return serial(**layers, features=global_avg_pool, **head(classes))


@input_shape(128, 1)
def resnet1d(
    classes: int | None = 2,
    *,
    widths: tuple[int, ...] = (64, 128, 128),
    kernels: tuple[int, ...] = (8, 5, 3),
    norm: Norm = batch_norm,
) -> Layer:
    """(N, T, C) -> (N, classes): ResNet for time series.

    y = relu(shortcut(x) + f(x))

    Each block f has one convolution per kernel size, each with a norm. The shortcut has a norm as well, after a
    convolution of size 1 where the channels change. The length stays the same up to the mean over time.

    Variants, for 128 steps of one channel:
        name      parameters  multiply-adds
        resnet1d     503,106         64.0 M

    Args:
        classes: number of classes; None gives the features (N, widths[-1]).
        widths: channels of each block.
        kernels: kernel size of each convolution of a block, in steps.
        norm: constructor of a normalization layer.

    Example:
        >>> model = jaxcnn.models.resnet1d(classes=5)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 150, 3)))[0]["head"]["kernel"].shape
        (128, 5)

    Source: Wang, Yan and Oates, "Time series classification from scratch with deep neural networks: a strong
    baseline", 2017.
    """

    def block(width: int, project: bool) -> Layer:
        *first, last = kernels
        branch = {
            f"conv{i}": conv_norm_act(width, kernel, padding="SAME", norm=norm) for i, kernel in enumerate(first, 1)
        }
        branch["last"] = conv_norm_act(width, last, padding="SAME", norm=norm, act=identity)
        shortcut = conv_norm_act(width, 1, norm=norm, act=identity) if project else serial(norm=norm())
        return serial(sum=residual(serial(**branch), shortcut), relu=jax.nn.relu)

    blocks = {
        f"block{i}": block(width, project=width != before)
        for i, (width, before) in enumerate(zip(widths, (None, *widths), strict=False), 1)
    }
    return serial(**blocks, features=global_avg_pool, **head(classes))


@input_shape(128, 1)
def inception_time(
    classes: int | None = 2,
    *,
    depth: int = 6,
    width: int = 32,
    kernels: tuple[int, ...] = (40, 20, 10),
    norm: Norm = batch_norm,
) -> Layer:
    """(N, T, C) -> (N, classes): one network of InceptionTime, an ensemble of five.

    y = relu(norm([conv1(r), conv2(r), conv3(r), conv(max_pool(x))])),  r = reduce(x)

    New in 2020: parallel convolutions with kernels of up to 40 steps, so that six modules have a receptive field of 235
    steps. r is a convolution of size 1 that reduces x to `width` channels, or x itself if it has no
    more. After every third module, a shortcut with a convolution of size 1 and a norm is added. The kernels are those
    of the paper, which are even; some later implementations use the odd 39, 19 and 9.

    Variants, for 128 steps of one channel:
        name            parameters  multiply-adds
        inception_time     420,450         53.5 M

    Args:
        classes: number of classes; None gives the features (N, (len(kernels) + 1) * width).
        depth: number of modules, a multiple of 3.
        width: channels of each branch.
        kernels: kernel sizes of the convolutions of a module, in steps.
        norm: constructor of a normalization layer.

    Raises:
        ValueError: for a depth that is not a multiple of 3.

    Example:
        >>> model = jaxcnn.models.inception_time(classes=5)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 150, 3)))[0]["head"]["kernel"].shape
        (128, 5)

    Source: Ismail Fawaz et al., "InceptionTime: finding AlexNet for time series classification", 2020.
    """
    if depth < 3 or depth % 3:
        raise ValueError(f"depth must be a multiple of 3, for example 6, got {depth}")

    def module() -> Layer:
        branches = {f"conv{i}": conv(width, kernel, bias=False) for i, kernel in enumerate(kernels, 1)}
        pooled = serial(pool=max_pool(3, stride=1, padding=1), conv=conv(width, 1, bias=False))

        def layers(shape: tuple[int, ...]) -> Layer:
            reduce: AnyLayer = conv(width, 1, bias=False) if shape[-1] > width else identity
            convolved = serial(reduce=reduce, convs=concatenate(**branches))
            return serial(branches=concatenate(convolved=convolved, pooled=pooled), norm=norm(), relu=jax.nn.relu)

        return from_input_shape(layers)

    channels = (len(kernels) + 1) * width
    groups = {
        f"group{i}": serial(
            sum=residual(serial(module(), module(), module()), conv_norm_act(channels, 1, norm=norm, act=identity)),
            relu=jax.nn.relu,
        )
        for i in range(1, depth // 3 + 1)
    }
    return serial(**groups, features=global_avg_pool, **head(classes))

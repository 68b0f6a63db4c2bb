"""RepVGG: trained with three branches per block, evaluated as a chain of 3x3 convolutions."""

import functools
import operator

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_number, short_repr
from jaxcnn._combine import parallel, serial
from jaxcnn._conv import conv
from jaxcnn._dense import identity
from jaxcnn._layer import Layer, Params, State, constructor, from_input_shape
from jaxcnn._norm import batch_norm
from jaxcnn._numeric import align_trailing
from jaxcnn._pool import global_avg_pool
from jaxcnn.models._unit import Norm, conv_norm_act, head
from jaxcnn.models._variant import variant

BRANCHES = ("conv3", "conv1", "norm")


@constructor
def repvgg(
    classes: int | None = 1000,
    *,
    depths: tuple[int, ...] = (2, 4, 14, 1),
    widths: tuple[int, ...],
    fused: bool = False,
    norm: Norm = batch_norm,
    dropout: float = 0.0,
) -> Layer:
    """(N, H, W, 3) -> (N, classes): RepVGG.

    block(x) = relu(norm(conv3x3(x)) + norm(conv1x1(x)) + norm(x)),  without norm(x) if the shape changes

    New in 2021: the three branches make training easier. In evaluation each of them is a 3x3 convolution with a bias,
    and so is their sum. The network is then a plain chain of 3x3 convolutions and ReLUs, which runs fast on GPUs.
    `fuse_repvgg` converts the trained parameters to those of this chain, `fused=True`.

    Variants, for 224x224, before fusion (the paper's top-1):
        name       parameters  multiply-adds  top-1
        repvgg_a0   9,108,968        1.513 G  72.41
        repvgg_a1  14,092,264        2.626 G  74.46
        repvgg_a2  28,210,600        5.685 G  76.48

    Args:
        classes: number of classes; None gives the features (N, C).
        depths: blocks per stage.
        widths: channels per stage. The first convolution has min(64, widths[0]).
        fused: True for the chain of 3x3 convolutions, without normalization.
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer.

    Example:
        >>> model = jaxcnn.models.repvgg_a0(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (1280, 10)

    Source: Ding, Zhang, Ma, Han, Ding and Sun, "RepVGG: making VGG-style ConvNets great again", 2021.
    """

    def add(*ys):
        return functools.reduce(operator.add, ys)

    def block(features, stride):
        if fused:
            return serial(conv=conv(features, 3, stride=stride, padding=1), relu=jax.nn.relu)

        def build(shape):
            conv3, conv1 = (conv_norm_act(features, n, stride=stride, norm=norm, act=identity) for n in (3, 1))
            branches = {"conv3": conv3, "conv1": conv1}
            if stride == 1 and shape[-1] == features:
                branches["norm"] = norm()
            return serial(sum=parallel(add, **branches), relu=jax.nn.relu)

        return from_input_shape(build)

    layers = {"stem": block(min(64, widths[0]), 2)}
    for stage, (depth, features) in enumerate(zip(depths, widths, strict=True), 1):
        layers[f"stage{stage}"] = serial(*(block(features, 1 if i else 2) for i in range(depth)))
    return serial(**layers, features=global_avg_pool, **head(classes, dropout))


def fuse_repvgg(params: Params, state: State, *, eps: float = 1e-5) -> Params:
    """(params, state) of a RepVGG -> params of the same network with fused=True, which has no state.

    kernel = s3 kernel3 + s1 pad(kernel1) + s0 identity,  bias = sum_i (bias_i - s_i mean_i)

    with s_i = scale_i / sqrt(var_i + eps) of the norms of the three branches. The outputs are those of the trained
    network in evaluation, up to rounding.

    Args:
        params, state: of `repvgg_a0` or another RepVGG with batch norm.
        eps: that of the norms.

    Params:
        conv/kernel (3, 3, C, features) and conv/bias (features,) per block. All other layers keep theirs.

    Raises:
        ValueError: if `params` has no block of branches, or a norm is not a batch norm with scale and bias.

    Example:
        >>> model, plain = (jaxcnn.models.repvgg_a0(classes=10, fused=fused) for fused in (False, True))
        >>> params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
        >>> fused = jax.eval_shape(jaxcnn.models.fuse_repvgg, params, state)
        >>> jaxcnn.count_params(params), jaxcnn.count_params(fused)
        (7840778, 7041194)

    Source: Ding et al., "RepVGG: making VGG-style ConvNets great again", 2021.
    """
    eps = check_number("fuse_repvgg", "eps", eps)
    fused, count = _fused(params, state, eps, "")
    if not count:
        raise ValueError(f"fuse_repvgg: no block in params {short_repr(params)} has the branches of a RepVGG")
    return fused


def _fused(params: Params, state: State, eps: float, path: str) -> tuple[Params, int]:
    """Replace the branches of each block by one convolution, and count the blocks."""
    result, count = {}, 0
    for name, child in params.items():
        inner = state.get(name, {})
        if name == "sum" and isinstance(child, dict) and {"conv1", "conv3"} <= child.keys() <= {*BRANCHES}:
            branches = [_as_conv3(child[part], inner.get(part, {}), eps, f"{path}{name}/{part}") for part in child]
            kernels, biases = zip(*branches, strict=True)
            result["conv"], count = {"kernel": sum(kernels), "bias": sum(biases)}, count + 1
        elif isinstance(child, dict):
            result[name], inside = _fused(child, inner, eps, f"{path}{name}/")
            count += inside
        else:
            result[name] = child
    return result, count


def _as_conv3(params: Params, state: State, eps: float, path: str) -> tuple[jax.Array, jax.Array]:
    """Return kernel and bias of the 3x3 convolution that equals a branch in evaluation."""
    norm, moments = params.get("norm", params), state.get("norm", state)
    if not {"scale", "bias"} <= norm.keys() or moments.keys() != {"mean", "var"}:
        raise ValueError(
            f"fuse_repvgg: {path} needs a batch norm with scale, bias, mean and var, got {sorted(norm)} in params and "
            f"{sorted(moments)} in state; pass the params and state of the network in training form"
        )
    scale = norm["scale"] / jnp.sqrt(moments["var"] + eps)
    kernel = params["conv"]["kernel"] if "conv" in params else jnp.eye(scale.size, dtype=scale.dtype)[None, None]
    margin = 1 - kernel.shape[0] // 2
    kernel = jnp.pad(kernel, ((margin, margin), (margin, margin), (0, 0), (0, 0)))
    return align_trailing(scale, kernel) * kernel, norm["bias"] - moments["mean"] * scale


repvgg_a0 = variant("repvgg_a0", repvgg, widths=(48, 96, 192, 1280))
repvgg_a1 = variant("repvgg_a1", repvgg, widths=(64, 128, 256, 1280))
repvgg_a2 = variant("repvgg_a2", repvgg, widths=(96, 192, 384, 1408))

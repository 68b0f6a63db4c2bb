"""High-resolution network: branches of several resolutions side by side, which exchange their features."""

import functools
import operator
from collections.abc import Iterable
from operator import itemgetter

import jax

from jaxcnn._combine import parallel, residual, serial
from jaxcnn._conv import conv
from jaxcnn._dense import identity
from jaxcnn._layer import Layer, constructor
from jaxcnn._norm import batch_norm
from jaxcnn._pool import global_avg_pool
from jaxcnn._resize import upsample
from jaxcnn.models._unit import Norm, conv_norm_act, head
from jaxcnn.models._variant import variant


@constructor
def hrnet(classes: int | None = 1000, *, width: int = 18, norm: Norm = batch_norm, dropout: float = 0.0) -> Layer:
    """(N, H, W, 3) -> (N, classes): HRNet.

    y[i] = relu(sum_j f_ij(branch_j(x[j]))),  x[i]: the map of stride 4 * 2^i

    New in 2019: the network keeps a map of stride 4 to its end, for tasks that need positions. Each further stage adds
    a branch of half the resolution. After every four blocks, each branch adds the maps of all the others: f_ij is 3x3
    convolutions of stride 2 for finer maps j < i, and a 1x1 convolution with upsampling for coarser ones. The
    classifier merges the four maps from fine to coarse. `backbone` returns them.

    Variants, for 224x224 (top-1 of the authors' weights):
        name       parameters  multiply-adds  top-1
        hrnet_w18  21,299,004        4.284 G  76.75

    Args:
        classes: number of classes; None gives the features (N, 2048).
        width: channels of the finest branch. Each coarser branch has twice as many.
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer.

    Example:
        >>> lower = jaxcnn.models.backbone("hrnet_w18", outputs={"maps": "stage2"})
        >>> x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        >>> params, state = jax.eval_shape(lower.init, jax.random.key(0), x)
        >>> y, _ = jax.eval_shape(lambda *a: lower.apply(*a, train=False), params, state, x)
        >>> [map.shape for map in y["maps"]]
        [(1, 16, 16, 18), (1, 8, 8, 36)]

    Source: Wang et al., "Deep high-resolution representation learning for visual recognition", 2019.
    """
    unit = functools.partial(conv_norm_act, norm=norm)
    halved = functools.partial(unit, size=3, stride=2)
    channels = [width * 2**i for i in range(4)]

    def basic(features):
        branch = serial(
            conv1=conv(features, 3, padding=1, bias=False),
            norm1=norm(),
            relu1=jax.nn.relu,
            conv2=conv(features, 3, padding=1, bias=False),
            norm2=norm(),
        )
        return serial(sum=residual(branch), relu=jax.nn.relu)

    def bottleneck(features, project):
        branch = serial(
            conv1=conv(features // 4, 1, bias=False),
            norm1=norm(),
            relu1=jax.nn.relu,
            conv2=conv(features // 4, 3, padding=1, bias=False),
            norm2=norm(),
            relu2=jax.nn.relu,
            conv3=conv(features, 1, bias=False),
            norm3=norm(),
        )
        shortcut = unit(features, 1, act=identity) if project else identity
        return serial(sum=residual(branch, shortcut), relu=jax.nn.relu)

    def exchange(i, j):
        """x -> the map of branch j with the channels and the size of branch i."""
        if j > i:
            return serial(x=itemgetter(j), unit=unit(channels[i], 1, act=identity), up=upsample(2 ** (j - i)))
        steps = [*(halved(channels[j]) for _ in range(i - j - 1)), halved(channels[i], act=identity)]
        return serial(x=itemgetter(j), **_numbered(steps if j < i else ()))

    def fuse(i, count):
        def add(*ys):
            _, height, width, _ = ys[i].shape  # if it is odd, an upsampled map is larger
            return functools.reduce(operator.add, (y[:, :height, :width] for y in ys))

        return serial(sum=parallel(add, *(exchange(i, j) for j in range(count))), relu=jax.nn.relu)

    def module(count):
        branches = [serial(x=itemgetter(i), **_numbered(basic(channels[i]) for _ in range(4))) for i in range(count)]
        return serial(
            branches=parallel(_tuple, *branches), fuse=parallel(_tuple, *(fuse(i, count) for i in range(count)))
        )

    def stage(count, modules):
        coarsest = {str(count - 1): serial(x=itemgetter(-1), unit=halved(channels[count - 1]))}
        transition = parallel(lambda xs, y: (*xs, y), xs=identity, **coarsest)
        if count == 2:
            transition = parallel(_tuple, **{"0": unit(width), "1": serial(unit=halved(channels[1]))})
        return serial(transition=transition, **_numbered(module(count) for _ in range(modules)))

    def merge():
        wide = [serial(x=itemgetter(i), block=bottleneck(128 * 2**i, project=True)) for i in range(4)]
        steps = {"increase": parallel(_tuple, *wide)}
        for i in range(3):
            down = serial(x=itemgetter(0), conv=conv(256 * 2**i, 3, stride=2, padding=1), norm=norm(), act=jax.nn.relu)
            steps[f"down{i}"] = parallel(lambda y, xs: (xs[1] + y, *xs[2:]), unit=down, xs=identity)
        top = serial(x=itemgetter(0), conv=conv(2048, 1), norm=norm(), act=jax.nn.relu)
        return serial(**steps, top=top, pool=global_avg_pool)

    return serial(
        stem1=halved(64),
        stem2=halved(64),
        stage1=serial(*(bottleneck(256, project=i == 0) for i in range(4))),
        stage2=stage(2, 1),
        stage3=stage(3, 4),
        stage4=stage(4, 3),
        merge=merge(),
        **head(classes, dropout),
    )


def _numbered(layers: Iterable[Layer]) -> dict[str, Layer]:
    return {str(i): layer for i, layer in enumerate(layers)}


def _tuple(*ys: jax.Array) -> tuple[jax.Array, ...]:
    return ys


hrnet_w18 = variant("hrnet_w18", hrnet)

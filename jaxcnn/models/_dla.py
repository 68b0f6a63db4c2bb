"""Deep layer aggregation: trees of blocks, whose roots combine the outputs of all depths."""

from operator import itemgetter

import jax
import jax.numpy as jnp

from jaxcnn._combine import parallel, residual, serial
from jaxcnn._conv import conv
from jaxcnn._dense import identity
from jaxcnn._layer import Layer
from jaxcnn._norm import batch_norm
from jaxcnn._pool import global_avg_pool, max_pool
from jaxcnn.models._unit import Norm, conv_norm_act, head
from jaxcnn.models._variant import input_shape


@input_shape(224, 224, 3)
def dla34(classes: int | None = 1000, *, norm: Norm = batch_norm, dropout: float = 0.0) -> Layer:
    """(N, H, W, 3) -> (N, classes): DLA-34.

    tree(x) = root(b, a, ..),  a = block(x), b = block(a),  root(..) = relu(norm(conv1x1(concatenate(..))))

    New in 2018: a deep network whose skip connections form a tree. A root combines the outputs of the last blocks, of
    the trees before it and of the last stage, so that shallow and deep features merge at many depths. The blocks are
    those of ResNet-18. DLA-34 is common in detectors of objects as points. Its strided convolutions and pools have the
    same output size only if the sides of the image are multiples of 32.

    Variants, for 224x224 (top-1: timm's):
        name   parameters  multiply-adds  top-1
        dla34  15,742,104        3.060 G  74.6

    Args:
        classes: number of classes; None gives the features (N, 512).
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer.

    Example:
        >>> model = jaxcnn.models.dla34(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (512, 10)

    Source: Yu, Wang, Shelhamer and Darrell, "Deep layer aggregation", 2018.
    """

    def block(features, stride):
        branch = {
            "conv1": conv(features, 3, stride=stride, padding=1, bias=False),
            "norm1": norm(),
            "relu1": jax.nn.relu,
            "conv2": conv(features, 3, padding=1, bias=False),
            "norm2": norm(),
        }
        project = serial(pool=max_pool(stride), unit=conv_norm_act(features, 1, norm=norm, act=identity))
        sum_ = residual(serial(**branch), project if stride > 1 else identity)
        return serial(x=itemgetter(0), sum=sum_, relu=jax.nn.relu)

    def tree(levels, features, stride):
        """The layers of (x, *children) -> root(b, a, *children)."""
        if levels > 1:
            first = serial(x=itemgetter(slice(1)), **tree(levels - 1, features, stride))
            tree1 = parallel(lambda a, xs: (a, *xs[1:], a), new=first, xs=identity)
            return {"tree1": tree1, "tree2": serial(**tree(levels - 1, features, 1))}
        return {
            "tree1": parallel(lambda a, xs: (a, *xs[1:]), new=block(features, stride), xs=identity),
            "tree2": parallel(lambda b, xs: (b, *xs), new=block(features, 1), xs=identity),
            "root": serial(join=lambda xs: jnp.concatenate(xs, -1), unit=conv_norm_act(features, 1, norm=norm)),
        }

    layers = {
        "stem": conv_norm_act(16, 7, norm=norm),
        "level0": conv_norm_act(16, 3, norm=norm),
        "level1": conv_norm_act(32, 3, stride=2, norm=norm),
        "level2": serial(x=lambda x: (x,), **tree(1, 64, 2)),
    }
    for i, levels, features in ((3, 2, 128), (4, 2, 256), (5, 1, 512)):
        # the root of each later stage has the stage before it as a child, too
        with_child = parallel(lambda *xs: xs, identity, max_pool(2))
        layers[f"level{i}"] = serial(x=with_child, **tree(levels, features, 2))
    return serial(**layers, features=global_avg_pool, **head(classes, dropout))

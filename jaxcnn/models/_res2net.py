"""Res2Net: residual networks whose blocks have several scales."""

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_integer
from jaxcnn._combine import parallel, residual, serial
from jaxcnn._dense import identity
from jaxcnn._layer import Layer, constructor
from jaxcnn._norm import batch_norm
from jaxcnn._pool import avg_pool, global_avg_pool, max_pool
from jaxcnn.models._unit import Norm, conv_norm_act, head
from jaxcnn.models._variant import variant


@constructor
def res2net(
    classes: int | None = 1000,
    *,
    depths: tuple[int, ...],
    width: int = 26,
    scales: int = 4,
    norm: Norm = batch_norm,
    dropout: float = 0.0,
) -> Layer:
    """(N, H, W, 3) -> (N, classes): Res2Net.

    y_i = relu(norm(conv(x_i + y_(i-1)))) for i = 1 .. scales - 1, with y_0 = 0;  y_scales = x_scales

    New in 2019: the 3x3 convolution of a ResNet's bottleneck is replaced by a hierarchy. The channels are divided into
    `scales` groups x_i. Each 3x3 convolution but the first also sees the output of the previous one, so that one block
    has receptive fields of several sizes. The first block of a stage has no connections between the groups, and
    averages 3x3 positions of the last group, with its stride.

    Variants, for 224x224 (top-1 of timm):
        name               parameters  multiply-adds   top-1
        res2net50_26w_4s   25,699,120        4.255 G  77.950

    Args:
        classes: number of classes; None gives the features (N, C).
        depths: blocks per stage.
        width: channels per group in the first stage. Each later stage doubles them.
        scales: number of groups.
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer.

    Raises:
        TypeError, ValueError: if `scales` is not an integer of at least 2.

    Example:
        >>> model = jaxcnn.models.res2net50_26w_4s(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (2048, 10)

    Source: Gao, Cheng, Zhao, Zhang, Yang and Torr, "Res2Net: a new multi-scale backbone architecture", 2019.
    """
    scales = check_integer("res2net", "scales", scales, 2)

    def split(x):
        return tuple(jnp.split(x, scales, axis=-1))

    def merge(groups):
        return jnp.concatenate(groups, axis=-1)

    def replaced(i, layer, connected):
        """(x_1, .., x_scales) -> the same, with layer(x_i) or layer(x_i + x_(i-1)) as the element i."""

        def select(groups):
            return groups[i] + groups[i - 1] if connected else groups[i]

        def insert(groups, y):
            return (*groups[:i], y, *groups[i + 1 :])

        return parallel(insert, groups=identity, unit=serial(select, layer))

    def block(planes, stride, first):
        inner, outer = planes * width // 64, 4 * planes
        hierarchy = {
            str(i): replaced(i, conv_norm_act(inner, 3, stride=stride, norm=norm), connected=i > 0 and not first)
            for i in range(scales - 1)
        }
        if first:
            pool = avg_pool(3, stride=stride, padding=1, count_include_pad=True)
            hierarchy["pool"] = replaced(scales - 1, pool, connected=False)
        branch = serial(
            unit1=conv_norm_act(scales * inner, 1, norm=norm),
            scales=serial(split=split, **hierarchy, merge=merge),
            unit3=conv_norm_act(outer, 1, norm=norm, act=identity),
        )
        shortcut = conv_norm_act(outer, 1, stride=stride, norm=norm, act=identity) if first else identity
        return serial(sum=residual(branch, shortcut), relu=jax.nn.relu)

    stages = {}
    for stage, depth in enumerate(depths):
        planes, stride = 64 * 2**stage, 2 if stage else 1
        first = block(planes, stride, first=True)
        stages[f"stage{stage + 1}"] = serial(first, *(block(planes, 1, first=False) for _ in range(1, depth)))
    return serial(
        stem=conv_norm_act(64, 7, stride=2, norm=norm),
        pool=max_pool(3, stride=2, padding=1),
        **stages,
        features=global_avg_pool,
        **head(classes, dropout),
    )


res2net50_26w_4s = variant("res2net50_26w_4s", res2net, depths=(3, 4, 6, 3))

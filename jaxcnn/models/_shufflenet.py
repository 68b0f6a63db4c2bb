"""ShuffleNet v2: a network for phones, designed by measured latency."""

import jax

from jaxcnn._combine import concatenate, serial
from jaxcnn._conv import conv, depthwise_conv
from jaxcnn._layer import Layer, constructor
from jaxcnn._norm import batch_norm
from jaxcnn._pool import global_avg_pool, max_pool
from jaxcnn.models._unit import Norm, conv_norm_act, head
from jaxcnn.models._variant import variant


@constructor
def shufflenet_v2(
    classes: int | None = 1000,
    *,
    widths: tuple[int, ...],
    last: int = 1024,
    norm: Norm = batch_norm,
    dropout: float = 0.0,
) -> Layer:
    """(N, H, W, 3) -> (N, classes): ShuffleNet v2.

    y = shuffle([a, f(b)]) along the channels, where x = [a, b]

    New in 2018: multiply-adds predict latency poorly, so the design follows measurements. It avoids layers that change
    the number of channels, groups and sums. Half of the channels bypass f unchanged. The shuffle then interleaves both
    halves, so that the next block processes channels of each. f is a 1x1, a depthwise 3x3 and a 1x1 convolution. The
    first block of a stage has stride 2. Its two branches, f and f without the first 1x1, both receive all channels.

    Variants, for 224x224 (top-1 of torchvision's first weights):
        name                parameters  multiply-adds   top-1
        shufflenet_v2_x0_5   1,366,792         40.5 M  60.552
        shufflenet_v2_x1_0   2,278,604        144.9 M  69.362
        shufflenet_v2_x1_5   3,503,624        295.8 M  72.996
        shufflenet_v2_x2_0   7,393,996        583.3 M  76.230

    Args:
        classes: number of classes; None gives the features (N, last).
        widths: channels of each stage.
        last: channels of the last convolution.
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer.

    Example:
        >>> model = jaxcnn.models.shufflenet_v2_x1_0(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (1024, 10)

    Source: Ma, Zhang, Zheng and Sun, "ShuffleNet V2: practical guidelines for efficient CNN architecture design", 2018.
    """

    def separable(features, stride):
        return serial(
            depthwise=depthwise_conv(3, stride=stride, padding=1, bias=False),
            norm1=norm(),
            pointwise=conv(features, 1, bias=False),
            norm2=norm(),
            relu=jax.nn.relu,
        )

    def block(width, stride):
        branch = {"unit": conv_norm_act(width // 2, 1, norm=norm), "separable": separable(width // 2, stride)}
        if stride == 1:
            halves = concatenate(branch1=_first_half, branch2=serial(split=_second_half, **branch))
        else:
            halves = concatenate(branch1=separable(width // 2, stride), branch2=serial(**branch))
        return serial(halves=halves, shuffle=_shuffle)

    stages = {
        f"stage{stage}": serial(block(width, 2), *(block(width, 1) for _ in range(1, depth)))
        for stage, width, depth in zip((2, 3, 4), widths, (4, 8, 4), strict=True)
    }
    return serial(
        conv1=conv_norm_act(24, 3, stride=2, norm=norm),
        pool=max_pool(3, stride=2, padding=1),
        **stages,
        conv5=conv_norm_act(last, 1, norm=norm),
        features=global_avg_pool,
        **head(classes, dropout),
    )


def _first_half(x: jax.Array) -> jax.Array:
    return x[..., : x.shape[-1] // 2]


def _second_half(x: jax.Array) -> jax.Array:
    return x[..., x.shape[-1] // 2 :]


def _shuffle(x: jax.Array) -> jax.Array:
    """Reorder the channels [a1, a2, .., b1, b2, ..] to [a1, b1, a2, b2, ..]."""
    return x.reshape(*x.shape[:-1], 2, -1).swapaxes(-1, -2).reshape(x.shape)


shufflenet_v2_x0_5 = variant("shufflenet_v2_x0_5", shufflenet_v2, widths=(48, 96, 192))
shufflenet_v2_x1_0 = variant("shufflenet_v2_x1_0", shufflenet_v2, widths=(116, 232, 464))
shufflenet_v2_x1_5 = variant("shufflenet_v2_x1_5", shufflenet_v2, widths=(176, 352, 704))
shufflenet_v2_x2_0 = variant("shufflenet_v2_x2_0", shufflenet_v2, widths=(244, 488, 976), last=2048)

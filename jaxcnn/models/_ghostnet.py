"""GhostNet: half of all feature maps are cheap transformations of the other half."""

import jax

from jaxcnn._combine import AnyLayer, concatenate, residual, serial
from jaxcnn._dense import dense, identity
from jaxcnn._layer import Layer, from_input_shape
from jaxcnn._norm import batch_norm
from jaxcnn._pool import global_avg_pool
from jaxcnn._squeeze_excite import squeeze_excite
from jaxcnn.models._inverted_residual import make_divisible
from jaxcnn.models._unit import Norm, conv_norm_act, depthwise_norm_act, head
from jaxcnn.models._variant import input_shape

# (kernel size, hidden channels, features, excite, stride) of the blocks of each stage
STAGES = (
    ((3, 16, 16, False, 1),),
    ((3, 48, 24, False, 2),),
    ((3, 72, 24, False, 1),),
    ((5, 72, 40, True, 2),),
    ((5, 120, 40, True, 1),),
    ((3, 240, 80, False, 2),),
    (
        (3, 200, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 480, 112, True, 1),
        (3, 672, 112, True, 1),
    ),
    ((5, 672, 160, True, 2),),
    (
        (5, 960, 160, False, 1),
        (5, 960, 160, True, 1),
        (5, 960, 160, False, 1),
        (5, 960, 160, True, 1),
    ),
)


@input_shape(224, 224, 3)
def ghostnet_100(classes: int | None = 1000, *, norm: Norm = batch_norm, dropout: float = 0.2) -> Layer:
    """(N, H, W, 3) -> (N, classes): GhostNet with width 1.0.

    ghost(x) = [h, depthwise(h)],  h = act(norm(conv1x1(x)))
    block(x) = x + ghost2(excite(depthwise(ghost1(x))))

    New in 2020: many feature maps of a network resemble each other. A ghost module computes half of its channels by a
    1x1 convolution, and the others by a 3x3 depthwise convolution of these. Two ghost modules replace the 1x1
    convolutions of the inverted residual block. Only blocks with stride 2 have the depthwise convolution between them.

    Variants, for 224x224 (the paper's top-1):
        name          parameters  multiply-adds  top-1
        ghostnet_100   5,182,508        0.141 G   73.9

    Args:
        classes: number of classes; None gives the features (N, 1280).
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer.

    Example:
        >>> model = jaxcnn.models.ghostnet_100(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (1280, 10)

    Source: Han, Wang, Tian, Guo, Xu and Xu, "GhostNet: more features from cheap operations", 2020.
    """

    def depthwise(size, stride, act=identity):
        return depthwise_norm_act(size, stride=stride, norm=norm, act=act)

    def ghost(features, act):
        primary = conv_norm_act(features // 2, 1, norm=norm, act=act)
        return serial(primary=primary, features=concatenate(primary=identity, cheap=depthwise(3, 1, act)))

    def block(size, hidden, features, excite, stride):
        def build(shape):
            branch: dict[str, AnyLayer] = {"ghost1": ghost(hidden, jax.nn.relu)}
            if stride > 1:
                branch["depthwise"] = depthwise(size, stride)
            if excite:
                branch["excite"] = squeeze_excite(features=make_divisible(hidden / 4, 4), gate=jax.nn.hard_sigmoid)
            branch["ghost2"] = ghost(features, identity)
            if stride == 1 and shape[-1] == features:
                return residual(serial(**branch))
            project = conv_norm_act(features, 1, norm=norm, act=identity)
            return residual(serial(**branch), serial(depthwise=depthwise(size, stride), project=project))

        return from_input_shape(build)

    layers = {"stem": conv_norm_act(16, 3, stride=2, norm=norm)}
    for stage, blocks in enumerate(STAGES, 1):
        layers[f"stage{stage}"] = serial(*(block(*row) for row in blocks))
    layers["top"] = conv_norm_act(960, 1, norm=norm)
    end: dict[str, AnyLayer] = {"last": dense(1280), "relu": jax.nn.relu}
    return serial(**layers, pool=global_avg_pool, **end, **head(classes, dropout))

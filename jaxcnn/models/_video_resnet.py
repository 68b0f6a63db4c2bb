"""Residual networks for video, with 3-D convolutions or factored ones."""

import jax

from jaxcnn._arguments import check_choice
from jaxcnn._combine import AnyLayer, residual, serial
from jaxcnn._conv import conv
from jaxcnn._dense import identity
from jaxcnn._layer import Layer, constructor
from jaxcnn._norm import batch_norm
from jaxcnn._pool import global_avg_pool
from jaxcnn.models._unit import Norm, conv_norm_act, head
from jaxcnn.models._variant import variant


@constructor
def video_resnet(
    classes: int | None = 400,
    *,
    convolutions: tuple[str, ...],
    depths: tuple[int, ...] = (2, 2, 2, 2),
    norm: Norm = batch_norm,
    dropout: float = 0.0,
) -> Layer:
    """(N, T, H, W, 3) -> (N, classes): R3D, MC3 and R(2+1)D, residual networks for video.

    y = relu(shortcut(x) + f(x))

    f is two convolutions. In R3D they are 3x3x3, over time and space. MC3 has them in the first stage only: the later
    stages have 1x3x3 convolutions, on each frame alone. New in 2018, R(2+1)D factors each 3x3x3 convolution into 1x3x3,
    norm, relu and 3x1x1. The number of channels in between is such that a block has about the same number of
    parameters, but twice as many nonlinearities. It is also easier to optimize.

    Variants, for 16 frames of 112x112 (top-1 of torchvision on Kinetics-400, mean of 5 clips per video):
        name         parameters  multiply-adds   top-1
        r3d_18       33,371,472       40.697 G  63.200
        mc3_18       11,695,440       43.343 G  63.960
        r2plus1d_18  31,505,325       40.519 G  67.463

    Args:
        classes: number of classes; None gives the features (N, 512).
        convolutions: "3d", "2d" (on each frame) or "2+1d" for each stage. The stem is factored if the first stage is.
        depths: blocks per stage.
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer.

    Raises:
        ValueError: for an unknown convolution, or other numbers of convolutions than stages.

    Example:
        >>> model = jaxcnn.models.r2plus1d_18(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 32, 32, 3)))[0]["head"]["kernel"].shape
        (512, 10)

    Source: Tran et al., "A closer look at spatiotemporal convolutions for action recognition", 2018.
    """
    for kind in convolutions:
        check_choice("video_resnet", "convolution", kind, ("2d", "2+1d", "3d"))
    if len(convolutions) != len(depths):
        raise ValueError(f"convolutions={convolutions!r} must have one entry per stage, got depths={depths!r}")

    def convolution(kind: str, features: int, between: int, stride: int) -> Layer:
        if kind == "3d":
            return conv(features, 3, stride=stride, padding=1, bias=False)
        spatial = conv(
            features if kind == "2d" else between, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False
        )
        if kind == "2d":
            return spatial
        temporal = conv(features, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0), bias=False)
        return serial(spatial=spatial, norm=norm(), relu=jax.nn.relu, temporal=temporal)

    def block(kind: str, channels: int, features: int, stride: int) -> Layer:
        # the first convolution then has as many parameters as a 3x3x3; torchvision uses the number for the second, too
        between = 27 * channels * features // (9 * channels + 3 * features)
        branch = serial(
            conv1=convolution(kind, features, between, stride),
            norm1=norm(),
            relu1=jax.nn.relu,
            conv2=convolution(kind, features, between, 1),
            norm2=norm(),
        )
        shortcut: AnyLayer = identity
        if channels != features:
            strides = (1 if kind == "2d" else stride, stride, stride)
            shortcut = conv_norm_act(features, 1, stride=strides, norm=norm, act=identity)
        return serial(sum=residual(branch, shortcut), relu=jax.nn.relu)

    if convolutions[0] == "2+1d":
        stem = serial(
            spatial=conv_norm_act(45, (1, 7, 7), stride=(1, 2, 2), norm=norm),
            temporal=conv_norm_act(64, (3, 1, 1), norm=norm),
        )
    else:
        stem = conv_norm_act(64, (3, 7, 7), stride=(1, 2, 2), norm=norm)
    channels, stages = 64, {}
    for stage, (kind, depth) in enumerate(zip(convolutions, depths, strict=True)):
        features = 64 * 2**stage
        blocks = []
        for i in range(depth):
            blocks.append(block(kind, channels, features, 2 if stage and i == 0 else 1))
            channels = features
        stages[f"stage{stage + 1}"] = serial(*blocks)
    return serial(stem=stem, **stages, features=global_avg_pool, **head(classes, dropout))


CLIP = (16, 112, 112)
r3d_18 = variant("r3d_18", video_resnet, size=CLIP, convolutions=("3d", "3d", "3d", "3d"))
mc3_18 = variant("mc3_18", video_resnet, size=CLIP, convolutions=("3d", "2d", "2d", "2d"))
r2plus1d_18 = variant("r2plus1d_18", video_resnet, size=CLIP, convolutions=("2+1d", "2+1d", "2+1d", "2+1d"))

"""Residual networks for small images, the first networks with more than a hundred layers."""

import jax
import jax.numpy as jnp

from jaxcnn._combine import residual, serial
from jaxcnn._dense import identity
from jaxcnn._layer import Layer, constructor
from jaxcnn._norm import batch_norm
from jaxcnn._pool import global_avg_pool
from jaxcnn.models._unit import Norm, conv_norm_act, head
from jaxcnn.models._variant import variant


@constructor
def cifar_resnet(
    classes: int | None = 10,
    *,
    depth: int,
    option: str = "A",
    norm: Norm = batch_norm,
    dropout: float = 0.0,
) -> Layer:
    """(N, 32, 32, 3) -> (N, classes): ResNet for CIFAR.

    y = relu(shortcut(x) + f(x))

    The same idea as `resnet`, for 32x32 images: f learns only the residual, and the gradient also flows through the
    shortcut. Three stages have 16, 32 and 64 channels. A block has two 3x3 convolutions.

    Variants, for 32x32 (the paper's error on CIFAR-10):
        name       parameters  multiply-adds   error
        resnet20      269,722         40.6 M  8.75 %
        resnet32      464,154         68.9 M  7.51 %
        resnet44      658,586         97.2 M  7.17 %
        resnet56      853,018        125.5 M  6.97 %
        resnet110   1,727,962        252.9 M  6.43 %

    Args:
        classes: number of classes; None gives the features (N, 64).
        depth: number of weighted layers, 6 n + 2 for n blocks per stage.
        option: how the shortcut adds channels: "A" pads with zeros, "B" uses a 1x1 convolution.
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer.

    Raises:
        ValueError: for an invalid option, or a depth that is not 6 n + 2.

    Example:
        >>> params, _ = jax.eval_shape(jaxcnn.models.resnet20().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        >>> jaxcnn.count_params(params)
        269722

    Source: He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016, section 4.2.
    """
    if option not in ("A", "B"):
        raise ValueError(f"option must be 'A' or 'B', got {option!r}")
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth must be 6 n + 2 for n blocks per stage, for example 20, 32 or 44, got {depth}")

    def block(width, stride):
        branch = serial(
            conv1=conv_norm_act(width, 3, stride=stride, norm=norm),
            conv2=conv_norm_act(width, 3, norm=norm, act=identity),
        )
        if stride == 1:
            shortcut = identity
        elif option == "A":
            shortcut = _subsampled_zero_padded
        else:
            shortcut = conv_norm_act(width, 1, stride=stride, norm=norm, act=identity)
        return serial(sum=residual(branch, shortcut), relu=jax.nn.relu)

    stages = {}
    for stage, width in enumerate((16, 32, 64), 1):
        first = block(width, 1 if stage == 1 else 2)
        stages[f"stage{stage}"] = serial(first, *(block(width, 1) for _ in range(1, depth // 6)))
    return serial(stem=conv_norm_act(16, 3, norm=norm), **stages, features=global_avg_pool, **head(classes, dropout))


def _subsampled_zero_padded(x: jax.Array) -> jax.Array:
    """(N, H, W, C) -> (N, H / 2, W / 2, 2 C): every second position, with C channels of zeros appended."""
    x = x[:, ::2, ::2]
    return jnp.concatenate([x, jnp.zeros_like(x)], axis=-1)


resnet20 = variant("resnet20", cifar_resnet, size=32, depth=20)
resnet32 = variant("resnet32", cifar_resnet, size=32, depth=32)
resnet44 = variant("resnet44", cifar_resnet, size=32, depth=44)
resnet56 = variant("resnet56", cifar_resnet, size=32, depth=56)
resnet110 = variant("resnet110", cifar_resnet, size=32, depth=110)

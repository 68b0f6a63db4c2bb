"""The table of all layers and transforms for the conformance tests."""

import functools
import operator
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxcnn as cnn


class Case(NamedTuple):
    name: str
    layer: cnn.Layer
    shape: tuple[int, ...]
    random: bool = False  # training needs a key
    across: bool = False  # in training, an output depends on other examples of the batch
    tolerance: float = 1e-5  # for comparisons of equivalent computations


def block(channels: int, **named: Any) -> cnn.Layer:
    return cnn.serial(conv=cnn.conv(channels), norm=cnn.batch_norm(), act=jnp.tanh, **named)


def with_inputs(layer: cnn.Layer, *inputs: Any) -> cnn.Layer:
    """A layer of several inputs, all but the first computed from x by `inputs`."""
    return cnn.serial(cnn.parallel(lambda *xs: xs, cnn.identity, *inputs), layer)


IMAGE, SIGNAL, VOLUME = (3, 6, 5, 4), (3, 9, 4), (2, 4, 5, 4, 2)

CASES = [
    Case("conv", cnn.conv(6), IMAGE),
    Case("conv1d", cnn.conv(6, padding="CAUSAL", dilation=2), SIGNAL),
    Case("conv3d", cnn.conv(3, (2, 3, 3), stride=(1, 2, 1)), VOLUME),
    Case("conv_strided", cnn.conv(6, (3, 2), stride=(2, 1), padding=1, bias=False), IMAGE),
    Case("conv_grouped", cnn.conv(6, groups=2, dilation=2, padding="SAME_LOWER"), IMAGE),
    Case("conv_reflect", cnn.conv(2, padding=((1, 1), (0, 2)), padding_mode="reflect"), IMAGE),
    Case("conv_replicate", cnn.conv(2, padding_mode="replicate"), IMAGE),
    Case("conv_circular", cnn.conv(2, padding_mode="circular"), IMAGE),
    Case("conv_pointwise", cnn.conv(6, 1, padding="VALID"), IMAGE),
    Case("depthwise_conv", cnn.depthwise_conv(multiplier=2), IMAGE),
    Case("depthwise_conv1d", cnn.depthwise_conv(4, stride=2), SIGNAL),
    Case("separable_conv", cnn.separable_conv(5), IMAGE),
    Case("conv_transpose", cnn.conv_transpose(3, stride=2), IMAGE),
    Case("conv_transpose1d", cnn.conv_transpose(4, 4, stride=3, padding=1, output_padding=1, groups=2), SIGNAL),
    Case("conv_transpose3d", cnn.conv_transpose(2, 2, padding="VALID", dilation=2), VOLUME),
    Case("deform_conv", with_inputs(cnn.deform_conv(3, stride=2, dilation=2), cnn.conv(36, stride=2)), IMAGE),
    Case("deform_conv_masked", with_inputs(cnn.deform_conv(2, 2, groups=2), cnn.conv(8), cnn.conv(4)), IMAGE),
    Case("max_pool", cnn.max_pool(2), IMAGE),
    Case("max_pool_overlapping", cnn.max_pool(3, stride=2, padding="SAME"), IMAGE),
    Case("max_pool_dilated", cnn.max_pool(2, stride=1, dilation=2, padding=1, ceil_mode=True), IMAGE),
    Case("max_pool1d", cnn.max_pool(3, ceil_mode=True), SIGNAL),
    Case("max_pool3d", cnn.max_pool(2), VOLUME),
    Case("max_pool_with_indices", cnn.serial(cnn.max_pool_with_indices(3, padding=1), operator.itemgetter(0)), IMAGE),
    Case("max_unpool", cnn.serial(cnn.max_pool_with_indices(2), cnn.max_unpool(2, output_size=(6, 5))), IMAGE),
    Case("max_unpool1d", cnn.serial(cnn.max_pool_with_indices(3), cnn.max_unpool(3)), SIGNAL),
    Case("min_pool", cnn.min_pool((2, 3), stride=1), IMAGE),
    Case("avg_pool", cnn.avg_pool(3, stride=2, padding=1, ceil_mode=True), IMAGE),
    Case("avg_pool_counting_pad", cnn.avg_pool(3, stride=2, padding=1, count_include_pad=True), IMAGE),
    Case("avg_pool_dilated", cnn.avg_pool(2, stride=1, dilation=2), SIGNAL),
    Case("lp_pool", cnn.lp_pool(3, 2), IMAGE),
    Case("global_avg_pool", cnn.as_layer(cnn.global_avg_pool), IMAGE),
    Case("global_max_pool", cnn.as_layer(cnn.global_max_pool), IMAGE),
    Case("adaptive_avg_pool", cnn.adaptive_avg_pool((4, 3)), IMAGE),
    Case("adaptive_max_pool", cnn.adaptive_max_pool((4, 3)), IMAGE),
    Case("adaptive_avg_pool_even", cnn.adaptive_avg_pool((3, 1)), IMAGE),
    Case("blur_pool", cnn.blur_pool(3), IMAGE),
    Case("dense", cnn.dense(7), IMAGE),
    Case("dense_rows", cnn.dense(7, bias=False), (3, 5)),
    Case("flatten", cnn.as_layer(cnn.flatten), IMAGE),
    Case("identity", cnn.as_layer(cnn.identity), IMAGE),
    Case("flatten_rows", cnn.as_layer(functools.partial(cnn.flatten, start_dim=2)), IMAGE),
    Case("pad", cnn.pad(((1, 0), (2, 1)), mode="replicate"), IMAGE),
    Case("pad_value", cnn.pad((1, 2), value=-1.0), SIGNAL),
    Case("upsample", cnn.upsample((2, 3)), IMAGE),
    Case("upsample_linear", cnn.upsample(2, "linear"), IMAGE),
    Case("resize", cnn.resize((4, 8), "cubic"), IMAGE),
    Case("resize_corners", cnn.resize(5, coordinates="align_corners", antialias=False), VOLUME),
    Case("resize_nearest", cnn.resize(scale=0.6, method="nearest", rounding="floor"), IMAGE),
    Case("grid_sample", with_inputs(cnn.grid_sample(), lambda x: 1.2 * jnp.tanh(x[..., :2])), IMAGE),
    Case(
        "grid_sample1d",
        with_inputs(cnn.grid_sample("cubic", padding_mode="reflection"), lambda x: 2 * jnp.tanh(x[..., :1])),
        SIGNAL,
    ),
    Case("crop_and_resize", with_inputs(cnn.crop_and_resize((2, 3)), lambda x: x[:, 0] / 3), IMAGE),
    Case("roi_align", with_inputs(cnn.roi_align(2, sampling_ratio=1), lambda x: 2 * x[:, 0]), IMAGE),
    Case("pixel_shuffle", cnn.pixel_shuffle(2), IMAGE),
    Case("pixel_shuffle_dcr", cnn.pixel_shuffle(2, order="DCR"), IMAGE),
    Case("pixel_unshuffle", cnn.pixel_unshuffle(2), (2, 4, 6, 3)),
    Case("batch_norm", cnn.batch_norm(), IMAGE, across=True),
    Case("batch_norm_rows", cnn.batch_norm(decay=0.5, center=False), (4, 5), across=True),
    Case("batch_norm_bare", cnn.batch_norm(center=False, scale=False), SIGNAL, across=True),
    Case("layer_norm", cnn.layer_norm(), IMAGE),
    Case("layer_norm_examples", cnn.layer_norm(axis=1), SIGNAL),
    Case("layer_norm_axes", cnn.layer_norm(axis=(1, -1)), IMAGE),
    Case("group_norm", cnn.group_norm(2), IMAGE),
    Case("instance_norm", cnn.instance_norm(), VOLUME),
    Case("rms_norm", cnn.rms_norm(), IMAGE),
    Case("local_response_norm", cnn.local_response_norm(3, alpha=0.5), IMAGE),
    Case("local_response_norm_even", cnn.local_response_norm(2, alpha=0.5, padding="SAME"), IMAGE),
    Case("global_response_norm", cnn.global_response_norm(), IMAGE),
    Case("prelu", cnn.prelu(), IMAGE),
    Case("dropout", cnn.dropout(0.4), IMAGE, random=True),
    Case("spatial_dropout", cnn.spatial_dropout(0.4), IMAGE, random=True),
    Case("drop_block", cnn.drop_block(0.3, 2), IMAGE, random=True, across=True),
    Case("gaussian_dropout", cnn.gaussian_dropout(0.4), IMAGE, random=True),
    Case("gaussian_noise", cnn.gaussian_noise(0.4), IMAGE, random=True),
    Case("alpha_dropout", cnn.alpha_dropout(0.4), IMAGE, random=True),
    Case("serial", block(3, pool=cnn.max_pool(2), flat=cnn.flatten, head=cnn.dense(2)), IMAGE, across=True),
    Case("parallel", cnn.parallel(operator.mul, cnn.conv(3), cnn.conv(3, 1)), IMAGE),
    Case("concatenate", cnn.concatenate(cnn.conv(3), cnn.identity), IMAGE),
    Case("residual", cnn.residual(block(4)), IMAGE, across=True),
    Case("residual_shortcut", cnn.residual(cnn.conv(3, stride=2), cnn.conv(3, 1, stride=2)), IMAGE),
    Case("repeat", cnn.repeat(block(4, drop=cnn.dropout(0.3)), 3), IMAGE, random=True, across=True),
    Case("squeeze_excite", cnn.squeeze_excite(2, activation=jnp.tanh), IMAGE),
    Case("with_dropout", cnn.with_dropout(cnn.dense(5), 0.4), IMAGE, random=True),
    Case("with_spatial_dropout", cnn.with_spatial_dropout(cnn.conv(5), 0.4), IMAGE, random=True),
    Case("with_precision", cnn.with_precision(cnn.conv(5), "highest"), IMAGE),
    Case("drop_path", cnn.residual(cnn.drop_path(cnn.conv(4), 0.4)), IMAGE, random=True),
    Case("drop_connect", cnn.drop_connect(cnn.conv(5), 0.4), IMAGE, random=True),
    Case("weight_norm", cnn.weight_norm(cnn.conv(5)), IMAGE),
    Case("weight_standardized", cnn.weight_standardized(cnn.conv(5)), IMAGE),
    Case("spectral_norm", cnn.spectral_norm(cnn.serial(cnn.conv(5), cnn.dense(3))), IMAGE),
    Case("freeze", cnn.serial(body=cnn.freeze(block(4)), head=cnn.dense(3)), IMAGE),
    Case("cast", cnn.cast(block(4), jnp.bfloat16), IMAGE, across=True, tolerance=0.05),
    Case("ensemble", cnn.ensemble(block(4, drop=cnn.dropout(0.3)), 2), IMAGE, random=True, across=True),
    Case(
        "monte_carlo",
        cnn.monte_carlo(cnn.serial(cnn.dense(4), cnn.batch_norm(), cnn.dropout(0.3)), 2),
        IMAGE,
        random=True,
        across=True,
    ),
    Case("remat", cnn.remat(block(4, drop=cnn.dropout(0.3))), IMAGE, random=True, across=True),
]

RANDOM_LAYERS = [  # constructors of layers whose argument is a rate or a standard deviation
    cnn.dropout,
    cnn.spatial_dropout,
    cnn.drop_block,
    cnn.gaussian_dropout,
    cnn.gaussian_noise,
    cnn.alpha_dropout,
]
BY_NAME = {case.name: case for case in CASES}


def example(case: Case, dtype: Any = np.float32) -> tuple[Any, Any, np.ndarray]:
    """Random parameters, state and input. Deterministic, and nothing is compiled."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    x = rng.normal(size=case.shape).astype(dtype)
    params, state = jax.eval_shape(case.layer.init, jax.random.key(0), x)

    def draw(path, leaf):
        values = rng.normal(size=leaf.shape)
        return (np.exp(0.3 * values) if path[-1].key == "var" else 0.5 * values).astype(leaf.dtype)

    return *jax.tree_util.tree_map_with_path(draw, (params, state)), x

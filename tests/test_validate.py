"""Data are looked at where they enter: what does not fit is refused with the first bad index, before training."""

import itertools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jaxcnn as cnn
from jaxcnn import data, train
from jaxcnn.data import augment

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (48, 8, 8, 1)).astype(np.uint8)
LABELS = (np.arange(48) % 3).astype(np.int64)
FLOATS = IMAGES / np.float32(255)
MODEL = cnn.serial(cnn.flatten, cnn.dense(3))
QUICK = {"epochs": 1, "batch_size": 16, "checkpoint": {"keep": 0}}


def fit(tmp_path, train_data, eval_data=None, model=MODEL, **config):
    return train.fit(
        model, train_data, eval_data=eval_data, config=QUICK | config, run=train.Run("t", {}, folder=tmp_path / "r")
    )


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


def pair(image=IMAGES, label=LABELS, **more):
    return {"image": image, "label": label, **more}


ONE_HOT = np.eye(3, dtype=np.float32)[LABELS]
WEIGHT = np.ones(48, np.float32)
BAD = {
    "fewer labels": (pair(label=LABELS[:16]), r"same length.*'image': 48, 'label': 16"),
    "fewer images": (pair(image=IMAGES[:16]), r"same length.*'image': 16, 'label': 48"),
    "fewer weights": (pair(weight=WEIGHT[:4]), r"same length.*'weight': 4"),
    "a class too many": (pair(label=changed(LABELS, 7, 3)), r"label\[7\] is 3, but the model has 3 outputs, .* 0 to 2"),
    "negative": (pair(label=changed(LABELS, 2, -1)), r"label\[2\] is -1"),
    "wraps to 0": (pair(label=changed(LABELS, 5, 2**32)), r"label\[5\] is 4294967296"),
    "uint8": (pair(label=changed(LABELS, 5, 255).astype(np.uint8)), r"label\[5\] is 255"),
    "uint64": (pair(label=changed(LABELS.astype(np.uint64), 5, 2**63)), r"label\[5\] is 9223372036854775808"),
    "multi-hot": (
        pair(label=changed(ONE_HOT, (10, 0), 1)),
        r"label\[10\] is \[1, 1, 0\], with sum 2; class probabilities must",
    ),
    "no class": (pair(label=changed(ONE_HOT, 4, 0)), r"label\[4\] is \[0, 0, 0\], with sum 0"),
    "regression": (pair(label=RNG.normal(size=(48, 3))), r"label\[0\] is .* use mean_squared_error"),
    "one column": (pair(label=LABELS[:, None]), r"labels of shape \(48, 1\) and dtype int64"),
    "floats": (pair(label=LABELS.astype(np.float32)), r"labels of shape \(48,\) and dtype float32"),
    "strings": (pair(label=np.array(["cat"] * 48)), r"'label' must be an array of numbers"),
    "objects": (pair(image=np.array([None] * 48)), r"'image' must be an array of numbers"),
    "nan": (pair(changed(FLOATS, (11, 3, 2, 0), np.nan)), r"image\[11, 3, 2, 0\] is nan; all values must be finite"),
    "inf": (pair(changed(FLOATS, (0, 0, 0, 0), -np.inf)), r"image\[0, 0, 0, 0\] is -inf"),
    "infinite in float32": (pair(changed(FLOATS.astype(float), (2, 1, 0, 0), 1e39)), r"image\[2, 1, 0, 0\] is 1e\+39"),
    "weight infinite in float32": (pair(weight=changed(WEIGHT.astype(float), 3, 1e39)), r"weight\[3\] is 1e\+39"),
    "bfloat16": (pair(changed(FLOATS, (3, 0, 0, 0), np.nan).astype(ml_dtypes.bfloat16)), r"image\[3, 0, 0, 0\] is nan"),
    "nan label": (pair(label=changed(ONE_HOT, (6, 1), np.nan)), r"label\[6, 1\] is nan"),
    "weight": (pair(weight=changed(WEIGHT, 3, -1)), r"weight\[3\] is -1.0; weights must be finite and at least 0"),
    "nan weight": (pair(weight=changed(WEIGHT, 3, np.nan)), r"weight\[3\] is nan"),
    "masked": (
        pair(label=np.ma.masked_array(LABELS, LABELS == 1)),
        r"'label' is a masked array, whose mask JAX ignores",
    ),
    "no weight": (pair(FLOATS, weight=0 * WEIGHT), r"the weights of all examples are 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_fit_refuses(tmp_path, name):
    bad, message = BAD[name]
    with pytest.raises((ValueError, TypeError), match=f"train_data.*({message})"):
        fit(tmp_path, bad)
    with pytest.raises((ValueError, TypeError), match=f"eval_data.*({message})"):
        fit(tmp_path, pair(), bad)
    assert not (tmp_path / "r" / "metrics.jsonl").exists() or not (tmp_path / "r" / "metrics.jsonl").read_text()


@pytest.mark.parametrize("name", BAD)
def test_evaluate_refuses(name):
    bad, message = BAD[name]
    params, state = MODEL.init(jax.random.key(0), FLOATS[:1])
    with pytest.raises((ValueError, TypeError), match=message):
        train.evaluate(cnn.cross_entropy(MODEL), params, state, bad)


def test_what_is_wrong_with_an_example_of_weight_0_does_not_matter(tmp_path):
    image, label = changed(FLOATS, 5, np.nan), changed(LABELS, 5, -7)
    weight = changed(WEIGHT, 5, 0)
    fitted = fit(tmp_path, pair(image, label, weight=weight), pair(image, label, weight=weight), epochs=2)
    assert np.isfinite(fitted.history[-1]["train"]["loss"])
    assert np.isfinite(fitted.history[-1]["test"]["loss"])


@pytest.mark.sample(4)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64])
def test_labels_of_any_integer_type_train_alike(tmp_path, dtype):
    expected = fit(tmp_path / "a", pair()).history[-1]["train"]["loss"]
    assert fit(tmp_path / "b", pair(label=LABELS.astype(dtype))).history[-1]["train"]["loss"] == expected


@pytest.mark.parametrize(
    ("train_data", "eval_data"),
    [
        (IMAGES, IMAGES.astype(np.float32)),  # bytes are divided by 255, floats are not
        (IMAGES.astype(np.float32), IMAGES),
        (FLOATS, IMAGES.astype(np.float32)),
        (IMAGES.astype(np.float64), FLOATS),
        (IMAGES, (FLOATS - 0.5) / 0.1),
        ((FLOATS - 0.5) / 0.1, IMAGES),
    ],
)
def test_training_and_evaluation_in_different_ranges(tmp_path, train_data, eval_data):
    with pytest.raises(ValueError, match=r"train_data and eval_data have different ranges: .* both"):
        fit(tmp_path, pair(train_data), pair(eval_data))


def test_equal_ranges(tmp_path):
    for i, (train_data, eval_data) in enumerate(
        [(IMAGES, FLOATS), (FLOATS, IMAGES), (IMAGES, IMAGES), (FLOATS, 0 * FLOATS)]
    ):
        fit(tmp_path / str(i), pair(train_data), pair(eval_data))


def test_streams_are_checked_batch_by_batch(tmp_path):
    def stream(image, label):
        def batches(step):
            while True:
                at = np.arange(16) + 16 * (step % 3)
                yield {"image": image[at], "label": label[at]}
                step += 1

        return data.Stream(batches, 3, jax.ShapeDtypeStruct((16, 8, 8, 1), image.dtype), ("a",) * 3)

    bad = stream(IMAGES, changed(LABELS, 37, 8))
    with pytest.raises(ValueError, match=r"train_data: label\[5\] is 8"):
        fit(tmp_path / "a", bad)
    with pytest.raises(ValueError, match=r"label\[5\] is 8"):
        fit(tmp_path / "b", stream(IMAGES, LABELS), bad)
    with pytest.raises(ValueError, match="different ranges"):
        fit(tmp_path / "c", stream(IMAGES, LABELS), pair(IMAGES.astype(np.float32)))


def test_evaluation_streams_must_be_finite(tmp_path):
    bad = FLOATS[:16].copy()
    bad[3, 2, 1] = np.nan
    batch = {"image": bad, "label": LABELS[:16]}
    stream = data.Stream(
        lambda step: itertools.repeat(batch), 1, jax.ShapeDtypeStruct(bad.shape, bad.dtype), ("a",) * 3
    )
    with pytest.raises(ValueError, match=r"eval_data: image\[3, 2, 1, 0\] is nan; all values must be finite"):
        fit(tmp_path, pair(FLOATS), stream)
    loss_fn = cnn.cross_entropy(cnn.serial(cnn.flatten, cnn.dense(3)))
    params = {"1": {"kernel": np.ones((64, 3), np.float32), "bias": np.zeros(3, np.float32)}}
    with pytest.raises(ValueError, match=r"evaluate: image\[3, 2, 1, 0\] is nan; all values must be finite"):
        train.evaluate(loss_fn, params, {}, stream)
    batch |= {"weight": (np.arange(16) != 3).astype(np.float32)}
    others = {"label": jax.ShapeDtypeStruct((16,), LABELS.dtype), "weight": jax.ShapeDtypeStruct((16,), np.float32)}
    assert np.isfinite(train.evaluate(loss_fn, params, {}, stream._replace(others=others))["accuracy"])


def test_the_batch_size_of_a_stream_must_fit_the_devices():
    program = """
import itertools, jax, numpy as np, jaxcnn as cnn
batch = {"image": np.ones((6, 2), np.float32), "label": np.zeros(6, np.int32)}
stream = cnn.data.Stream(lambda step: itertools.repeat(batch), 1, jax.ShapeDtypeStruct((6, 2), np.float32), ("a", "b"))
cnn.train.evaluate(cnn.cross_entropy(cnn.as_layer(cnn.identity)), {}, {}, stream)
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True)
    error = "ConfigError: evaluate: the batch size of a stream must be a multiple of the number of devices, 4, got 6"
    assert result.stderr.splitlines()[-1].endswith(error)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["f1"], r"metrics must be a dict such as \{.*\}, got \['f1'\]"),
        ({"f1": cnn.metrics.f1}, r"metrics: 'f1' must be a jaxcnn.metrics.Metric.*call it: metrics\.f1\(\)"),
        ({"own": lambda output, batch: 0.0}, r"metrics: 'own' must be a jaxcnn.metrics.Metric, got <function [^;]*$"),
    ],
)
def test_metrics_of_evaluate(metrics, message):
    model = cnn.as_layer(cnn.identity)
    with pytest.raises(TypeError, match=message):
        train.evaluate(cnn.cross_entropy(model), {}, {}, (np.eye(3), np.arange(3)), metrics=metrics, model=model)


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "rand_augment", "random_erasing"])
def test_augmentations_of_color_need_values_from_0_to_1(tmp_path, name):
    with pytest.raises(ValueError, match="color augmentations need uint8 images, or float images from 0 to 1"):
        fit(tmp_path, pair(FLOATS * 255), augment=[[name, 0.5]])
    fit(tmp_path, pair(FLOATS), augment=[[name, 0.5] if name != "rand_augment" else name])


AUGMENTS = {
    "brightness": augment.brightness(0.4),
    "contrast": augment.contrast(0.4),
    "saturation": augment.saturation(0.4),
    "rand_augment": augment.rand_augment(3),
    "random_erasing": augment.random_erasing(1.0),
    "rotate": augment.rotate(30),
    "affine": augment.affine(20, 2, 0.2, 0.2),
    "flip": augment.flip(1.0),
    "random_crop": augment.random_crop(2),
    "cutout": augment.cutout(4),
}


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", AUGMENTS)
def test_augmentations_of_bytes_are_those_of_fractions(name):

    image = RNG.integers(0, 256, (10, 12, 3)).astype(np.uint8)
    for seed in range(4):
        arguments = jax.random.key(seed), image, augment.When()
        y = AUGMENTS[name](*arguments)
        expected = AUGMENTS[name](arguments[0], image / np.float32(255), augment.When())
        assert y.dtype == np.uint8
        assert np.abs(np.asarray(y, float) - 255 * np.asarray(expected, float)).max() < 0.501


def test_normalize():
    def run(mean, std, x):
        return np.asarray(data.normalize(mean, std).apply({}, {}, x, train=False)[0], np.float64).ravel()

    one = lambda value, dtype=np.float32: np.full((1, 1, 1, 1), value, dtype)
    assert run([0.5], [0.25], one(255, np.uint8)) == 2  # 252 if it wraps
    assert run([0.5], [0.25], one(0, np.uint8)) == -2
    assert run([0.0], [15000.0], one(30000)) == 2  # 2.01 with 1 / std of six decimals
    assert run([1e-8], [1e-9], one(2e-8)) == pytest.approx(10, rel=1e-6)
    assert run([1000.0], [1e-3], one(1000.5)) == pytest.approx(500, rel=1e-4)
    assert run([0.5], [1e6], one(60000, np.float16)) == pytest.approx(0.06, rel=1e-3)
    low = data.normalize([0.485], [0.229]).apply({}, {}, one(0.5, ml_dtypes.bfloat16), train=False)[0]
    assert low.dtype == ml_dtypes.bfloat16
    for bad in (np.int32, np.int8, np.uint16):
        with pytest.raises(TypeError, match="normalize needs floating-point input"):
            run([0.5], [0.25], one(1, bad))
    for mean, std in (([0.5], [0.0]), ([0.5], [-1.0]), ([np.nan], [1.0]), ([0.5, 0.5], [1.0]), ([0.5], [np.inf])):
        with pytest.raises(ValueError, match="a finite mean and a positive standard deviation"):
            data.normalize(mean, std)


@pytest.mark.parametrize("offset", [0.0, 0.2, 101325.4])
def test_statistics_of_a_large_mean(offset):
    images = np.random.default_rng(0).normal(offset, 1, (64, 4, 4, 2))
    mean, std = data.normalize(data.Dataset(images, LABELS, ())), np.sqrt(images.var((0, 1, 2)))
    y = mean.apply({}, {}, jnp.asarray(images, jnp.float32), train=False)[0]
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-2 if offset > 1000 else 1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)) * std, std, 1e-2 if offset > 1000 else 1e-5)


@pytest.mark.parametrize("weight", [np.full(300, 300, np.float16), np.full(300, 2**30), np.full(300, 7, np.uint8)])
def test_equal_weights_of_any_type_change_no_mean(weight):
    rng = np.random.default_rng(0)
    batch = {"image": rng.normal(size=(300, 3)).astype(np.float32), "label": rng.integers(0, 3, 300)}
    loss_fn = cnn.cross_entropy(cnn.as_layer(cnn.identity))
    expected = train.evaluate(loss_fn, {}, {}, batch)["loss"]
    assert train.evaluate(loss_fn, {}, {}, batch | {"weight": weight})["loss"] == pytest.approx(expected, 1e-5)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (
            changed(np.ones((48, 2)), (0, 0), -1),
            r"member_weight\[0, 0\] is -1.0; weights must be finite and at least 0",
        ),
        (changed(np.ones((48, 2)), (3, 1), np.inf), r"member_weight\[3, 1\] is inf"),
        (np.ones((48, 3)), r"\"member_weight\" must have shape \(48, 2\), .* got \(48, 3\)"),
        (WEIGHT, r"\"member_weight\" must have shape \(48, 2\), .* got \(48,\)"),
    ],
)
def test_fit_checks_member_weights(weight, message):
    model = cnn.serial(cnn.flatten, cnn.ensemble(cnn.dense(3), 2))  # the parameters of `flatten` have no members
    loss_fn = cnn.per_member(cnn.cross_entropy)(model)
    params, state = model.init(jax.random.key(0), FLOATS)
    loss_fn.check("train_data", params, state, pair(member_weight=np.ones((48, 2), int)))
    with pytest.raises(ValueError, match=f"train_data: {message}"):
        loss_fn.check("train_data", params, state, pair(member_weight=weight))


def test_fit_with_invalid_member_weights(tmp_path):
    bad = pair(member_weight=changed(np.ones((48, 2)), (0, 0), -1))
    model = cnn.ensemble(MODEL, 2)
    with pytest.raises(ValueError, match=r"train_data: member_weight\[0, 0\] is -1.0"):
        train.fit(
            model,
            bad,
            loss=cnn.per_member(cnn.cross_entropy),
            config=QUICK,
            run=train.Run("t", {}, folder=tmp_path / "r"),
        )

"""Metrics against scikit-learn (`goldens/make_metrics.py`), in parts, with weights, and on several devices' sums."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import metrics

with np.load(pathlib.Path(__file__).parent / "goldens" / "tasks" / "metrics.npz") as file:
    GOLDEN = dict(file)
X = {name[2:]: array for name, array in GOLDEN.items() if name.startswith("x/")}

CASES = {  # name in the golden file: metric, output, label
    "accuracy": (metrics.accuracy(), X["logits"], X["label"]),
    "top_k": (metrics.top_k(2), X["logits"] - 1e-6 * np.arange(5, dtype=np.float32), X["label"]),
    "mean_iou": (metrics.mean_iou(), X["logits"], X["label"]),
    "confusion_matrix": (metrics.confusion_matrix(), X["logits"], X["label"]),
    "auroc several": (metrics.auroc(), X["logits"], X["several"]),
    "auroc classes": (metrics.auroc(), X["smooth"], X["all_labels"]),
    "auroc binary": (metrics.auroc(), X["logits"][:, :1], X["binary"]),
    "average_precision several": (metrics.average_precision(), X["logits"], X["several"]),
    "average_precision two": (metrics.average_precision(), X["logits"][:, :2], X["binary"]),
    "r2": (metrics.r2(), X["estimate"], X["quantity"]),
    "mean_absolute_error": (metrics.mean_absolute_error(), X["estimate"], X["quantity"]),
    **{
        f"{name} {average}{kind}": (getattr(metrics, name)(average), X["logits"], X[label])
        for name in ("precision", "recall", "f1")
        for average in ("macro", "micro")
        for kind, label in (("", "label"), (" several", "several"))
    },
}


def over_parts(metric, output, label, weight, parts):
    update, sums = jax.jit(metric.update), None
    for part in np.array_split(np.arange(len(output)), parts):
        batch = {"label": jnp.asarray(label[part]), "weight": jnp.asarray(weight[part])}
        added = update(jnp.asarray(output[part]), batch)
        sums = added if sums is None else metrics.add_sums(sums, added)
    return np.asarray(jax.jit(metric.compute)(sums))


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("name", CASES)
def test_metric_equals_scikit_learn(name, parts):
    metric, output, label = CASES[name]
    value = over_parts(metric, output, label, X["weight"], parts)
    np.testing.assert_allclose(value, GOLDEN[f"y/{name}"], rtol=1e-6, atol=1e-6)


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", CASES)
def test_rows_of_weight_0_may_hold_anything(name):
    metric, output, label = CASES[name]
    count = len(output)
    output = np.concatenate([output, np.full_like(output[:3], np.nan)])
    label = np.concatenate([label, np.full_like(label[:3], 200)])
    weight = np.concatenate([X["weight"], np.zeros(3, np.float32)])
    expected = over_parts(metric, output[:count], label[:count], weight[:count], 2)
    np.testing.assert_allclose(over_parts(metric, output, label, weight, 2), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", CASES)
def test_strict_modes(name):
    metric, output, label = CASES[name]
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        value = over_parts(metric, output, label, X["weight"], 1)
    np.testing.assert_allclose(value, GOLDEN[f"y/{name}"], rtol=1e-6, atol=1e-6)


def test_maps_are_counted_by_position():
    random = np.random.default_rng(0)
    output = random.normal(size=(4, 3, 5, 4)).astype(np.float32)
    label = random.integers(0, 4, (4, 3, 5))
    label[:, 0] = 255
    flat_output, flat_label = output[:, 1:].reshape(-1, 4), label[:, 1:].reshape(-1)
    for make in (metrics.pixel_accuracy, metrics.mean_iou, metrics.dice, metrics.confusion_matrix):
        value = over_parts(make(ignore_label=255), output, label, np.ones(4, np.float32), 2)
        expected = over_parts(make(), flat_output, flat_label, np.ones(len(flat_label), np.float32), 1)
        np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("make", [metrics.auroc, metrics.average_precision])
def test_many_bins_are_close_to_exact(make):
    output, label = X["logits"][:, :4], X["several"][:, :4]
    exact, binned = (over_parts(make(bins), output, label, X["weight"], 3) for bins in (0, 10_000))
    np.testing.assert_allclose(binned, exact, atol=2e-3)
    coarse = make(4).update(jnp.asarray(output), {"label": jnp.asarray(label), "weight": jnp.ones(len(label))})
    assert [leaf.shape for leaf in jax.tree.leaves(coarse)] == [(4, 4)] * 2


def test_ranking_without_positives_is_nan():
    batch = {"label": jnp.zeros(3, int), "weight": jnp.ones(3)}
    metric = metrics.auroc()
    assert np.isnan(metric.compute(metric.update(jnp.ones((3, 1)), batch)))


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: metrics.precision("weighted"), "precision: unknown average 'weighted'; expected one of: macro, micro"),
        (lambda: metrics.top_k(0), "top_k: k must be at least 1, got 0"),
        (lambda: metrics.auroc(-1), "auroc: bins must be at least 0"),
        (
            lambda: metrics.r2().update(jnp.ones((3, 1)), {"label": jnp.ones(3), "weight": jnp.ones(3)}),
            r"r2: the output \(3, 1\) and the labels \(3,\) differ in shape",
        ),
    ],
)
def test_mistake(mistake, message):
    with pytest.raises(ValueError, match=message):
        mistake()

"""Metrics against scikit-learn (`goldens/make_metrics.py`), in parts, with weights, and on several devices' sums."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn
from jaxcnn import metrics
from jaxcnn.metrics._sums import bincount

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


@pytest.mark.parametrize("label", ["label", "several"])
@pytest.mark.parametrize("name", ["precision", "recall", "f1", "dice", "mean_iou"])
def test_values_of_each_class(name, label):
    """Their mean is the macro average. The class 4 of "label" does not occur, so it has no value."""
    make, output, weight = getattr(metrics, name), X["logits"], X["weight"]
    each = over_parts(make(average="none"), output, X[label], weight, 3)
    assert np.isnan(each).tolist() == [False] * 4 + [label == "label"]
    macro = over_parts(make(), output, X[label], weight, 3)
    np.testing.assert_allclose(np.nanmean(each), macro, rtol=1e-6)
    if label == "label":
        predicted, real = output.argmax(1)[:, None] == np.arange(4), X[label][:, None] == np.arange(4)
    else:
        predicted, real = output > 0, X[label] > 0.5
    hits, found, actual = (weight @ chosen for chosen in (predicted & real, predicted, real))
    expected = {
        "precision": hits / np.maximum(found, 1e-9),  # the fifth label is never predicted
        "recall": hits / actual,
        "f1": 2 * hits / (found + actual),
        "dice": 2 * hits / (found + actual),
        "mean_iou": hits / (found + actual - hits),
    }
    np.testing.assert_allclose(each[: len(hits)], expected[name], rtol=1e-5)


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


CLASS_METRICS = {
    "accuracy": metrics.accuracy,
    "top_k": lambda **options: metrics.top_k(2),
    "precision": metrics.precision,
    "recall micro": lambda **options: metrics.recall("micro", **options),
    "f1": metrics.f1,
    "mean_iou": metrics.mean_iou,
    "confusion_matrix": metrics.confusion_matrix,
    "expected_calibration_error": metrics.expected_calibration_error,
    "auroc": lambda **options: metrics.auroc(),
    "auroc bins": lambda **options: metrics.auroc(8),
    "average_precision": lambda **options: metrics.average_precision(),
}
IGNORING = ("accuracy", "precision", "recall micro", "f1", "mean_iou", "confusion_matrix", "expected_calibration_error")


def value_of(metric, output, label, weight=None):
    weight = jnp.ones(len(output)) if weight is None else weight
    return np.asarray(metric.compute(metric.update(output, {"label": label, "weight": weight})))


def test_counts_of_one_batch_are_exact_above_2_to_the_24():
    """Above 2^24, float32 + 1 is the same float32."""
    shape, count = (1, 256, 256, 260), 256 * 256 * 260
    label = jnp.zeros(shape, jnp.uint8).at[0, :64].set(1)
    output = jnp.zeros((*shape, 2), jnp.bfloat16).at[..., 0].set(1)
    batch = {"label": label, "weight": jnp.ones(1)}
    sums = jax.jit(metrics.mean_iou().update)(output, batch)
    expected = {"hits": [count * 3 // 4, 0], "predicted": [count, 0], "actual": [count * 3 // 4, count // 4]}
    assert {name: sums[name].tolist() for name in expected} == expected
    matrix = jax.jit(metrics.confusion_matrix().update)(output, batch)
    assert matrix.tolist() == [[count * 3 // 4, 0], [count // 4, 0]]
    sums = jax.jit(metrics.expected_calibration_error(2).update)(output, batch)
    assert sums.weight.tolist() == [0, count]
    assert sums.hits.tolist() == [0, count * 3 // 4]
    positive, negative = jax.jit(metrics.auroc(2).update)(output, batch)
    assert [positive.tolist(), negative.tolist()] == [[[count // 4], [0]], [[count * 3 // 4], [0]]]


@pytest.mark.parametrize("length", [3, 70_000])
def test_bincount_equals_numpy(length):
    random = np.random.default_rng(0)
    index, weight = random.integers(0, length, (3, 50_000)), random.integers(0, 9, (3, 50_000)).astype(np.float32)
    expected = np.bincount(index.ravel(), weight.ravel(), length)
    np.testing.assert_array_equal(bincount(jnp.asarray(index), jnp.asarray(weight), length), expected)


def test_of_equal_logits_the_first_are_larger():
    random = np.random.default_rng(0)
    output, label = random.integers(0, 3, (200, 10)).astype(np.float32), random.integers(0, 10, 200)
    for k in (1, 2, 5):
        largest = np.argsort(-output, axis=1, kind="stable")[:, :k]
        assert value_of(metrics.top_k(k), output, label) == np.float32((largest == label[:, None]).any(1).mean())
    assert value_of(metrics.top_k(1), output, label) == value_of(metrics.accuracy(), output, label)
    assert value_of(metrics.top_k(1), np.zeros((4, 10)), np.arange(4)) == 0.25


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.bool_])
def test_one_output_is_the_logit_of_class_1(shape, dtype):
    output = np.array([[3.0], [-3.0], [2.0], [-2.0], [1.0], [0.0]], np.float32)
    label = np.array([1, 0, 1, 0, 0, 1]).astype(dtype).reshape(shape)
    of = lambda name, *arguments: value_of(getattr(metrics, name)(*arguments), output, label)
    assert of("accuracy") == of("top_k", 1) == np.float32(4 / 6)
    assert of("top_k", 2) == 1
    assert of("confusion_matrix").tolist() == [[2, 1], [1, 2]]
    names = ("precision", "recall", "f1", "dice", "mean_iou")  # of the class of positive examples
    expected = [2 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 4]
    np.testing.assert_allclose([of(name) for name in names], expected, rtol=1e-6)
    p = 1 / (1 + np.exp(-np.abs(output[:, 0])))
    error = abs(p - [1, 1, 1, 1, 0, 0]) / 6  # each in a bin of its own
    np.testing.assert_allclose(of("expected_calibration_error", 1000), error.sum(), rtol=1e-5)
    np.testing.assert_allclose(of("auroc"), 8 / 9, rtol=1e-6)


def test_accuracy_of_one_output_is_that_of_binary_cross_entropy():
    output, label = jnp.linspace(-1, 1, 9)[:, None], jnp.linspace(0, 1, 9)[::-1].at[3].set(0.2)
    loss_fn = cnn.binary_cross_entropy(cnn.as_layer(cnn.identity))
    _, (_, of_loss) = loss_fn({}, {}, {"image": output, "label": label}, train=False)
    assert value_of(metrics.accuracy(), output, label) == of_loss["accuracy"]


@pytest.mark.parametrize("name", CLASS_METRICS)
def test_labels_of_another_shape_are_an_error(name):
    update = CLASS_METRICS[name]().update
    for output, label in (((4, 3), (4, 1)), ((4, 3), (4, 4)), ((4, 2, 3), (4,)), ((4,), (4,)), ((4, 1), (4, 2))):
        with pytest.raises(ValueError, match=f"{name.split()[0]}: labels of shape .* do not fit outputs of shape"):
            update(jnp.zeros(output), {"label": jnp.zeros(label, int), "weight": jnp.ones(4)})


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", CLASS_METRICS)
@pytest.mark.parametrize(
    ("label", "dtype"), [(3, np.int32), (-1, np.int32), (255, np.uint8), (2**32, np.int64), (0.5, np.float32)]
)
def test_a_label_that_is_no_class_makes_the_value_nan(name, label, dtype):
    metric = CLASS_METRICS[name]()
    output, labels = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], np.array([0, 1, 2, 1], dtype)
    valid = value_of(metric, output, labels)
    labels = np.append(labels, dtype(label))
    output = np.concatenate([output, output[:1]])
    assert np.isnan(value_of(metric, output, labels)).all()
    sums = [metric.update(x, {"label": y, "weight": jnp.ones(len(x))}) for x, y in ((output[:2], labels[:2]),) * 2]
    poisoned = metric.update(output, {"label": labels, "weight": jnp.ones(5)})
    assert np.isnan(metric.compute(metrics.add_sums(metrics.add_sums(sums[0], poisoned), sums[1]))).all()
    np.testing.assert_allclose(value_of(metric, output, labels, jnp.array([1, 1, 1, 1, 0])), valid, rtol=1e-6)


@pytest.mark.parametrize("name", IGNORING)
@pytest.mark.parametrize(("label", "dtype"), [(-1, np.int32), (255, np.uint8)])
def test_ignored_labels_do_not_count(name, label, dtype):
    output, labels = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], np.array([0, 1, 2, 1], dtype)
    more = np.concatenate([output, np.full((1, 3), np.nan, np.float32)]), np.append(labels, dtype(label))
    make = CLASS_METRICS[name]
    np.testing.assert_array_equal(value_of(make(ignore_label=label), *more), value_of(make(), output, labels))


def test_a_byte_is_not_ignored_as_a_negative_number():
    """JAX wraps -1 to 255 in a comparison with uint8."""
    output, label = np.eye(300, dtype=np.float32)[:256], np.arange(256).astype(np.uint8)
    assert value_of(metrics.confusion_matrix(ignore_label=-1), output, label).sum() == 256


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, kind) for name in CLASS_METRICS for kind in ("classes", "two classes", "one output")),
        *((name, "multi-label") for name in ("precision", "recall micro", "f1", "mean_iou", "auroc", "auroc bins")),
    ],
)
def test_an_output_nan_makes_the_value_nan(name, kind):
    classes = {"classes": 3, "two classes": 2, "one output": 1, "multi-label": 3}[kind]
    random = np.random.default_rng(0)
    output = random.normal(size=(8, classes)).astype(np.float32)
    label = np.arange(8) % max(classes, 2)
    label = random.permuted(np.eye(8, 3), axis=0) if kind == "multi-label" else label
    metric = CLASS_METRICS[name]()
    output[-1, 0] = np.nan
    assert np.isnan(value_of(metric, output, label)).all()
    weight = jnp.ones(8).at[-1].set(0)
    assert not np.isnan(value_of(metric, output, label, weight)).any()


@pytest.mark.parametrize("make", [metrics.auroc, metrics.average_precision])
def test_a_ranking_of_infinities_that_cancel_is_nan(make):
    label = np.array([0, 1, 1])
    one = np.array([[0.0, 1.0], [0.0, np.inf], [np.inf, 1.0]], np.float32)
    assert not np.isnan(value_of(make(), one, label))
    both = np.array([[0.0, 1.0], [np.inf, np.inf], [2.0, 1.0]], np.float32)
    assert np.isnan(value_of(make(), both, label))


def test_labels_of_several_classes_that_are_no_probabilities_make_the_value_nan():
    output = jnp.eye(3)
    for make in (metrics.accuracy, metrics.top_k, metrics.confusion_matrix, metrics.expected_calibration_error):
        assert not np.isnan(value_of(make(), output, jnp.eye(3, dtype=int))).any()
        assert not np.isnan(value_of(make(), output, jax.nn.softmax(jnp.eye(3)).astype(jnp.bfloat16))).any()
        for row in ([1, 0, 1], [1.5, -0.5, 0], [0, 0, 0]):
            assert np.isnan(value_of(make(), output, jnp.eye(3).at[0].set(jnp.array(row)))).all()
    for make in (metrics.f1, metrics.auroc):
        assert np.isnan(value_of(make(), output, 2 * jnp.eye(3)))


@pytest.mark.sample(4)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.uint8, jnp.bool_, np.float64])
@pytest.mark.parametrize("name", [*CLASS_METRICS, "r2", "mean_absolute_error"])
def test_weights_of_any_dtype(name, dtype):
    random = np.random.default_rng(0)
    metric = CLASS_METRICS[name]() if name in CLASS_METRICS else getattr(metrics, name)()
    output, label = random.normal(size=(700, 3)).astype(np.float32), random.integers(0, 3, 700)
    if name not in CLASS_METRICS:
        label = random.normal(size=(700, 3)).astype(np.float32)
    weight = np.arange(700) % 7 != 0
    expected = value_of(metric, output, label, jnp.asarray(weight, jnp.float32))
    np.testing.assert_array_equal(value_of(metric, output, label, weight.astype(dtype)), expected)


@pytest.mark.parametrize("bins", [0, 8])
@pytest.mark.parametrize("make", [metrics.auroc, metrics.average_precision])
def test_valid_data_pass_debug_nans(make, bins):
    output, label = jax.nn.one_hot(jnp.arange(6) % 3, 4), jnp.arange(6) % 3  # class 3 is absent
    with jax.debug_nans(True):
        assert value_of(make(bins), output, label) == 1


def test_labels_of_weight_0_pass_debug_nans():
    with jax.debug_nans(True):
        assert value_of(metrics.top_k(1), jnp.eye(3), jnp.array([0, 1, 200]), jnp.array([1, 1, 0])) == 1


@pytest.mark.parametrize("name", [*CLASS_METRICS, "r2", "mean_absolute_error"])
def test_without_weight_the_value_is_nan(name):
    metric = CLASS_METRICS[name]() if name in CLASS_METRICS else getattr(metrics, name)()
    label = jnp.arange(4) % 2 if name in CLASS_METRICS else jnp.zeros((4, 3))
    value = value_of(metric, jnp.zeros((4, 3)), label, jnp.zeros(4))
    assert (value == 0).all() if name == "confusion_matrix" else np.isnan(value)


def test_multi_label_without_weight_is_nan():
    for average in ("macro", "micro"):
        assert np.isnan(value_of(metrics.f1(average), jnp.zeros((4, 3)), jnp.zeros((4, 3)), jnp.zeros(4)))


@pytest.mark.parametrize("name", ["r2", "mean_absolute_error"])
def test_regression_of_wide_integers(name):
    label = np.array([[2**32], [2**33], [2**34]])
    output = (label * np.array([[1.0], [1.25], [1.0]])).astype(np.float32)
    difference = output.astype(np.float64) - label
    expected = {
        "r2": 1 - (difference**2).sum() / ((label - label.mean()) ** 2).sum(),
        "mean_absolute_error": np.abs(difference).mean(),
    }
    np.testing.assert_allclose(value_of(getattr(metrics, name)(), output, label), expected[name], rtol=1e-6)


def test_r2_of_nan_is_nan_and_of_constant_labels_1_or_0():
    ones = np.ones((3, 1), np.float32)
    assert value_of(metrics.r2(), ones, ones) == 1
    assert value_of(metrics.r2(), ones + 1e-6, ones) == 0
    assert np.isnan(value_of(metrics.r2(), ones * np.nan, ones))
    assert np.isnan(value_of(metrics.r2(), ones, ones * np.nan))


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("constant", [0.1, 1 / 3, 123.456, 10000.1])
def test_r2_of_constant_labels_is_exact(constant, parts):
    """The mean of equal numbers may be rounded."""
    label = np.full((100, 1), constant, np.float32)
    for weight in (np.ones(100), np.linspace(0.1, 2, 100), np.arange(100) >= 60):
        assert over_parts(metrics.r2(), label, label, weight, parts) == 1
        assert over_parts(metrics.r2(), label + 1, label, weight, parts) == 0


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("scale", [1e-35, 1e-25, 1.0, 1e20, 1e35])
def test_r2_does_not_depend_on_the_scale(scale, parts):
    """Squares of 1e20 overflow, and those of 1e-25 underflow."""
    label, output = (np.float32(scale) * np.array([x], np.float32).T for x in ([1, 2, 4], [1, 2, 3]))
    ones = np.ones(3, np.float32)
    np.testing.assert_allclose(over_parts(metrics.r2(), output, label, ones, parts), 11 / 14, rtol=1e-5)
    np.testing.assert_allclose(over_parts(metrics.r2(), 0 * label, label, ones, parts), -3.5, rtol=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_tiny_weights(parts):
    weight, label = np.full(4, 1e-35, np.float32), np.array([[1], [0], [0], [1]], np.float32)
    output = np.array([[0.1], [0.4], [0.3], [0.9]], np.float32)
    for make in (metrics.r2, metrics.average_precision, metrics.auroc, metrics.mean_absolute_error):
        found, expected = (over_parts(make(), output, label, w, parts) for w in (weight, np.ones(4, np.float32)))
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=make.__name__)


@pytest.mark.parametrize("parts", [1, 3])
def test_r2_of_labels_near_10000(parts):
    """Neighbors in float32 differ by 0.001 there."""
    label = (10000 + 0.001 * np.arange(100).reshape(-1, 2) % 7).astype(np.float32)
    output, weight = label + np.float32(0.001), np.linspace(0.1, 2, 50)
    exact = [np.average(np.square(x), axis=0, weights=weight) for x in (output - label.astype(float), label - 10000.0)]
    exact[1] -= np.average(label - 10000.0, axis=0, weights=weight) ** 2
    value = over_parts(metrics.r2(), output, label, weight, parts)
    np.testing.assert_allclose(value, (1 - exact[0] / exact[1]).mean(), rtol=1e-5)


def any_case(name):
    """A metric with an output (4, 3) and labels."""
    if name in CLASS_METRICS:
        return CLASS_METRICS[name](), np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], np.array([0, 1, 2, 1])
    return getattr(metrics, name)(), X["estimate"][:4], X["quantity"][:4]


every_metric = pytest.mark.parametrize("name", [*CLASS_METRICS, "r2", "mean_absolute_error"])


@every_metric
def test_without_the_entry_all_weights_are_1(name):
    metric, output, label = any_case(name)
    value = metric.compute(metric.update(output, {"label": label}))
    np.testing.assert_array_equal(value, value_of(metric, output, label))


@every_metric
def test_weights_of_another_shape_and_missing_labels_are_errors(name):
    metric, output, label = any_case(name)
    for shape in ((), (1,), (3,), (4, 1)):
        with pytest.raises(ValueError, match=rf"{name.split()[0]}: the weights .* must have shape \(4,\), one per ex"):
            metric.update(output, {"label": label, "weight": jnp.ones(shape)})
    with pytest.raises(ValueError, match="the batch has no 'label'"):
        metric.update(output, {"weight": jnp.ones(4)})


@pytest.mark.sample(2)
@every_metric
@pytest.mark.parametrize("weight", [np.nan, np.inf, -1])
def test_a_weight_that_is_not_finite_or_negative_makes_the_value_nan(name, weight):
    assert np.isnan(value_of(*any_case(name), jnp.ones(4).at[1].set(weight))).all()


@every_metric
def test_of_no_examples_the_value_is_nan(name):
    metric, output, label = any_case(name)
    value = value_of(metric, output[:0], label[:0])
    assert (value == 0).all() if name == "confusion_matrix" else np.isnan(value)


@pytest.mark.parametrize("name", [*IGNORING, "pixel_accuracy", "dice"])
@pytest.mark.parametrize("label", ["255", True, 255.0, (254, 255)])
def test_an_ignored_label_is_an_integer(name, label):
    make = CLASS_METRICS.get(name) or getattr(metrics, name)
    with pytest.raises(TypeError, match=f"{name.split()[0]}: ignore_label must be None or an int such as 255, got"):
        make(ignore_label=label)
    assert make(ignore_label=np.uint8(255))


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (
            lambda: metrics.precision("weighted"),
            "precision: unknown average 'weighted'; expected one of: macro, micro, none",
        ),
        (lambda: metrics.top_k(0), "top_k: k must be at least 1, got 0"),
        (lambda: metrics.auroc(-1), "auroc: bins must be at least 0"),
        (
            lambda: metrics.r2().update(jnp.ones((3, 1)), {"label": jnp.ones(3), "weight": jnp.ones(3)}),
            r"r2: the output \(3, 1\) and the labels \(3,\) differ in shape",
        ),
        (lambda: metrics.r2().update(jnp.ones(()), {"label": 1.0}), r"r2 needs .* \(N, \*dimensions\), got scalars"),
    ],
)
def test_mistake(mistake, message):
    with pytest.raises(ValueError, match=message):
        mistake()


@every_metric
def test_an_output_that_is_not_one_array_of_real_numbers_is_an_error(name):
    metric, output, label = any_case(name)
    with pytest.raises(TypeError, match=f"{name.split()[0]}: the output must be real, got complex64"):
        metric.update(output * 1j, {"label": label})
    for several in ((output, output), [output]):
        with pytest.raises(TypeError, match=f"{name.split()[0]}: the output must be one array, got "):
            metric.update(several, {"label": label})


@every_metric
def test_an_output_of_integers(name):
    metric, output, label = any_case(name)
    rounded = jnp.round(jnp.asarray(output))
    expected, found = (value_of(metric, x, label) for x in (rounded, rounded.astype(jnp.int32)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)

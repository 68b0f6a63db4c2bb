"""Uncertainty: against slow loops, SciPy and closed forms; the coverage of conformal sets over many draws."""

import functools
import io
import itertools

import jax
import jax.numpy as jnp
import matplotlib.image
import matplotlib.text
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

import jaxcnn as cnn
from jaxcnn import metrics, uncertainty
from jaxcnn.train import evaluate

pytestmark = pytest.mark.usefixtures("quick_compilation")

RANDOM = np.random.default_rng(0)
LOGITS = (3 * RANDOM.normal(size=(500, 5))).astype(np.float32)
PROBS = scipy.special.softmax(LOGITS, -1)
LABELS = (LOGITS / 2.5 + RANDOM.gumbel(size=(500, 5))).argmax(-1)  # drawn from softmax(LOGITS / 2.5)
MEMBERS = scipy.special.softmax(RANDOM.normal(size=(4, 30, 5)), -1).astype(np.float32)


def diagram_by_loops(probs, labels, bins):
    rows = []
    for b in range(bins):
        inside = [(max(p), np.argmax(p) == y) for p, y in zip(probs, labels, strict=True)]
        inside = [pair for pair in inside if b / bins < pair[0] <= (b + 1) / bins]
        rows.append((*np.mean(inside, axis=0), len(inside)) if inside else (0, 0, 0))
    return np.transpose(rows)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_calibration_equals_loops(bins):
    confidence, accuracy, count = diagram_by_loops(PROBS.astype(float), LABELS, bins)
    diagram = jax.jit(uncertainty.reliability_diagram, static_argnums=2)(PROBS, LABELS, bins)
    np.testing.assert_allclose(diagram, (confidence, accuracy, count), rtol=1e-5)
    error = (count / 500) @ abs(accuracy - confidence)
    np.testing.assert_allclose(uncertainty.expected_calibration_error(PROBS, LABELS, bins), error, rtol=1e-4)


def test_confidence_on_an_edge_is_in_the_lower_bin():
    probs = jnp.array([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]])
    count = uncertainty.reliability_diagram(probs, [0, 0, 0], 4).count
    assert count.tolist() == [0, 1, 1, 1]


def test_calibration_error_as_a_metric_of_evaluate():
    """The same in batches, with padding, and for label maps with an ignored label."""
    data = {"image": LOGITS, "label": LABELS}
    options = {"metrics": {"ece": metrics.expected_calibration_error()}, "model": cnn.as_layer(cnn.identity)}
    loss_fn = cnn.cross_entropy(options["model"])
    value = evaluate(loss_fn, {}, {}, data, batch_size=64, **options)["ece"]
    np.testing.assert_allclose(value, uncertainty.expected_calibration_error(PROBS, LABELS), rtol=1e-4)

    metric = metrics.expected_calibration_error(ignore_label=255)
    label = LABELS.reshape(10, 50).copy()
    label[:, 20:] = 255
    logits = LOGITS.reshape(10, 50, 5).copy()
    logits[9] = np.nan
    weight = (np.arange(10) < 9).astype(np.float32)
    value = metric.compute(metric.update(logits, {"label": label, "weight": weight}))
    expected = uncertainty.expected_calibration_error(PROBS.reshape(10, 50, 5)[:9, :20], label[:9, :20])
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def nll(T):
    return -scipy.special.log_softmax(LOGITS.astype(float) / T, -1)[np.arange(500), LABELS].mean()


def test_temperature_is_the_minimum_of_scipy():
    expected = scipy.optimize.minimize_scalar(nll, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-10}).x
    assert 2 < expected < 3
    T = jax.jit(uncertainty.temperature)(LOGITS, LABELS)
    np.testing.assert_allclose(T, expected, rtol=1e-5)
    with jax.enable_x64(True):
        exact = uncertainty.temperature(LOGITS.astype(np.float64), LABELS)
        np.testing.assert_allclose(exact, expected, rtol=1e-7)

        def loss(T):
            return -jnp.take_along_axis(jax.nn.log_softmax(LOGITS.astype(float) / T), LABELS[:, None], -1).mean()

        assert abs(jax.grad(loss)(exact)) < 1e-10


@pytest.mark.parametrize("factor", [0.3, 2.0])
def test_temperature_of_scaled_logits_is_scaled(factor):
    T, scaled = (uncertainty.temperature(k * LOGITS, LABELS) for k in (1, factor))
    np.testing.assert_allclose(scaled, factor * T, rtol=1e-5)


def test_temperature_without_a_minimum_is_at_the_bound():
    np.testing.assert_allclose(uncertainty.temperature(LOGITS, LOGITS.argmax(-1)), 0.01, rtol=1e-4)
    np.testing.assert_allclose(uncertainty.temperature(LOGITS, LOGITS.argmin(-1)), 100, rtol=1e-4)


@pytest.mark.parametrize("size", [1e-20, 1.0, 1e4, 1e10, 1e15, 1e30, 1e38])
def test_temperature_of_tiny_and_huge_logits(size):
    """No better than chance: 100. All right: 0.01."""
    logits = np.float32(size) * np.array([[1, -1, 0]] * 2, np.float32)
    assert uncertainty.temperature(logits, [0, 1]) == 100
    assert uncertainty.temperature(0 * logits, [0, 1]) == 100
    np.testing.assert_allclose(uncertainty.temperature(logits, [0, 0]), 0.01, rtol=1e-6)


def test_temperature_lowers_the_calibration_error_and_keeps_predictions():
    model = uncertainty.with_temperature(cnn.dense(5), uncertainty.temperature(LOGITS, LABELS))
    params = {"kernel": jnp.eye(5), "bias": jnp.zeros(5)}
    assert jax.tree.map(jnp.shape, model.init(jax.random.key(0), LOGITS)[0]) == jax.tree.map(jnp.shape, params)
    scaled, _ = model.apply(params, {}, LOGITS, train=False)
    before, after = (uncertainty.expected_calibration_error(jax.nn.softmax(x), LABELS) for x in (LOGITS, scaled))
    assert after < 0.5 * before
    np.testing.assert_array_equal(scaled.argmax(-1), LOGITS.argmax(-1))
    np.testing.assert_allclose(model.apply(params, {}, LOGITS, train=True)[0], LOGITS, rtol=1e-6)


@pytest.mark.slow
def test_temperature_of_auxiliary_heads_and_bfloat16():
    model = uncertainty.with_temperature(cnn.as_layer(lambda x: (x, 2 * x)), 4)
    main, head = model.apply({}, {}, jnp.ones((1, 2), jnp.bfloat16), train=False)[0]
    assert main.dtype == jnp.bfloat16
    assert (main[0, 0], head[0, 0]) == (0.25, 0.5)


@pytest.mark.parametrize(
    "transform", [lambda f, T: f(T), lambda f, T: jax.jit(f)(T), lambda f, T: jax.vmap(f)(T[None])[0]]
)
def test_temperature_may_be_an_array_or_traced(transform):
    logits = jnp.array([[4.0, 0.0]])
    scaled = lambda T: uncertainty.with_temperature(cnn.identity, T).apply({}, {}, logits, train=False)[0]
    np.testing.assert_array_equal(transform(scaled, jnp.float32(2.0)), logits / 2)
    assert scaled(np.array(2.0)).dtype == jnp.float32


# ------------------------------------------------------------------------------------------------------- conformal sets


def draw(key, n):
    """Probabilities, and labels from other ones: the network is not calibrated."""
    for_logits, for_labels = jax.random.split(key)
    logits = 2 * jax.random.normal(for_logits, (n, 5))
    return jax.nn.softmax(logits), jax.random.categorical(for_labels, 0.5 * logits - 0.3 * jnp.arange(5.0))


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4, 5))
def coverages(keys, n, m, coverage, score, random):
    """Of each key: the fraction of m test labels in their sets, and the mean size, with n calibration examples."""

    def once(key):
        keys = jax.random.split(key, 3)
        probs, labels = draw(keys[0], n + m)
        options = [{"score": score} | ({"key": key} if random else {}) for key in keys[1:]]
        threshold = uncertainty.conformal_threshold(probs[:n], labels[:n], coverage=coverage, **options[0])
        sets = uncertainty.conformal_sets(probs[n:], threshold, **options[1])
        return jnp.take_along_axis(sets, labels[n:, None], -1).mean(), sets.sum(-1).mean()

    return jax.vmap(once)(keys)


@pytest.mark.parametrize(
    ("score", "random", "n", "coverage"),
    [
        ("lac", False, 99, 0.9),
        ("aps", True, 99, 0.9),
        pytest.param("aps", True, 30, 0.75, marks=pytest.mark.slow),
        pytest.param("aps", False, 99, 0.9, marks=pytest.mark.slow),
    ],
)
def test_coverage_over_1000_draws(score, random, n, coverage):
    """The covered test labels of one calibration set are beta-binomial. "aps" without a key has ties at the top."""
    m = 100
    covered, _ = coverages(jax.random.split(jax.random.key(1), 1000), n, m, coverage, score, random)
    rank = int(np.ceil((n + 1) * coverage - 1e-9))
    expected = scipy.stats.betabinom(m, rank, n + 1 - rank)
    mean, error = expected.mean() / m, expected.std() / m / np.sqrt(1000)
    assert mean >= coverage - 1e-9
    assert abs(covered.mean() - mean) < 4 * error
    np.testing.assert_allclose(covered.std(), expected.std() / m, rtol=0.1)
    quantiles = np.quantile(np.round(covered * m), [0.1, 0.5, 0.9])
    np.testing.assert_allclose(quantiles, expected.ppf([0.1, 0.5, 0.9]), atol=1)


@pytest.mark.slow
def test_lac_has_the_smallest_sets_and_randomization_makes_those_of_aps_smaller():
    keys = jax.random.split(jax.random.key(2), 1000)
    lac, aps, larger = (
        coverages(keys, 99, 100, 0.9, *options)[1].mean() for options in (("lac", False), ("aps", True), ("aps", False))
    )
    assert lac < aps < larger


def aps_by_loops(probs, tau, u):
    """Romano et al. (2020), equations 5 and 6: the shortest top classes with sum tau, the last dropped if u is small"""
    sets = np.zeros(probs.shape, bool)
    for row, p, u_n in zip(sets, probs, u, strict=True):
        order = np.argsort(-p, kind="stable")
        length = next((c for c in range(1, 6) if p[order[:c]].sum() >= tau), 5)
        excess = (p[order[:length]].sum() - tau) / p[order[length - 1]]
        row[order[: length - 1 if u_n <= excess else length]] = True
    return sets


@pytest.mark.parametrize("tau", [0.3, 0.8, 0.97])
def test_aps_sets_are_those_of_the_paper(tau):
    """The paper keeps the last class if u is large, `conformal_sets` if it is small."""
    key = jax.random.key(3)
    u = 1 - np.asarray(jax.random.uniform(key, (500, 1)))[:, 0]
    sets = uncertainty.conformal_sets(PROBS, tau, score="aps", key=key)
    expected = aps_by_loops(PROBS, tau, u)
    np.testing.assert_array_equal(sets, expected)
    assert len(np.unique(expected.sum(-1))) >= (2 if tau < 0.5 else 4)


def test_threshold_is_an_order_statistic():
    probs = np.stack([PROBS[:19, 0], 1 - PROBS[:19, 0]], -1)
    labels = np.zeros(19, int)
    scores = np.sort(1 - probs[:, 0])
    for coverage, rank in ((0.05, 1), (0.5, 10), (0.55, 11), (0.56, 12), (0.95, 19)):
        threshold = uncertainty.conformal_threshold(probs, labels, coverage=coverage)
        np.testing.assert_allclose(threshold, scores[rank - 1], rtol=1e-6)
    assert uncertainty.conformal_threshold(probs, labels, coverage=1e-10) == scores[0]
    threshold = uncertainty.conformal_threshold(probs, labels, coverage=0.96)  # needs 20 examples
    assert np.isinf(threshold)
    assert uncertainty.conformal_sets(probs, threshold).all()


# --------------------------------------------------------------------------------------------- ensembles and detection


def test_entropies_equal_scipy():
    np.testing.assert_allclose(
        uncertainty.predictive_entropy(MEMBERS), scipy.stats.entropy(MEMBERS.mean(0), axis=-1), rtol=1e-5
    )
    expected = scipy.stats.entropy(MEMBERS, axis=-1).mean(0)
    np.testing.assert_allclose(uncertainty.expected_entropy(MEMBERS), expected, rtol=1e-5)


def test_mutual_information_is_the_difference_and_zero_for_equal_members():
    total, expected = uncertainty.predictive_entropy(MEMBERS), uncertainty.expected_entropy(MEMBERS)
    information = jax.jit(uncertainty.mutual_information)(MEMBERS)
    np.testing.assert_allclose(information, total - expected, atol=1e-6)
    assert (information > 0.01).all()
    same = uncertainty.mutual_information(np.repeat(MEMBERS[:1], 3, 0))
    assert (same >= 0).all()
    assert (same < 1e-6).all()
    certain = np.eye(4, dtype=np.float32)[:, None]  # four members, each certain of another class
    np.testing.assert_allclose(uncertainty.mutual_information(certain), [np.log(4)], rtol=1e-6)


@pytest.mark.parametrize("name", ["predictive_entropy", "expected_entropy", "mutual_information"])
def test_gradient_of_entropies_of_certain_members(name):
    """The softmax of one member rounds to 1 and 0, where the derivative of p log p is infinite."""
    function = getattr(uncertainty, name)
    gradient = jax.grad(lambda logits: function(jax.nn.softmax(logits)).sum())
    np.testing.assert_array_equal(gradient(jnp.array([[[110.0, 0.0]]])), 0)
    assert np.isfinite(gradient(jnp.array([[[110.0, 0.0]], [[0.0, 0.0]]]))).all()


@pytest.mark.slow
def test_entropies_of_maps():
    maps = np.moveaxis(MEMBERS.reshape(4, 2, 3, 5, 5), 2, 3)
    for function in (uncertainty.predictive_entropy, uncertainty.expected_entropy, uncertainty.mutual_information):
        flat = function(maps.reshape(4, -1, 5))
        np.testing.assert_array_equal(function(maps), flat.reshape(2, 5, 3))


def test_ood_auroc_equals_the_double_sum_and_mann_whitney():
    scores_in, scores_out = (np.round(RANDOM.normal(mean, 1, n), 1) for mean, n in ((0, 60), (0.7, 45)))  # with ties
    expected = np.mean([(a < b) + (a == b) / 2 for a, b in itertools.product(scores_in, scores_out)])
    value = jax.jit(uncertainty.ood_auroc)(jnp.asarray(scores_in), jnp.asarray(scores_out))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    statistic = scipy.stats.mannwhitneyu(scores_out, scores_in).statistic
    np.testing.assert_allclose(value, statistic / (60 * 45), rtol=1e-6)
    np.testing.assert_allclose(uncertainty.ood_auroc(scores_out, scores_in), 1 - value, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------- the rest


def test_diagram_has_the_bars_of_the_bins():
    diagram = uncertainty.reliability_diagram(PROBS, LABELS, 10)
    figure = uncertainty.plot_reliability_diagram(diagram)
    top, bottom = figure.axes
    bars = [bar.get_height() for bar in top.patches]
    np.testing.assert_allclose(bars, diagram.accuracy)
    np.testing.assert_allclose([bar.get_height() for bar in bottom.patches], diagram.count / 500, rtol=1e-6)
    filtered = lambda values: np.asarray(values)[np.asarray(diagram.count) > 0]
    for segment, confidence, accuracy in zip(
        top.collections[0].get_segments(), *map(filtered, diagram[:2]), strict=True
    ):
        np.testing.assert_allclose(segment, [(confidence, accuracy), (confidence, confidence)], rtol=1e-6)
    error = uncertainty.expected_calibration_error(PROBS, LABELS, 10)
    assert top.get_title() == f"expected calibration error {error:.2%}"
    file = io.BytesIO()
    figure.savefig(file, format="png")
    pixels = matplotlib.image.imread(io.BytesIO(file.getvalue()))
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge[:, 3] == 0).all(), "something reaches the edge"
    assert all(text.get_fontsize() >= 8 for text in figure.findobj(matplotlib.text.Text) if text.get_text())


EVERYTHING = {
    "expected_calibration_error": lambda x: uncertainty.expected_calibration_error(jax.nn.softmax(x), LABELS),
    "reliability_diagram": lambda x: uncertainty.reliability_diagram(jax.nn.softmax(x), LABELS),
    "temperature": lambda x: uncertainty.temperature(x, LABELS),
    "conformal_threshold": lambda x: uncertainty.conformal_threshold(
        jax.nn.softmax(x), LABELS, score="aps", key=jax.random.key(0)
    ),
    "conformal_sets": lambda x: uncertainty.conformal_sets(
        jax.nn.softmax(x), 0.9, score="aps", key=jax.random.key(0)
    ).astype(jnp.float32),
    "predictive_entropy": lambda x: uncertainty.predictive_entropy(jax.nn.softmax(x)[None]),
    "expected_entropy": lambda x: uncertainty.expected_entropy(jax.nn.softmax(x)[None]),
    "mutual_information": lambda x: uncertainty.mutual_information(jax.nn.softmax(x)[None]),
    "ood_auroc": lambda x: uncertainty.ood_auroc(x[:, 0], x[:, 1]),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", EVERYTHING)
def test_strict_modes_and_dtypes(name):
    function = EVERYTHING[name]
    expected = function(LOGITS)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"), jax.debug_nans(True):
        jax.tree.map(np.testing.assert_array_equal, function(jnp.asarray(LOGITS)), expected)
    narrow = function(jnp.asarray(LOGITS, jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves((narrow, expected))} == {np.dtype(np.float32)}
    with jax.enable_x64(True):
        shapes = jax.eval_shape(function, jax.ShapeDtypeStruct(LOGITS.shape, np.float32))
        assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype(np.float32)}


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", EVERYTHING)
def test_vmap(name):
    x = jnp.stack([LOGITS, LOGITS[:, ::-1]])
    together = jax.vmap(EVERYTHING[name])(x)
    one_by_one = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(EVERYTHING[name], x))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, together, one_by_one)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (
            lambda: uncertainty.expected_calibration_error(LOGITS, LABELS),
            r"expected_calibration_error: probs\[0\] has the smallest value .* sum to 1: use jax\.nn\.softmax",
        ),
        (
            lambda: uncertainty.reliability_diagram(PROBS, LABELS[:9]),
            r"reliability_diagram needs integer labels of shape \(500,\) for \(500, 5\), got int.* of shape \(9,\)",
        ),
        (lambda: uncertainty.reliability_diagram(PROBS, LABELS, 0), "reliability_diagram: bins must be at least 1"),
        (lambda: uncertainty.temperature(LOGITS, LABELS + 4), r"temperature: label\[\d+\] is \d, but .* 5 outputs"),
        (
            lambda: uncertainty.temperature(PROBS, LABELS),
            r"temperature needs logits, .* use jnp\.log",
        ),
        (lambda: uncertainty.temperature(PROBS.astype(jnp.bfloat16), LABELS), r"temperature needs logits"),
        (lambda: uncertainty.temperature(LOGITS[0], 3), r"temperature needs \(N, \*spatial, classes\), got .*\(5,\)"),
        (
            lambda: uncertainty.temperature(np.full((2, 3), -np.inf, np.float32), [0, 1]),
            r"temperature: logits\[0, 0\] is -inf",
        ),
        (lambda: uncertainty.conformal_threshold(PROBS, LABELS, coverage=1), "coverage must be above 0 and below 1"),
        (lambda: uncertainty.conformal_threshold(PROBS, LABELS, coverage=0.0), "coverage must be above 0 and below 1"),
        (
            lambda: uncertainty.conformal_sets(PROBS, 0.5, score="raps"),
            "conformal_sets: unknown score 'raps'; expected one of: lac, aps",
        ),
        (
            lambda: uncertainty.conformal_sets(PROBS, 0.5, key=jax.random.key(0)),
            'conformal_sets: score="lac" is not random; omit the key',
        ),
        (lambda: uncertainty.conformal_sets(PROBS, jnp.nan), "conformal_sets: threshold is NaN; use .*_threshold"),
        (lambda: uncertainty.conformal_sets(PROBS, jnp.array(jnp.nan)), "conformal_sets: threshold is NaN"),
        (lambda: uncertainty.conformal_sets(PROBS[None], 0.5), r"needs probabilities \(N, classes\), got .*1, 500, 5"),
        (lambda: uncertainty.predictive_entropy(PROBS), r"predictive_entropy needs .*probs\[None\] for one network"),
        (lambda: uncertainty.ood_auroc(PROBS, PROBS), r"ood_auroc needs scores \(N,\) and \(M,\)"),
        (lambda: uncertainty.ood_auroc(PROBS[0], PROBS[0, :0]), r"ood_auroc needs scores .*\(5,\) and \(0,\)"),
        (
            lambda: uncertainty.plot_reliability_diagram(uncertainty.Reliability(*[np.zeros(3)] * 3)),
            "all bins are empty",
        ),
    ],
)
def test_mistake(mistake, message):
    with pytest.raises(ValueError, match=message):
        mistake()


@pytest.mark.parametrize("T", [0, -1, np.nan, np.inf, jnp.float32(0), np.array(-2.0)])
def test_a_temperature_is_finite_and_above_0(T):
    with pytest.raises(ValueError, match="with_temperature: T must be"):
        uncertainty.with_temperature(cnn.identity, T)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        *(
            (lambda T=T: uncertainty.with_temperature(cnn.identity, T), "with_temperature: T must be a number, got")
            for T in (jnp.ones(5), "a", None)
        ),
        *(
            (lambda t=t: uncertainty.conformal_sets(PROBS, t), "conformal_sets: threshold must be a number, got")
            for t in (jnp.ones(5), np.ones(1), "a", None)
        ),
        (
            lambda: uncertainty.ood_auroc(PROBS[0] * 1j, PROBS[0]),
            "ood_auroc: scores_in must be real, got complex",
        ),
        (
            lambda: uncertainty.with_temperature(cnn.identity, 2.5).apply({}, {}, jnp.array([[4, 0]]), train=False),
            r"with_temperature needs floating-point input, got int32 of shape \(1, 2\)",
        ),
    ],
)
def test_mistake_of_type(mistake, message):
    with pytest.raises(TypeError, match=message):
        mistake()


INVALID = {
    "a class too large": (PROBS[:5], LABELS[:5] + 5),
    "a negative class": (PROBS[:5], LABELS[:5] - 5),
    "NaN": (PROBS[:5] * np.array([1, np.nan, 1, 1, 1], np.float32), LABELS[:5]),
}
NO_PROBABILITIES = {
    "a sum of 2": (2 * PROBS[:5], LABELS[:5]),
    "above 1": (np.array([[1.5, -0.5]], np.float32), np.zeros(1, int)),
}


@pytest.mark.parametrize(("probs", "labels"), (INVALID | NO_PROBABILITIES).values(), ids=INVALID | NO_PROBABILITIES)
def test_invalid_values_in_a_compiled_function_make_the_result_nan(probs, labels):
    threshold = jax.jit(functools.partial(uncertainty.conformal_threshold, coverage=0.2))(probs, labels)
    error = jax.jit(uncertainty.expected_calibration_error)(probs, labels)
    diagram = jax.jit(uncertainty.reliability_diagram)(probs, labels)
    assert all(np.isnan(value).all() for value in (threshold, error, diagram.confidence, diagram.accuracy))


@pytest.mark.parametrize(("logits", "labels"), INVALID.values(), ids=INVALID)
def test_temperature_of_invalid_values_in_a_compiled_function_is_nan(logits, labels):
    assert np.isnan(jax.jit(uncertainty.temperature)(logits, labels))
    assert np.isnan(jax.jit(uncertainty.temperature)(np.full((2, 3), np.inf, np.float32), np.zeros(2, int)))


@pytest.mark.parametrize("name", ["predictive_entropy", "expected_entropy", "mutual_information"])
def test_entropies_of_no_probabilities_are_nan_in_a_compiled_function(name):
    members = MEMBERS.copy()
    members[0, 3] *= 2
    assert np.isnan(jax.jit(getattr(uncertainty, name))(members)).nonzero()[0].tolist() == [3]


def test_mutual_information_of_tiny_probabilities():
    probs = jnp.array([[[1.0, 2e-38]], [[1.0, 0.0]]])
    assert float(uncertainty.mutual_information(probs)[0]) < 1e-6

"""What a network looks for and where it looks, against closed forms, laws and loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import jaxcnn as cnn
from jaxcnn import explain, train

KEY = jax.random.key(0)
SMOOTH = cnn.serial(conv=cnn.conv(4), act=jnp.tanh, flatten=cnn.flatten, head=cnn.dense(3))
CAM = cnn.serial(conv=cnn.conv(4), act=jax.nn.relu, pool=cnn.global_avg_pool, head=cnn.dense(3))
LINEAR = cnn.serial(flatten=cnn.flatten, head=cnn.dense(3))


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def started(model, x, seed=0):
    return model.init(jax.random.key(seed), x)


# Where it looks


@pytest.mark.parametrize("label", [None, 1, np.array([2, 0, 1])])
def test_saliency_of_a_linear_model_is_its_weights(label):
    x = draw(3, 4, 5, 2)
    params, state = started(LINEAR, x, seed=5)
    kernel = np.asarray(params["head"]["kernel"])
    chosen = (x.reshape(3, -1) @ kernel).argmax(1) if label is None else np.broadcast_to(label, 3)
    assert label is not None or len(set(chosen)) > 1
    np.testing.assert_allclose(
        explain.saliency(LINEAR, params, state, x, label=label), kernel.T[chosen].reshape(x.shape), rtol=1e-6
    )


def test_saliency_is_taken_in_evaluation():
    model = cnn.serial(norm=cnn.batch_norm(eps=0.0), drop=cnn.dropout(0.5), flatten=cnn.flatten, head=cnn.dense(3))
    x = draw(2, 3, 3, 2)
    params, state = started(model, x)
    state = {"norm": {"mean": jnp.array([1.0, 2.0]), "var": jnp.array([4.0, 16.0])}}
    weights = params["head"]["kernel"][:, 1].reshape(3, 3, 2) / np.array([2.0, 4.0])
    found = explain.saliency(model, params, state, x, label=1)
    np.testing.assert_allclose(found, np.broadcast_to(weights, x.shape), rtol=1e-6)


def test_smooth_grad_without_noise_is_the_gradient():
    x = draw(2, 6, 6, 1)
    params, state = started(SMOOTH, x)
    smooth = explain.smooth_grad(SMOOTH, params, state, x, key=KEY, noise=0, samples=3)
    np.testing.assert_allclose(smooth, explain.saliency(SMOOTH, params, state, x), atol=1e-6)


def test_smooth_grad_is_a_mean_over_noise_of_the_stated_size():
    """For the sum of squares it is 2 (x + mean of the noise), whose std is 2 sigma / sqrt(samples)."""
    model = cnn.serial(flatten=cnn.flatten, square=jnp.square, sum=lambda x: x.sum(-1, keepdims=True))
    x = draw(2, 40, 40, 1) * np.array([1, 10], np.float32).reshape(2, 1, 1, 1)
    error = np.asarray(explain.smooth_grad(model, {}, {}, x, key=KEY, noise=0.2, samples=25)) - 2 * x
    for image, off in zip(x, error, strict=True):
        assert off.std() == pytest.approx(2 * 0.2 * np.ptp(image) / 5, rel=0.1)
        assert abs(off.mean()) < 0.1 * off.std()


@pytest.mark.parametrize("baseline", [0.0, draw(6, 6, 1, seed=1), draw(2, 6, 6, 1, seed=2)], ids=["0", "one", "each"])
def test_integrated_gradients_add_up_to_the_difference(baseline):
    x = draw(2, 6, 6, 1)
    params, state = started(SMOOTH, x)
    with jax.numpy_rank_promotion("raise"):
        attributions = explain.integrated_gradients(SMOOTH, params, state, x, label=2, baseline=baseline)
    logits, at_baseline = (
        SMOOTH.apply(params, state, jnp.asarray(np.broadcast_to(image, x.shape), jnp.float32), train=False)[0]
        for image in (x, baseline)
    )
    difference = (logits - at_baseline)[:, 2]
    assert np.abs(difference).min() > 0.02
    np.testing.assert_allclose(attributions.sum((1, 2, 3)), difference, atol=1e-3)


def test_integrated_gradients_of_a_linear_model_are_weight_times_change():
    x = draw(2, 4, 4, 1)
    params, state = started(LINEAR, x)
    weights = params["head"]["kernel"][:, 0].reshape(4, 4, 1)
    found = explain.integrated_gradients(LINEAR, params, state, x, label=0, baseline=0.5, steps=3)
    np.testing.assert_allclose(found, (x - 0.5) * weights, atol=1e-6)


def test_the_class_is_that_of_the_image_itself():
    """Of x, not of the noisy images or of those on the way from the baseline, where another logit is the largest."""
    model = cnn.serial(flatten=cnn.flatten, scores=lambda x: jnp.concatenate([x, 0.9 + 0 * x], axis=1))
    x = np.ones((1, 1, 1), np.float32)
    np.testing.assert_allclose(explain.integrated_gradients(model, {}, {}, x), x)
    noisy = functools.partial(explain.smooth_grad, model, {}, {}, key=KEY, noise=1.0, samples=8)
    np.testing.assert_allclose(noisy(np.array([[[1.0], [-5.0]]], np.float32), label=None).ravel(), [1, 0])


@pytest.mark.parametrize("layer", ["conv", "act"])
def test_grad_cam_is_class_activation_mapping(layer):
    """With a global mean and a dense layer after it, it is relu(sum_c w[c] a[i, c] / positions): Zhou et al., 2016."""
    x = draw(3, 6, 7, 2)
    params, state = started(CAM, x)
    label = np.array([0, 2, 1])
    a = np.asarray(explain.feature_maps(CAM, params, state, x, layer)[layer])
    weights = np.asarray(params["head"]["kernel"]).T[label]  # (N, C)
    slope = 1 if layer == "act" else (a > 0).mean((1, 2))  # relu passes the gradient where its input is positive
    expected = np.maximum(np.einsum("nijc,nc->nij", a, weights * slope) / (6 * 7), 0)
    assert (expected > 0).mean() > 0.2
    found = explain.grad_cam(CAM, params, state, x, layer, label=label)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_grad_cam_inside_of_blocks_and_in_one_dimension():
    model = cnn.serial(
        stem=cnn.conv(4), block=cnn.residual(cnn.serial(conv=cnn.conv(4), act=jax.nn.relu)), pool=cnn.global_avg_pool
    )
    x = draw(2, 9, 1)
    params, state = started(model, x)
    a = np.asarray(explain.feature_maps(model, params, state, x)["block/layer/act"])
    found = explain.grad_cam(model, params, state, x, "block/layer/act", label=3)
    np.testing.assert_allclose(found, a[..., 3] / 9, atol=1e-6)


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    "function",
    [
        explain.saliency,
        functools.partial(explain.smooth_grad, key=KEY, samples=2),
        functools.partial(explain.integrated_gradients, steps=2),
        functools.partial(explain.grad_cam, layer="conv"),
    ],
    ids=["saliency", "smooth_grad", "integrated_gradients", "grad_cam"],
)
def test_under_jit_and_in_half_precision(function):
    x = draw(2, 6, 6, 1)
    params, state = started(SMOOTH, x)
    explained = functools.partial(function, SMOOTH)
    eager = explained(params, state, x, label=np.array([1, 0]))
    compiled = jax.jit(explained)(params, state, x, label=np.array([1, 0]))
    np.testing.assert_allclose(compiled, eager, atol=1e-6)
    half = explained(params, state, x.astype(jnp.bfloat16), label=np.array([1, 0]))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), eager, atol=0.03 * np.abs(eager).max())


# After training


def trained(model, image, label, steps, batch_size=64):
    optimizer = optax.adam(3e-3)
    state = train.TrainState.create(model, optimizer, KEY, image[:batch_size])
    step = train.make_step(cnn.cross_entropy(model), optimizer)
    order = np.random.default_rng(0).integers(0, len(image), (steps, batch_size))
    for rows in order:
        state, metrics = step(state, {"image": image[rows], "label": label[rows]})
    assert metrics["accuracy"] > 0.9
    return state.params, state.state


@pytest.mark.slow
def test_random_parameters_destroy_the_maps():
    """What a map shows is learned, and no property of the image: Adebayo et al., 2018."""
    model = cnn.serial(
        conv1=cnn.conv(8), relu1=jax.nn.relu, pool1=cnn.max_pool(2), conv2=cnn.conv(16), relu2=jax.nn.relu,
        pool2=cnn.max_pool(2), flatten=cnn.flatten, head=cnn.dense(10),
    )  # fmt: skip
    digits = cnn.data.load("mnist_small", "test")
    image = digits.images.astype(np.float32) / 255
    params, state = trained(model, image, digits.labels, 150)
    x, label = image[:32], digits.labels[:32]
    others, _ = started(model, x, seed=1)
    for function in (
        explain.saliency,
        functools.partial(explain.smooth_grad, key=KEY, samples=8),
        functools.partial(explain.integrated_gradients, steps=8),
        functools.partial(explain.grad_cam, layer="relu2"),
    ):
        explained = jax.jit(functools.partial(function, model))
        learned, random = (np.asarray(explained(p, state, x, label=label)) for p in (params, others))
        pairs = [(a.ravel(), b.ravel()) for a, b in zip(learned, random, strict=True) if np.ptp(a) and np.ptp(b)]
        assert len(pairs) >= 8  # relu may leave nothing of a map
        rho = [scipy.stats.spearmanr(a, b).statistic for a, b in pairs]
        assert np.mean(np.abs(rho)) < 0.3


def shapes(n, seed):
    """Noise (n, 16, 16, 1) with stripes across, down or aslant in one quadrant, or none: which of them, and where."""
    rng = np.random.default_rng(seed)
    kinds = np.zeros((4, 5, 5), np.float32)
    kinds[0, ::2] = kinds[1, :, ::2] = 1
    kinds[2] = np.add.outer(np.arange(5), np.arange(5)) % 3 == 1
    image = rng.normal(0, 0.1, (n, 16, 16, 1)).astype(np.float32)
    label, quadrant = rng.integers(0, 4, n), rng.integers(0, 2, (n, 2))
    for i, (top, left) in enumerate(8 * quadrant + rng.integers(0, 4, (n, 2))):
        image[i, top : top + 5, left : left + 5, 0] += kinds[label[i]]
    return image, label, quadrant


@pytest.mark.slow
def test_grad_cam_looks_where_the_shape_is():
    model = cnn.serial(
        conv1=cnn.conv(16), relu1=jax.nn.relu, conv2=cnn.conv(16), relu2=jax.nn.relu, pool=cnn.global_avg_pool,
        head=cnn.dense(4),
    )  # fmt: skip
    image, label, _ = shapes(2000, 0)
    params, state = trained(model, image, label, 400)
    image, label, quadrant = shapes(100, 1)
    maps = np.asarray(explain.grad_cam(model, params, state, image, "relu2", label=label))[label < 3]
    parts = maps.reshape(-1, 2, 8, 2, 8).sum((2, 4))
    inside = parts[np.arange(len(parts)), *quadrant[label < 3].T]
    assert np.mean(inside / maps.sum((1, 2))) > 0.7


# What it looks for


def test_filters_are_the_kernel_filter_first():
    params, _ = started(cnn.models.lenet5(), np.zeros((1, 28, 28, 1)))
    for layer in ("conv1", "conv2"):
        found = explain.filters(params, layer)
        for i, kernel in enumerate(found):
            np.testing.assert_array_equal(kernel, params[layer]["kernel"][..., i])
    np.testing.assert_array_equal(explain.filters(params), explain.filters(params, "conv1"))
    bare, _ = started(cnn.conv(4), np.zeros((1, 5, 5, 2)))
    assert explain.filters(bare).shape == (4, 3, 3, 2)


def test_filters_of_the_layer_that_sees_the_image():
    """In a tree sorted by name, it is the last: `stem`, after `stage1` to `stage4`."""
    params, _ = jax.eval_shape(cnn.models.MODELS["resnet18"]().init, KEY, np.zeros((1, 32, 32, 3)))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape), params)
    assert explain.filters(params).shape == (64, 7, 7, 3)


def test_feature_maps_are_what_the_layers_compute():
    x = draw(2, 6, 6, 2)
    params, state = started(CAM, x)
    maps = explain.feature_maps(CAM, params, state, x)
    assert list(maps) == ["conv", "act", "pool", "head"]
    conv = cnn.conv(4).apply(params["conv"], {}, x, train=False)[0]
    np.testing.assert_allclose(maps["conv"], conv, atol=1e-6)
    np.testing.assert_allclose(maps["act"], np.maximum(conv, 0), atol=1e-6)
    assert list(explain.feature_maps(CAM, params, state, x, "conv|pool")) == ["conv", "pool"]


def cosine(a, b):
    a, b = np.ravel(a), np.ravel(b)
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("model", [cnn.serial(conv=cnn.conv(3, 5, padding="VALID")), LINEAR], ids=["conv", "dense"])
def test_feature_visualization_finds_the_filters_of_a_linear_detector(model):
    like = jax.ShapeDtypeStruct((3, 5, 5, 2), jnp.float32)
    params, state = started(model, like)
    layer = next(reversed(params))
    kernels = np.moveaxis(params[layer]["kernel"], -1, 0)
    channel = np.array([2, 0, 1])
    images, activations = explain.feature_visualization(
        model, params, state, like, layer, channel, key=KEY, l2=0.5, total_variation=0, jitter=0, bounds=None
    )
    assert images.shape == like.shape
    assert activations.shape == (256, 3)
    assert (np.asarray(activations[-1]) > np.asarray(activations[0]) + 1).all()
    for image, i in zip(images, channel, strict=True):
        assert cosine(image, kernels[i]) > 0.999
        assert np.sqrt(np.square(image).mean()) == pytest.approx(1, rel=0.01)  # where u = 2 l2 x


def test_feature_visualization_raises_the_activation():
    like = draw(2, 12, 12, 1)
    params, state = started(CAM, like)
    run = functools.partial(explain.feature_visualization, CAM, params, state, like, "head", 1, steps=60)
    images, activations = run(key=KEY)
    assert (activations[-1] > activations[0] + 0.1).all()
    assert images.min() >= 0
    assert images.max() == 1
    again, _ = run(key=KEY)
    np.testing.assert_array_equal(images, again)
    _, others = run(key=jax.random.key(1))
    assert (others[0] != activations[0]).all()


def test_feature_visualization_is_smoother_with_more_total_variation():
    like = jax.ShapeDtypeStruct((1, 12, 12, 1), jnp.float32)
    params, state = started(SMOOTH, like)
    rough, smooth = (
        explain.feature_visualization(
            SMOOTH, params, state, like, "head", 0, key=KEY, steps=60, total_variation=weight, jitter=0
        )[0]
        for weight in (0.0, 1.0)
    )
    variation = lambda image: sum(np.abs(np.diff(image, axis=axis)).sum() for axis in (1, 2))
    assert variation(smooth) < 0.5 * variation(rough)


def test_feature_visualization_moves_the_images():
    """What looks at one position gets an image that excites it from wherever it is moved."""
    like = jax.ShapeDtypeStruct((1, 7, 7, 1), jnp.float32)
    kernel = np.zeros((7, 7, 1), np.float32)
    kernel[3, 2] = 1
    params = {"head": {"kernel": kernel.reshape(-1, 1), "bias": np.zeros(1)}}
    model = cnn.serial(flatten=cnn.flatten, head=cnn.dense(1))
    images, _ = explain.feature_visualization(
        model, params, {}, like, "head", 0, key=KEY, total_variation=0, jitter=1, learning_rate=0.01
    )
    expected = np.zeros((7, 7), bool)
    expected[2:5, 1:4] = True
    np.testing.assert_array_equal(images[0, ..., 0] > 0.5, expected)


# Mistakes


def test_confusion_matrix_counts():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 4, (2, 50))
    expected = np.zeros((5, 5), int)
    for label, prediction in zip(labels, predictions, strict=True):
        expected[label, prediction] += 1
    found = explain.confusion_matrix(labels, predictions, 5)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, expected)
    counted = jax.jit(explain.confusion_matrix, static_argnums=2)
    np.testing.assert_array_equal(counted(labels, predictions, 5), expected)
    assert counted(np.array([0, -1, 5]), np.array([0, 1, 1]), 5).sum() == 1  # what is no class counts nowhere


def test_worst_mistakes_come_first():
    logits, labels = 3 * draw(40, 5), np.random.default_rng(0).integers(0, 5, 40)
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = [i for i in range(40) if logits[i].argmax() != labels[i]]
    wrong.sort(key=lambda i: -optax.softmax_cross_entropy_with_integer_labels(logits[i], labels[i]))
    assert len(wrong) > 20
    for n in (7, 100):
        found = explain.worst_mistakes(logits, labels, n)
        rows = np.array(wrong[:n])
        np.testing.assert_array_equal(found.index, rows)
        np.testing.assert_array_equal(found.label, labels[rows])
        np.testing.assert_array_equal(found.predicted, logits[rows].argmax(1))
        np.testing.assert_allclose(found.label_probability, probability[rows, labels[rows]], rtol=1e-5)
        np.testing.assert_allclose(found.predicted_probability, probability[rows].max(1), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_the_worst_mistakes(bad):
    logits, labels = np.array([[0, 9], [9, 0], [bad, 0], [0, -np.inf], [0, bad]], np.float32), [0, 0, 0, 1, 1]
    found = explain.worst_mistakes(logits, labels, 5)
    assert found.index.tolist() == [2, 4, 3, 0]  # a logit of -infinity is the probability 0
    assert np.isnan(found.label_probability).tolist() == [True, True, False, False]


def test_predictions_that_the_dtype_of_the_labels_does_not_hold():
    logits = np.zeros((1, 300), np.float32)
    logits[0, 299] = 1
    assert explain.worst_mistakes(logits, np.array([43], np.uint8), 1).predicted.tolist() == [299]  # 299 - 256 is 43


def test_no_mistakes():
    found = explain.worst_mistakes(np.eye(3, dtype=np.float32), [0, 1, 2], 5)
    assert [len(values) for values in found] == [0] * 5


# Bad input

X = draw(2, 6, 6, 1)
PARAMS, STATE = jax.jit(SMOOTH.init)(KEY, X)
REPEATED = cnn.serial(blocks=cnn.repeat(cnn.serial(conv=cnn.conv(1)), 2), flatten=cnn.flatten)
HEADS = cnn.serial(conv=cnn.conv(4), act=jnp.tanh, flatten=cnn.flatten, head=cnn.dense(3), twice=lambda y: (y, y))
TWINS = {"a": {"kernel": np.zeros((3, 3, 1, 4))}, "b": {"kernel": np.zeros((3, 3, 1, 4))}}
look = functools.partial(explain.saliency, SMOOTH, PARAMS, STATE)
integrate = functools.partial(explain.integrated_gradients, SMOOTH, PARAMS, STATE, X)
smooth = functools.partial(explain.smooth_grad, SMOOTH, PARAMS, STATE, X)
cam = functools.partial(explain.grad_cam, SMOOTH, PARAMS, STATE, X)
visualize = functools.partial(explain.feature_visualization, SMOOTH, PARAMS, STATE, X, key=KEY)


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (lambda: look(X, label=3), ValueError, r"label must be from 0 to 2, got 3"),
        (lambda: look(X, label=[0, -1]), ValueError, r"label must be from 0 to 2, got -1"),
        (lambda: look(X, label=[0, 1, 2]), ValueError, r"label must .*\(2,\).*got shape \(3,\)"),
        (lambda: look(X, label=0.5), TypeError, r"label must be an int .*got float64"),
        (lambda: look((255 * X).astype(np.uint8)), TypeError, r"saliency needs floating-point .*/ 255"),
        (
            lambda: explain.saliency(cnn.serial(conv=cnn.conv(4)), {"conv": PARAMS["conv"]}, {}, X),
            ValueError,
            r"logits \(N, classes\), got shape \(2, 6, 6, 4\)",
        ),
        (lambda: explain.saliency(SMOOTH, PARAMS, STATE, X, method="gradient"), TypeError, r"method"),
        (lambda: smooth(), TypeError, r"key"),
        (lambda: smooth(key=3), TypeError, r"key must be a random key"),
        (lambda: smooth(key=KEY, noise=-0.1), ValueError, r"smooth_grad: noise must be at least 0"),
        (lambda: smooth(key=KEY, samples=0), ValueError, r"smooth_grad: samples must be at least 1"),
        (lambda: integrate(steps=0), ValueError, r"integrated_gradients: steps must be at least 1"),
        (
            lambda: integrate(baseline=np.zeros(6)),
            ValueError,
            r"baseline .*\(6, 6, 1\) or \(2, 6, 6, 1\), got .*\(6,\)",
        ),
        (lambda: cam(0), TypeError, r"grad_cam: layer must be the path of a layer, such as 'conv1', got 0"),
        (lambda: cam("convo"), ValueError, r"any layer of the model; expected one of: conv, act.*mean 'conv'"),
        (
            lambda: cam("head"),
            ValueError,
            r"grad_cam needs a layer with output \(N, \*spatial, C\).*'head' is \(2, 3\)",
        ),
        (
            lambda: explain.grad_cam(REPEATED, *started(REPEATED, X), X, "blocks/conv"),
            ValueError,
            r"'blocks/conv' is \(2, 2, 6, 6, 1\)",
        ),
        (lambda: explain.feature_maps(SMOOTH, PARAMS, STATE, X, "cnov"), ValueError, r"did you mean 'conv'"),
        (lambda: explain.filters(PARAMS, "head"), ValueError, r"no convolution 'head'; expected one of: conv"),
        (lambda: explain.filters({"head": PARAMS["head"]}), ValueError, r"needs the path .*none exist"),
        (lambda: explain.filters(TWINS), ValueError, r"needs the path of a convolution; expected one of: a, b"),
        (
            lambda: explain.feature_visualization(SMOOTH, PARAMS, STATE, X[0, 0], "head", 0, key=KEY),
            ValueError,
            r"needs \(N, \*spatial, C\).*got shape \(6, 1\)",
        ),
        (lambda: visualize(None, 0), TypeError, r"feature_visualization: layer must be the path of .*got None"),
        (lambda: visualize("heap", 0), ValueError, r"did you mean 'head'"),
        (lambda: visualize("head", 3), ValueError, r"channel must be from 0 to 2, got 3"),
        (lambda: visualize("head", 0, steps=0), ValueError, r"steps must be at least 1"),
        (lambda: visualize("head", 0, l2=-1), ValueError, r"l2 must be at least 0"),
        (lambda: visualize("head", 0, bounds=(1, 0)), ValueError, r"bounds must .*got \(1, 0\)"),
        *(
            (lambda b=b: visualize("head", 0, bounds=b), ValueError, rf"feature_visualization: bounds must .*{end}")
            for b, end in (((0, 1, 2), r"got \(0, 1, 2\)"), (5, "got 5"))
        ),
        *(
            (
                lambda name=name, rest=rest: getattr(explain, name)(HEADS, PARAMS, STATE, X, *rest[0], **rest[1]),
                TypeError,
                rf"{name}: the output of the model must be one array, got \('float32 of shape",
            )
            for name, rest in (
                ("saliency", ((), {})),
                ("smooth_grad", ((), {"key": KEY})),
                ("integrated_gradients", ((), {})),
                ("grad_cam", (("conv",), {})),
            )
        ),
        (lambda: explain.confusion_matrix([0, 3], [0, 1], 3), ValueError, r"labels must be from 0 to 2, got 3"),
        (lambda: explain.confusion_matrix([0, 1], [0, 1, 1], 3), ValueError, r"predictions .*\(2,\).*\(3,\)"),
        (
            lambda: explain.confusion_matrix(np.zeros((150, 2), np.float32), np.zeros(150, int), 2),
            ValueError,
            r"labels must be ints of shape \(N,\), got float32 of shape \(150, 2\); .*\(labels, predictions, classes\)",
        ),
        (lambda: explain.confusion_matrix([0, 1], [0.1, 0.9], 3), TypeError, r"predictions must be .*ints"),
        (
            lambda: explain.worst_mistakes(np.zeros((2, 3), np.float32), [0, 3], 1),
            ValueError,
            r"labels .*0 to 2, got 3",
        ),
        (lambda: explain.worst_mistakes(np.zeros(3, np.float32), [0], 1), ValueError, r"needs logits \(N, classes\)"),
        (lambda: explain.worst_mistakes(np.zeros((2, 3), np.float32), [0, 1], 0), ValueError, r"n must be at least 1"),
    ],
)
def test_bad_input(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()


def test_layers_without_one_array_as_output():
    inputs = cnn.parallel(lambda *xs: xs, cnn.identity, cnn.conv(18))
    net = cnn.serial(inputs=inputs, deformed=cnn.deform_conv(5), pool=cnn.global_avg_pool, head=cnn.dense(3))
    x = draw(2, 6, 6, 3)
    params, state = started(net, x)
    assert explain.grad_cam(net, params, state, x, "deformed").shape == (2, 6, 6)
    with pytest.raises(ValueError, match=r"output \(N, \*spatial, C\), but the output of 'inputs'"):
        explain.grad_cam(net, params, state, x, "inputs")
    with pytest.raises(ValueError, match=r"output \(N, ..., C\), but the output of 'inputs'"):
        explain.feature_visualization(net, params, state, x, "inputs", 0, key=KEY, steps=1)
    missing = cnn.serial(cnn.as_layer(lambda x: x), none=cnn.parallel(lambda a, b: a, cnn.identity, lambda x: None))
    assert "none/1" not in explain.feature_maps(missing, {}, {}, x)

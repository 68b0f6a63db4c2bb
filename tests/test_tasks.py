"""`fit` on every kind of task: 1, 2 and 3 spatial dimensions, every loss, labels of any shape, streams, own losses."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn
from jaxcnn import data, metrics, train
from jaxcnn.train.callbacks import metric_to_maximize

RANDOM = np.random.default_rng(0)
N = 10
SPATIAL = {1: (16,), 2: (8, 6), 3: (4, 4, 4)}
PER_POSITION = functools.partial(cnn.conv, size=1)
CASES = {  # loss, layer that gives K outputs, K, labels of shape (N, *spatial), metrics
    "classes": (cnn.cross_entropy, None, 3, lambda s: np.arange(N) % 3, {"f1": metrics.f1()}),
    "several": (cnn.binary_cross_entropy, None, 3, lambda s: RANDOM.random((N, 3)) < 0.5, {"auroc": metrics.auroc()}),
    "numbers": (cnn.mean_squared_error, None, 2, lambda s: RANDOM.normal(size=(N, 2)), {"r2": metrics.r2()}),
    "map": (
        functools.partial(cnn.cross_entropy, ignore_label=255),
        PER_POSITION,
        3,
        lambda s: np.where(RANDOM.random((N, *s)) < 0.2, 255, RANDOM.integers(0, 3, (N, *s))).astype(np.uint8),
        {"iou": metrics.mean_iou(255), "matrix": metrics.confusion_matrix(255)},
    ),
    "focal": (cnn.focal, PER_POSITION, 3, lambda s: RANDOM.integers(0, 3, (N, *s)), {"dice": metrics.dice()}),
    "dice": (cnn.dice, PER_POSITION, 1, lambda s: RANDOM.random((N, *s, 1)) < 0.5, {}),
    "quantity": (
        cnn.mean_squared_error,
        PER_POSITION,
        2,
        lambda s: RANDOM.normal(size=(N, *s, 2)),
        {"mae": metrics.mean_absolute_error()},
    ),
    "distillation": (
        cnn.distillation(cnn.cross_entropy, lambda x: x),
        PER_POSITION,
        2,
        lambda s: RANDOM.integers(0, 2, (N, *s)),
        {"accuracy of positions": metrics.pixel_accuracy()},
    ),
}


def fit(folder, model, train_data, loss, measured=None, **config):
    config = {"epochs": 1, "batch_size": 4, "checkpoint": {"keep": 0}, "evaluate": {"batch_size": 4}} | config
    run = train.Run("tasks", {}, folder=folder / "run")
    return train.fit(model, train_data, eval_data=train_data, loss=loss, metrics=measured, config=config, run=run)


@pytest.mark.sample(12)
@pytest.mark.parametrize("rank", SPATIAL)
@pytest.mark.parametrize("name", CASES)
def test_every_loss_in_1_2_and_3_dimensions(tmp_path, name, rank):
    """The recorded values are those of `evaluate`, with the data given as a pair, as a `Dataset` and as a stream."""
    loss, layer, outputs, labels, measured = CASES[name]
    x, label = RANDOM.normal(size=(N, *SPATIAL[rank], 2)).astype(np.float32), labels(SPATIAL[rank])
    model = layer(outputs) if layer else cnn.serial(cnn.global_avg_pool, cnn.dense(outputs))
    fitted = fit(tmp_path, model, data.Dataset(x, label), loss, measured)
    expected = train.evaluate(
        loss(model), fitted.params, fitted.state, (x, label), batch_size=4, metrics=measured, model=model
    )
    assert expected.keys() == fitted.history[0]["test"].keys() >= {"loss", *measured}
    for metric, value in expected.items():
        np.testing.assert_allclose(fitted.history[0]["test"][metric], value, rtol=1e-5, atol=1e-6)

    def batches(step):
        for i in itertools.count(step):
            rows = np.arange(5) + 5 * (i % 2)
            yield x[rows], label[rows]

    spec = lambda value: jax.ShapeDtypeStruct((5, *value.shape[1:]), value.dtype)
    stream = data.Stream(batches, 2, spec(x), others={"label": spec(label)})
    streamed = train.evaluate(loss(model), fitted.params, fitted.state, stream, metrics=measured, model=model)
    for metric in measured:
        np.testing.assert_allclose(streamed[metric], expected[metric], rtol=1e-4, atol=1e-6)


def reconstruction(model):
    """The squared error of the reconstructed image where "seen" is 1. There is no label."""

    def loss_fn(params, state, batch, *, train, key=None):
        output, state = model.apply(params, state, batch["image"], train=train, key=key)
        losses = (jnp.square(output - batch["image"]) * batch["seen"]).mean((1, 2, 3))
        loss = jnp.average(losses, weights=batch.get("weight"))
        return loss, (state, {"loss": loss})

    return loss_fn


IMAGES = RANDOM.normal(size=(N, 6, 6, 1)).astype(np.float32)
SEEN = (RANDOM.random((N, 6, 6, 1)) < 0.5).astype(np.float32)


def test_data_without_labels(tmp_path):
    """In memory and as a stream, with the report."""
    spec = jax.ShapeDtypeStruct((5, 6, 6, 1), np.float32)
    halves = lambda step: ({"image": IMAGES[i : i + 5], "seen": SEEN[i : i + 5]} for i in itertools.cycle((0, 5)))
    for i, train_data in enumerate(
        ({"image": IMAGES, "seen": SEEN}, data.Stream(halves, 2, spec, others={"seen": spec}))
    ):
        fitted = fit(tmp_path / str(i), cnn.conv(1), train_data, reconstruction, report=True)
        assert fitted.history[0]["test"]["loss"] > 0
        assert (fitted.folder / "report.html").exists()
    message = r"the batch has no 'label'; expected one of: image, seen"
    with pytest.raises(ValueError, match=message):
        fit(tmp_path / "3", cnn.conv(1), {"image": IMAGES, "seen": SEEN}, cnn.mean_squared_error)


def test_a_metric_of_the_loss_named_steps(tmp_path):
    def loss(model):
        def loss_fn(params, state, batch, *, train, key=None):
            output, state = model.apply(params, state, batch["image"], train=train, key=key)
            loss = jnp.average(output.mean((1, 2, 3)), weights=batch.get("weight"))
            return loss, (state, {"steps": jnp.float32(3)})

        return loss_fn

    fitted = fit(tmp_path, cnn.conv(1), (IMAGES, SEEN), loss, {}, epochs=2)
    assert [record[split]["steps"] for record in fitted.history for split in ("train", "test")] == [3, 3, 3, 3]


def test_a_matrix_is_logged_but_not_printed_and_not_watched(tmp_path, capsys):
    label = RANDOM.integers(0, 2, (N, 6, 6))
    measured = {"matrix": metrics.confusion_matrix()}
    fitted = fit(tmp_path, cnn.conv(2), (IMAGES, label), cnn.cross_entropy, measured, report=True)
    assert np.sum(fitted.history[0]["test"]["matrix"]) == label.size
    assert "matrix" not in capsys.readouterr().out
    assert "test matrix, after epoch 1" in (fitted.folder / "report.html").read_text()
    with pytest.raises(train.ConfigError, match=r"watch: 'matrix' is an array of shape \(2, 2\); watch a scalar"):
        fit(tmp_path / "2", cnn.conv(2), (IMAGES, label), cnn.cross_entropy, measured, watch="matrix")
    assert metric_to_maximize("", fitted.history[0]["test"]) == fitted.history[0]["test"]["accuracy"]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"image": IMAGES[:4]}, "train_data has no 'label'; expected one of: image"),
        (
            {"image": IMAGES[:3], "label": SEEN[:3]},
            r"declares 'image' as float32 of shape \(4, 6, 6, 1\), but gives float32 of shape \(3, 6, 6, 1\)",
        ),
        (
            {"image": IMAGES[:4], "label": SEEN[:4, :5]},
            r"declares 'label' as float32 of shape \(4, 6, 6, 1\), but gives float32 of shape \(4, 5, 6, 1\)",
        ),
        (
            {"image": IMAGES[:4].astype(np.uint8), "label": SEEN[:4]},
            r"declares 'image' as float32 of shape \(4, 6, 6, 1\), but gives uint8",
        ),
    ],
)
def test_a_stream_that_differs_from_its_declaration(tmp_path, batch, message):
    spec = jax.ShapeDtypeStruct((4, 6, 6, 1), np.float32)
    stream = data.Stream(lambda step: itertools.repeat(batch), 2, spec, others={"label": spec})
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, cnn.conv(1), stream, cnn.mean_squared_error)


def test_a_data_set_needs_no_class_names():
    assert data.Dataset(IMAGES, SEEN).classes == ()
    assert repr(data.Dataset(IMAGES, SEEN)).endswith("classes=<0 classes: ()>)")
    statistics = data.normalize(data.Dataset(IMAGES, SEEN))
    y = statistics.apply({}, {}, IMAGES, train=False)[0]
    np.testing.assert_allclose([y.mean(), y.std()], [0, 1], atol=1e-5)


def test_tta_of_maps():
    """The mean over both flips of an equivariant model is the model; of any model, an equivariant one."""
    x, model = jnp.asarray(IMAGES), cnn.conv(2)
    params, state = model.init(jax.random.key(0), x)
    symmetric = {"kernel": params["kernel"] + params["kernel"][:, ::-1], "bias": params["bias"]}
    flipped = train.with_tta(model, "flip")
    predict = lambda layer, params, x: layer.apply(params, state, x, train=False)[0]
    np.testing.assert_allclose(predict(flipped, symmetric, x), predict(model, symmetric, x), rtol=1e-4, atol=1e-5)
    mirrored = predict(flipped, params, x[:, :, ::-1])[:, :, ::-1]
    np.testing.assert_allclose(mirrored, predict(flipped, params, x), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="tta 'flip_and_shift' needs an output per image, but the model gives"):
        predict(train.with_tta(model, "flip_and_shift"), params, x)
    with pytest.raises(ValueError, match=r"tta 'flip' needs images \(N, H, W, C\), got float32 of shape \(2, 8, 3\)"):
        train.with_tta(cnn.flatten, "flip").apply({}, {}, jnp.ones((2, 8, 3)), train=False)


def test_a_loss_that_is_not_a_function_of_the_model(tmp_path):
    with pytest.raises(TypeError, match=r"pass cross_entropy, not cross_entropy\(model\)"):
        fit(tmp_path, cnn.conv(2), (IMAGES, SEEN), cnn.cross_entropy(cnn.conv(2)), {})


def test_a_loss_that_returns_only_a_number(tmp_path):
    loss = lambda model: lambda params, state, batch, *, train, key=None: jnp.zeros(())
    with pytest.raises(TypeError, match=r"a LossFn must return \(loss, \(state, metrics\)\), got float32"):
        fit(tmp_path, cnn.conv(2), (IMAGES, SEEN), loss, {})


@pytest.mark.parametrize("measured", [{}, {"mae": metrics.mean_absolute_error()}])
def test_evaluate_divides_uint8_images_by_255_as_fit_does(measured):
    image, label = RANDOM.integers(0, 256, (N, 2, 2, 1)).astype(np.uint8), SEEN[:, :2, :2]
    error = image / 255 - label
    stream = data.Stream(
        lambda step: itertools.repeat((image, label)),
        1,
        jax.ShapeDtypeStruct(image.shape, np.uint8),
        others={"label": jax.ShapeDtypeStruct(label.shape, label.dtype)},
    )
    for of in (data.Dataset(image, label), (image, label), {"image": image, "label": label}, stream):
        loss_fn = cnn.mean_squared_error(cnn.identity)
        result = train.evaluate(loss_fn, {}, {}, of, batch_size=4, metrics=measured, model=cnn.identity)
        assert result["loss"] == pytest.approx(np.square(error).mean(), 1e-5)
        assert result.get("mae", abs(error).mean()) == pytest.approx(abs(error).mean(), 1e-5)


LABELED = {
    "ignore_label": (lambda model: cnn.cross_entropy(model, ignore_label=255), 255),
    "class_weight": (lambda model: cnn.cross_entropy(model, class_weight=[1.0, 0.0, 5.0]), 1),
    "focal": (lambda model: cnn.focal(model, ignore_label=1), 1),
    "regularized": (lambda model: cnn.regularized(cnn.cross_entropy(model, ignore_label=1), lambda params: 2.0), 1),
    "weighted_sum": (
        cnn.weighted_sum(
            (1.0, functools.partial(cnn.cross_entropy, ignore_label=1)),
            (2.0, functools.partial(cnn.focal, ignore_label=1)),
        ),
        1,
    ),
    "per_member": (cnn.per_member(functools.partial(cnn.cross_entropy, ignore_label=1)), 1),
    "distillation": (cnn.distillation(functools.partial(cnn.cross_entropy, ignore_label=1), lambda x: x), 1),
}


@pytest.mark.parametrize("maps", [False, True], ids=["classes", "maps"])
@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("name", LABELED)
def test_metrics_of_a_loss_do_not_depend_on_the_batch_size(name, weighted, maps):
    """Neither do batches count whose labels are all ignored."""
    make, ignored = LABELED[name]
    rng = np.random.default_rng(0)
    shape = (12, 4) if maps else (12,)
    label = rng.integers(0, 3, shape)
    label[5:] = np.where(rng.random(label[5:].shape) < 0.9, ignored, label[5:])
    label[8:] = ignored
    data = {"image": rng.normal(size=(*shape, 3)).astype(np.float32), "label": label}
    if weighted:
        data["weight"] = rng.uniform(0.1, 2, 12).astype(np.float32)
    loss_fn = make(cnn.as_layer(cnn.identity))
    loss, (_, expected) = loss_fn({}, {}, data, train=False)
    for batch_size in (1, 2, 5, 12, 20):
        result = train.evaluate(loss_fn, {}, {}, data, batch_size=batch_size)
        assert result == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-5)
        mean = cnn.curvature.mean_loss(loss_fn, {}, data, batch_size)({})
        np.testing.assert_allclose(mean, loss, rtol=1e-5)


def test_losses_of_labels_that_are_all_ignored_have_no_value():
    loss_fn = cnn.cross_entropy(cnn.as_layer(cnn.identity), ignore_label=0)
    result = train.evaluate(loss_fn, {}, {}, (np.eye(2, dtype=np.float32), np.zeros(2, int)))
    assert np.isnan([result["loss"], result["accuracy"]]).all()


def test_independent_labels_and_class_probabilities_count_in_every_batch_size():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(6, 2)).astype(np.float32)
    several = {"image": image, "label": np.array([[0, 1], [1, 1], [1, 9], [9, 9], [9, 9], [9, 0]])}
    first = rng.random(6)
    fractions = {"image": image, "label": np.stack([first, 1 - first], 1).astype(np.float32)}
    fractions["label"][2:] = [0, 1]
    identity = cnn.as_layer(cnn.identity)
    for examples, loss_fn in (
        (several, cnn.binary_cross_entropy(identity, ignore_label=9)),
        (fractions, cnn.cross_entropy(identity, class_weight=[3.0, 0.1])),
    ):
        _, (_, expected) = loss_fn({}, {}, examples, train=False)
        for batch_size in (1, 2, 4, 6):
            result = train.evaluate(loss_fn, {}, {}, examples, batch_size=batch_size)
            assert result == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-5)


def test_fit_and_sweep_average_over_the_labels_that_count():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 4)).astype(np.float32), rng.integers(0, 3, 12)
    ignored = np.where(np.arange(12) < 5, y, 7)
    options = {
        "loss": functools.partial(cnn.cross_entropy, ignore_label=7),
        "eval_data": (x, ignored),
        "config": {"epochs": 1, "batch_size": 4, "evaluate": {"batch_size": 4}},
    }
    fitted, swept = train.fit(cnn.dense(3), (x, y), **options), train.fit(cnn.dense(3), (x, y), **options, seeds=2)
    runs = [(fitted.params, fitted.history), *((run.params, run.history) for run in swept.runs)]
    for params, history in runs:
        loss, (_, metrics) = options["loss"](cnn.dense(3))(params, {}, {"image": x, "label": ignored}, train=False)
        expected = {"loss": float(loss), "accuracy": float(metrics["accuracy"])}
        assert history[-1]["test"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("of", ["fit", "sweep", "evaluate", "stream"])
@pytest.mark.parametrize(
    "metric", [metrics.mean_iou(), metrics.top_k(1), metrics.confusion_matrix(), metrics.auroc(), metrics.f1()]
)
def test_labels_that_a_metric_cannot_count(metric, of):
    """The loss ignores them, but the metric does not know."""
    x, y = np.zeros((8, 4, 3), np.float32), np.zeros((8, 4), np.int32)
    bad = y.copy()
    bad[5, 1] = 9
    loss = functools.partial(cnn.cross_entropy, ignore_label=9)
    eval_data = batch = {"image": x, "label": bad}
    if of == "stream":
        spec = jax.ShapeDtypeStruct(x.shape, np.float32)
        eval_data = data.Stream(lambda step: itertools.repeat(batch), 1, spec, ("a", "b", "c"), others={"label": y})
    config = {"epochs": 1, "batch_size": 8}
    options = {"eval_data": eval_data, "loss": loss, "metrics": {"iou": metric}, "config": config}
    calls = {
        "fit": lambda: train.fit(cnn.dense(3), (x, y), **options),
        "stream": lambda: train.fit(cnn.dense(3), (x, y), **options),
        "sweep": lambda: train.fit(cnn.dense(3), (x, y), seeds=2, **options),
        "evaluate": lambda: train.evaluate(
            loss(cnn.identity), {}, {}, eval_data, metrics={"iou": metric}, model=cnn.identity
        ),
    }
    with pytest.raises(ValueError, match=r"(eval_data|evaluate): iou: label\[5, 1\] is 9, .* need classes from 0 to 2"):
        calls[of]()


def test_labels_of_weight_0_need_not_be_valid_for_a_metric():
    x, y = np.zeros((3, 2), np.float32), np.array([0, 7, 1])
    examples = {"image": x, "label": y, "weight": np.array([1.0, 0.0, 1.0])}
    loss_fn, measured = cnn.cross_entropy(cnn.as_layer(cnn.identity)), {"top": metrics.top_k(1)}
    assert train.evaluate(loss_fn, {}, {}, examples, metrics=measured, model=cnn.identity)["top"] == 0.5
    multi = {"image": x, "label": np.array([[0, 1], [0.5, 1], [0, 2]])}
    with pytest.raises(ValueError, match=r"f1: label\[2, 1\] is 2.0, .* need labels from 0 to 1"):
        train.evaluate(
            cnn.mean_squared_error(cnn.as_layer(cnn.identity)),
            {},
            {},
            multi,
            metrics={"f1": metrics.f1()},
            model=cnn.identity,
        )

"""The learning rate range test on problems whose largest stable learning rate is known."""

import jax
import numpy as np
import optax
import pytest

import jaxcnn as cnn
from jaxcnn.explain import plot_learning_rates
from jaxcnn.train import ConfigError, TrainState, find_learning_rate, make_step
from jaxcnn.train._find_learning_rate import _smoothed, _steepest

SGD = {"optimizer": {"name": "sgd"}, "batch_size": 64}


def quadratic(scale):
    """Inputs and targets of a regression whose loss, mean (w x - y)^2, has the curvature 2 scale^2 in w."""
    x = np.full((64, 1), scale, np.float32)
    return {"image": x, "label": 3 * x}


def test_settings_about_evaluation_have_no_effect():
    one = find_learning_rate(cnn.dense(1), quadratic(1.0), loss=cnn.mean_squared_error, config=SGD, steps=10)
    config = SGD | {"watch": "-loss", "patience": 3, "restore_best": True, "evaluate": {"tta": "flip"}}
    two = find_learning_rate(cnn.dense(1), quadratic(1.0), loss=cnn.mean_squared_error, config=config, steps=10)
    np.testing.assert_array_equal(one.losses, two.losses)


def test_updates_of_several_steps():
    """With `accumulate`, each update has one rate, and its loss is the mean of its steps."""
    examples = {"image": np.full((64, 1), 1.0, np.float32), "label": np.full((64, 1), 3.0, np.float32)}
    options = {"loss": cnn.mean_squared_error, "low": 1e-4, "high": 1e-1, "steps": 20}
    one = find_learning_rate(cnn.dense(1), examples, config=SGD, **options)
    four = find_learning_rate(cnn.dense(1), examples, config=SGD | {"batch_size": 16, "accumulate": 4}, **options)
    np.testing.assert_allclose(one.losses, four.losses, rtol=1e-5)


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_suggestion_is_below_the_largest_stable_rate(scale):
    """Gradient descent on a quadratic with curvature h diverges for rates above 2 / h."""
    model, limit = cnn.dense(1, bias=False), 1 / scale**2
    options = {"loss": cnn.mean_squared_error, "config": SGD, "low": 1e-4, "high": 1e3, "steps": 120}
    found = find_learning_rate(model, quadratic(scale), **options)
    assert limit / 300 < found.suggestion < limit
    assert found.rates[len(found.smoothed)] > limit
    np.testing.assert_allclose(found.rates[[0, -1]], [1e-4, 1e3], rtol=1e-5)
    assert found.losses.shape == (120,)


def test_losses_are_those_of_training_by_hand():
    data, model = quadratic(1.0), cnn.dense(1, bias=False)
    found = find_learning_rate(
        model, data, loss=cnn.mean_squared_error, config=SGD | {"seed": 5}, low=0.01, high=0.1, steps=10
    )
    w = 3 - np.sqrt(found.losses[0])  # the initial weight is below 3
    for rate, loss in zip(found.rates, found.losses, strict=True):
        assert loss == pytest.approx((w - 3) ** 2, rel=1e-4)
        w -= rate * 2 * (w - 3)


def test_batches_are_those_of_fit_over_several_epochs():
    rng = np.random.default_rng(0)
    data = {"image": rng.normal(size=(12, 2)).astype(np.float32), "label": rng.normal(size=(12, 1)).astype(np.float32)}
    model, loss_fn = cnn.dense(1), cnn.mean_squared_error(cnn.dense(1))
    options = {"config": SGD | {"batch_size": 4}, "low": 1e-3, "high": 0.1, "steps": 10}
    found = find_learning_rate(model, data, loss=cnn.mean_squared_error, **options)
    train_state = TrainState.create(model, optax.sgd(0.1), jax.random.key(0), data["image"][:4])
    key = jax.random.wrap_key_data(np.array(jax.random.key_data(train_state.key)))  # a step donates that of the state
    batches = cnn.data.source(data, 4).batches(key=key)
    for rate, loss, batch in zip(found.rates, found.losses, batches, strict=False):
        train_state, metrics = make_step(loss_fn, optax.sgd(float(rate)))(train_state, batch)
        assert loss == pytest.approx(float(metrics["loss"]), rel=1e-5)


def test_nonfinite_images_are_refused_whatever_the_setting():
    data = {"image": np.full((12, 2), np.nan, np.float32), "label": np.zeros((12, 1), np.float32)}
    with pytest.raises(ValueError, match="image"):
        find_learning_rate(
            cnn.dense(1), data, loss=cnn.mean_squared_error, config={"batch_size": 4, "on_nonfinite": "skip"}, steps=10
        )


def test_smoothing_ends_at_divergence():
    np.testing.assert_allclose(_smoothed(np.array([2.0, 2.0, 2.0])), 2)
    assert len(_smoothed(np.array([2.0, 1.0, np.nan, 1.0]))) == 2
    assert len(_smoothed(np.array([1.0, 1.0, 1e6, 1.0]))) == 2
    later = (0.09 * 1 + 0.1 * 2) / 0.19  # forward; backward, the losses change places
    np.testing.assert_allclose(_smoothed(np.array([1.0, 2.0])), [(1 + 3 - later) / 2, (later + 2) / 2])


def test_smoothing_does_not_shift_the_curve():
    step = np.where(np.arange(60) < 30, 3.0, 1.0)
    smoothed = _smoothed(step)
    np.testing.assert_allclose(smoothed + smoothed[::-1], 4)
    assert np.gradient(smoothed).argmin() in (29, 30)


def test_losses_that_do_not_fall():
    with pytest.raises(ValueError, match="the loss does not fall; try a smaller low"):
        _steepest(np.geomspace(1e-3, 1, 10), np.arange(10.0))


def test_steepest():
    rates = np.geomspace(1e-3, 1, 7)
    assert _steepest(rates, np.array([5.0, 4.9, 4.0, 2.0, 1.0, 1.5, 0.9 + 3])) == rates[3]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"low": 0.0}, ValueError, "low must be above 0"),
        ({"low": 1.0, "high": 0.5}, ValueError, "high must be above low, got 1.0 and 0.5"),
        ({"steps": 5}, ValueError, "steps must be at least 10"),
        ({"low": 1e-50}, ValueError, "low and high must be float32 numbers, got 1e-50 and 1.0"),
        ({"config": {"epoch": 3}}, ConfigError, "unknown key 'epoch'"),
    ],
    ids=str,
)
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        find_learning_rate(cnn.dense(1), quadratic(1.0), loss=cnn.mean_squared_error, **options)


def test_figure():
    pytest.importorskip("matplotlib")
    found = find_learning_rate(
        cnn.dense(1), quadratic(1.0), loss=cnn.mean_squared_error, config=SGD, low=1e-3, high=10.0, steps=30
    )
    (axes,) = plot_learning_rates(found).axes
    assert axes.get_xscale() == "log"
    assert axes.get_lines()[2].get_xdata()[0] == found.suggestion
    assert "suggestion" in repr(found)


def test_losses_below_zero():
    """A loss that falls without a lower bound has not diverged."""
    falling = -1 - np.linspace(0, 5, 50)
    assert len(_smoothed(falling)) == 50
    assert len(_smoothed(np.r_[falling, 40.0, 90.0, 500.0])) < 53
    crossing = np.linspace(1, -3, 50)
    assert len(_smoothed(crossing)) == 50

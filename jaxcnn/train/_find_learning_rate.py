"""The learning rate range test: a short training with a growing learning rate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._arguments import check_integer, check_number, check_positive
from jaxcnn._combine import AnyLayer
from jaxcnn._cross_entropy import cross_entropy
from jaxcnn._jit import jit
from jaxcnn._layer import as_layer
from jaxcnn.data import Dataset, augment
from jaxcnn.train._batch import scale_bytes
from jaxcnn.train._config import Config
from jaxcnn.train._devices import to_devices
from jaxcnn.train._inputs import checked_sources, sources
from jaxcnn.train._many_steps import augmented, rows_of_step
from jaxcnn.train._recipe import FIT, Loss, augmentation_of, resolve, training_loss
from jaxcnn.train._sweep_programs import programs
from jaxcnn.train._sweep_space import Space

_SMOOTHING = 0.9  # weight of the earlier losses in the moving average
_DIVERGED = 4  # times the smallest loss


class LearningRates(NamedTuple):
    """The result of `find_learning_rate`.

    rates: the learning rate of each step.
    losses: the training loss of each step, before its update; NaN or infinite after divergence.
    smoothed: their exponential moving average, up to the step at which training diverged.
    suggestion: the learning rate at which the smoothed loss falls fastest.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float

    def __repr__(self) -> str:
        low, high = self.rates[0], self.rates[len(self.smoothed) - 1]
        return f"LearningRates(suggestion={self.suggestion:.2g}, tested from {low:.2g} to {high:.2g})"


def find_learning_rate(
    model: AnyLayer,
    train_data: Dataset | dict[str, Any] | tuple[Any, Any],
    *,
    loss: Loss = cross_entropy,
    config: Config | None = None,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
) -> LearningRates:
    """Train for a few steps with a growing learning rate, and suggest a rate for `fit`.

    rate[i] = low * (high / low)^(i / (steps - 1))

    The loss is constant at first, then falls, then diverges. The suggestion is the rate at which it falls fastest. At
    larger rates, the steps become too large. `explain.plot_learning_rates` shows the curve. The trained parameters are
    discarded.

    Args:
        model, train_data, loss: as for `fit`, with data in memory.
        config: as for `fit`. The schedule, the learning rate, and the settings about evaluation data have no effect.
        low, high: the first and the last learning rate.
        steps: number of updates, at least 10; each takes `accumulate` steps of the config.

    Raises:
        TypeError: for data that are not in memory, or an argument of another type.
        ValueError: for invalid arguments, or if the loss is not finite at the first steps or does not fall.

    Example:
        >>> digits = jaxcnn.data.load("mnist_small", "test")
        >>> model = jaxcnn.serial(jaxcnn.max_pool(4), jaxcnn.flatten, jaxcnn.dense(10))
        >>> found = jaxcnn.train.find_learning_rate(model, digits, steps=50)
        >>> 0.001 < found.suggestion < 0.5
        True

    Source: Smith, "Cyclical learning rates for training neural networks", 2017.
    """
    low = check_positive("find_learning_rate", "low", low)
    high = check_number("find_learning_rate", "high", high)
    if not low < high:
        raise ValueError(f"find_learning_rate: high must be above low, got {low} and {high}")
    limits = np.finfo(np.float32)
    if low < float(limits.tiny) or high > float(limits.max):
        raise ValueError(f"find_learning_rate: low and high must be float32 numbers, got {low} and {high}")
    steps = check_integer("find_learning_rate", "steps", steps, 10)
    constant = {"schedule": {"name": "constant", "warmup": 0.0, "end": 0.0}}
    reset = {name: FIT[name] for name in ("watch", "patience", "restore_best", "evaluate", "on_nonfinite")}
    config = resolve(config or {}) | constant | reset
    name = "optimizer.learning_rate"
    space = Space(as_layer(model), config, {name: [low, high]})
    source, _ = sources(train_data, None, config)
    if source.arrays is None:
        raise TypeError("find_learning_rate needs training data in memory")
    params, state = space.check_models(jax.eval_shape(scale_bytes, source.spec)["image"])
    loss_fn = training_loss(loss, *space.model_and_config({name: low}))
    source, _ = checked_sources(source, None, loss_fn, as_layer(model), {}, params, state, config, print)
    of_run = programs(space, source, params, state, loss, {})
    rates = np.geomspace(low, high, steps).astype(np.float32)
    augment_batch = augmentation_of(config)

    @jit
    def losses(arrays):
        train_state = of_run.create({name: rates[0]}).train_state
        epochs = jnp.arange(-(-steps * config["accumulate"] // source.steps))
        orders = jax.vmap(source.order, (None, 0))(train_state.key, epochs)

        def step(train_state, rate):
            epoch = train_state.step // source.steps
            batch, rows = rows_of_step(source, arrays, orders[epoch], train_state.step)
            batch = augmented(augment_batch, train_state, batch, augment.When(rows, epoch))
            train_state, metrics = of_run.step({name: rate}, train_state, batch)
            return train_state, metrics["loss"]

        # One rate for all steps of an update.
        found = lax.scan(step, train_state, jnp.repeat(jnp.asarray(rates), config["accumulate"]))[1]
        return found.reshape(steps, -1).mean(-1)

    found = np.asarray(losses(to_devices(source).arrays))
    smoothed = _smoothed(found)
    if len(smoothed) < 3:
        raise ValueError(f"find_learning_rate: the loss is {found[0]:.4g}, {found[1]:.4g}, ..; try a smaller low")
    return LearningRates(rates, found, smoothed, _steepest(rates, smoothed))


def _smoothed(losses: np.ndarray) -> np.ndarray:
    """The losses up to divergence, smoothed forward and backward. One direction alone would shift the curve."""
    forward = _moving_average(losses)
    smallest = np.minimum.accumulate(forward)
    diverged = ~(forward - smallest <= (_DIVERGED - 1) * np.abs(smallest))  # true for NaN
    kept = losses[: diverged.argmax() if diverged.any() else len(losses)]
    return (_moving_average(kept) + _moving_average(kept[::-1])[::-1]) / 2


def _moving_average(losses: np.ndarray) -> np.ndarray:
    """The exponential moving average, corrected for its start at zero."""
    total, values = 0.0, []
    for i, loss in enumerate(losses.tolist(), 1):
        total = _SMOOTHING * total + (1 - _SMOOTHING) * loss
        values.append(total / (1 - _SMOOTHING**i))
    return np.array(values)


def _steepest(rates: np.ndarray, smoothed: np.ndarray) -> float:
    """The rate before the smallest smoothed loss where its derivative by the logarithm of the rate is smallest.

    The derivative is a difference over a fifth of these rates. That of neighbors would be noise for small batches.
    """
    end = int(smoothed.argmin()) + 1
    if end < 3:
        raise ValueError("find_learning_rate: the loss does not fall; try a smaller low, or a larger batch_size")
    half = max(1, end // 10)
    return float(rates[half + (smoothed[2 * half : end] - smoothed[: end - 2 * half]).argmin()])

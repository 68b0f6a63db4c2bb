"""The compiled programs of a sweep. Each computes the same function for all runs of a chunk, with `vmap`."""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._jit import jit
from jaxcnn._layer import Params, State
from jaxcnn._program import Program, equations
from jaxcnn._transform import cast
from jaxcnn.data import Source, augment
from jaxcnn.metrics import Metric, add_sums
from jaxcnn.train._batch import scale_bytes
from jaxcnn.train._ema import params_to_evaluate
from jaxcnn.train._evaluate import Measured, measurement, totals
from jaxcnn.train._event import Carry
from jaxcnn.train._many_steps import carry_update, first_carry, rows_of_step
from jaxcnn.train._optimizer import checked_accumulated, make_optimizer
from jaxcnn.train._recipe import Loss, augmentation_of, loss_of, training_loss, with_loss_as_metric
from jaxcnn.train._step import TrainState, make_step
from jaxcnn.train._sweep_space import Space, Values
from jaxcnn.train._tta import with_tta

_MEMORY = 0.4  # the fraction of the free memory that the runs of a chunk may use
# On a CPU, fewer runs at a time keep more in the cache.
_CPU_RUNS, _CPU_BYTES = 16, 4e8
_DEFAULT_MEMORY = 4e9  # bytes, if the system does not tell


class Programs(NamedTuple):
    """Functions of one run. `mapped` makes them functions of all runs of a chunk.

    create: values -> carry before the first step.
    train_epoch: (values, carry, arrays, epoch) -> carry after the epoch; metric_sums are those of the epoch.
    measure: (values, params and state, batch) -> `Measured`.
    step: (values, train_state, batch) -> (train_state, metrics), the training step.
    """

    create: Callable[[Values], Carry]
    train_epoch: Callable[[Values, Carry, Any, Any], Carry]
    measure: Callable[[Values, tuple[Params, State], Any], Measured]
    step: Callable[[Values, TrainState, Any], Any]


def programs(
    space: Space, source: Source, params: Params, state: State, loss: Loss, metrics: Mapping[str, Metric]
) -> Programs:
    """The programs for training data in memory; `params` and `state` are shapes."""
    spec = jax.eval_shape(scale_bytes, source.spec)
    trainable = space.trainable(params, state, spec["image"])
    steps, every = space.config["epochs"] * source.steps, space.config["accumulate"]

    def parts(values):
        model, config = space.model_and_config(values)
        model = cast(model, jnp.bfloat16) if config["dtype"] == "bfloat16" else model
        return model, config, make_optimizer(config, steps, params, trainable)

    def step(values, train_state, batch):
        model, config, optimizer = parts(values)
        return make_step(training_loss(loss, model, config), optimizer)(train_state, batch)

    def create(values):
        model, config, optimizer = parts(values)
        train_state = TrainState.create(model, optimizer, jax.random.key(config["seed"]), spec["image"])
        return first_carry(functools.partial(step, values), train_state, source)

    def train_epoch(values, carry, arrays, epoch):
        _, config, optimizer = parts(values)
        update = carry_update(functools.partial(step, values), augmentation_of(config), 0)
        order = source.order(carry.train_state.key, epoch)

        def body(carry, _):
            batch, rows = rows_of_step(source, arrays, order, carry.train_state.step)
            after = update(carry, batch, augment.When(rows, epoch))
            # A run with a non-finite value has ended, even if the step is finite on the rows of the next epoch.
            return jax.tree.map(functools.partial(jnp.where, carry.nonfinite_leaf < 0), after, carry), None

        carry = carry._replace(metric_sums=jax.tree.map(jnp.zeros_like, carry.metric_sums))
        carry, _ = lax.scan(body, carry, length=source.steps)
        if every > 1:
            train_state, _, nonfinite_leaf = checked_accumulated(optimizer, every, carry.train_state)
            ended = carry.nonfinite_leaf >= 0
            carry = carry._replace(
                train_state=jax.tree.map(functools.partial(jnp.where, ended), carry.train_state, train_state),
                nonfinite_leaf=jnp.where(ended, carry.nonfinite_leaf, nonfinite_leaf),
            )
        return carry

    def measure(values, network, batch):
        model, config, _ = parts(values)
        model = with_tta(model, config["evaluate"]["tta"])
        loss_fn = with_loss_as_metric(loss_of(loss, model))
        params, state = network
        return measurement(loss_fn, model, metrics, scale_bytes, on_all_devices=False)(params, state, batch)

    return Programs(create, train_epoch, measure, step)


def mapped(function: Callable[..., Any], *axes: int | None, **options: Any) -> Callable[..., Any]:
    """The compiled function of all runs of a chunk, which are split over the devices."""
    of_runs, sharding = jax.vmap(function, axes), runs_sharding()
    if jax.device_count() > 1:
        specs = tuple(jax.P() if axis is None else sharding.spec for axis in axes)
        of_runs = jax.shard_map(of_runs, mesh=sharding.mesh, in_specs=specs, out_specs=sharding.spec, check_vma=False)
    # The sharding is fixed, also on one device, so that no function compiles again for the results of another one.
    return jit(of_runs, out_shardings=sharding, **options)


def runs_sharding() -> jax.NamedSharding:
    """The sharding of arrays whose first dimension is the runs of a chunk."""
    mesh = jax.make_mesh((jax.device_count(),), ("runs",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.NamedSharding(mesh, jax.P("runs"))


def network_of(carry: Carry) -> tuple[Params, State]:
    """The parameters to evaluate, and the state."""
    return params_to_evaluate(carry.train_state), carry.train_state.state


def evaluate_runs(
    measure: Callable[..., Any], metrics: Mapping[str, Metric], values: Values, network: Any, source: Source
) -> list[dict[str, Any]]:
    """The metrics of each run over all evaluation batches."""
    add = lambda left, right: {name: jax.vmap(add_sums)(left[name], right[name]) for name in metrics}
    results, sums = totals(lambda batch: measure(values, network, batch), source, add)
    results |= {name: np.asarray(jax.vmap(metric.compute)(sums[name])) for name, metric in metrics.items()}
    count = len(next(iter(values.values())))
    return [{name: value[i].tolist() for name, value in results.items()} for i in range(count)]


def chunk_size(runs: int, limit: int) -> int:
    """The number of runs per chunk: at most `limit`, about equal for all chunks, and a multiple of the devices."""
    devices = jax.device_count()
    size = -(-runs // -(-runs // max(1, limit)))
    return -(-size // devices) * devices


def runs_at_once(program: Program) -> int:
    """The number of runs that fit into the free memory, if the program of a step keeps all its intermediate values.

    On a CPU at most 16, and one per device if a step has more than 400 MB of intermediate values.
    """
    needed = sum(_size(var.aval) for equation in equations(program) for var in equation.outvars)
    count = max(1, int(_MEMORY * jax.device_count() * _free_memory() / needed))
    if jax.default_backend() != "cpu":
        return count
    return min(count, jax.device_count() if needed > _CPU_BYTES else _CPU_RUNS)


def _size(aval: Any) -> int:
    return aval.size * aval.dtype.itemsize


def _free_memory() -> float:
    """Free bytes of a device."""
    statistics = jax.devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics["bytes_in_use"]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / jax.device_count()
    except (ValueError, OSError, AttributeError):  # not on all systems
        return _DEFAULT_MEMORY

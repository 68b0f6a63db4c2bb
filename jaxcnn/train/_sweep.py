"""Many training runs with different settings as one compiled program."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._combine import AnyLayer
from jaxcnn._cross_entropy import cross_entropy
from jaxcnn._initial import FAST_COMPILE
from jaxcnn.data import Dataset, Source
from jaxcnn.metrics import Metric
from jaxcnn.train import checkpoint
from jaxcnn.train._config import Config
from jaxcnn.train._devices import to_devices
from jaxcnn.train._event import format_metrics
from jaxcnn.train._identity import program_identity, reject_different_run
from jaxcnn.train._inputs import checked_sources, sources
from jaxcnn.train._many_steps import means
from jaxcnn.train._recipe import FIT, Loss, resolve, scale_bytes, training_loss
from jaxcnn.train._run import Run, to_json
from jaxcnn.train._sweep_programs import (
    Programs,
    chunk_size,
    evaluate_runs,
    mapped,
    network_of,
    programs,
    runs_at_once,
)
from jaxcnn.train._sweep_result import SweepResult, SweepRun
from jaxcnn.train._sweep_space import Space, Values, reject_unsupported, stacked_values

Trained = tuple[Any, list[list[dict[str, Any]]], list[int | None]]  # networks, histories, steps of non-finite values


def sweep(
    model: AnyLayer | Callable[..., AnyLayer],
    train_data: Dataset | dict[str, Any] | tuple[Any, Any],
    *,
    over: Mapping[str, Iterable[Any]],
    eval_data: Dataset | dict[str, Any] | tuple[Any, Any] | None = None,
    loss: Loss = cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
    config: Config | None = None,
    run: Run | None = None,
    chunk: int = 0,
) -> SweepResult:
    """Train a network once for each combination of settings, in one compiled program.

    The settings are inputs of the program, and `jax.vmap` maps the training step over them. Each run has the initial
    values, order of batches, augmentation and dropout of a single `fit` with its seed, and equals it up to rounding.
    Runs whose loss is not finite end, and the others continue.

    The runs are trained in chunks that fit into memory, split over all devices. Each chunk is saved when it ends: a
    sweep with the same run folder continues after the last saved chunk.

    Args:
        model: a layer, or a function that returns one, whose arguments are names in `over`, such as
            `lambda rate: serial(.., with_dropout(dense(84), rate), ..)`. The shapes of its parameters must not depend
            on them.
        train_data: images and labels in memory, as for `fit`.
        over: name -> values. A name is "seed", a number in the config, such as "optimizer.learning_rate",
            "weight_decay.rate", "regularize.l2", "label_smoothing" or "augment.0.1" (the first argument of the first
            augmentation), or an argument of `model`.
        eval_data: the data to evaluate on after each epoch.
        loss, metrics: as for `fit`.
        config: the settings of all runs that differ from the defaults in `FIT`.
        run: the run folder and progress output. Default: a new folder in `runs/`.
        chunk: number of runs that are trained together; 0: as many as fit into memory, on a CPU at most 16.

    Raises:
        ConfigError: for an unknown or invalid setting, settings that a sweep cannot change or does not support, or a
            run folder with the results of another sweep.
        TypeError, ValueError: as for `fit`.

    Example:
        >>> import tempfile
        >>> digits = jaxcnn.data.load("mnist_small", "test")
        >>> model = jaxcnn.serial(jaxcnn.max_pool(4), jaxcnn.flatten, jaxcnn.dense(10))
        >>> over = {"optimizer.learning_rate": [0.001, 0.01, 0.1], "seed": range(2)}
        >>> run = jaxcnn.train.Run("example", {}, folder=tempfile.mkdtemp())
        >>> result = jaxcnn.train.sweep(model, digits, over=over, config={"epochs": 2}, run=run)  # doctest: +ELLIPSIS
        6 runs ...
        >>> len(result.runs), result.best.settings["optimizer.learning_rate"]
        (6, 0.1)
    """
    config = resolve(config or {})
    reject_unsupported(config)
    if jax.process_count() > 1:
        raise RuntimeError("sweep runs in one process, on all of its devices")
    space = Space(model, config, {name: list(values) for name, values in over.items()})
    run = run or Run("sweep", config | {"over": space.over})
    with run.locked():
        return _sweep(space, train_data, eval_data, loss, metrics or {}, run, chunk)


def _sweep(space: Space, train_data, eval_data, loss, metrics, run: Run, chunk: int) -> SweepResult:
    config, runs = space.config, space.runs
    train_source, eval_source = sources(train_data, eval_data, config)
    if train_source.arrays is None:
        raise TypeError("sweep needs training data in memory; train on a stream with fit, one run at a time")
    params, state = space.check_models(jax.eval_shape(scale_bytes, train_source.spec)["image"])
    loss_fn = training_loss(loss, *space(runs[0]))
    train_source, eval_source = checked_sources(train_source, eval_source, loss_fn, params, state, config, run.say)
    of_run = programs(space, train_source, params, loss, metrics)
    spec = {name: jax.ShapeDtypeStruct((), array.dtype) for name, array in stacked_values(runs[:1], 1).items()}
    carry = jax.eval_shape(of_run.create, spec)
    batch = jax.eval_shape(scale_bytes, train_source.spec)
    size = chunk_size(len(runs), chunk or runs_at_once(jax.make_jaxpr(of_run.step)(spec, carry.train_state, batch)))
    identity = {
        **{"config": run.config, "fit": config | {"over": space.over}, "data": train_source.fingerprint},
        "eval_data": "none" if eval_source is None else eval_source.fingerprint,
        "training": program_identity(of_run.step, spec, carry.train_state, batch),
        "evaluation": program_identity(of_run.measure, spec, network_of(carry), _weighted(batch)),
    }
    folder = run.folder / "sweep"
    saved = set(checkpoint.recovered_steps(folder))
    run.forget_after(0)  # all runs are logged below, also the saved ones
    run.say(f"{len(runs)} runs of {config['epochs']} epochs, {size} at a time")
    train = _trainer(of_run, metrics, to_devices(train_source), eval_source, config["epochs"], run)

    done: list[SweepRun] = []
    for number, start in enumerate(range(0, len(runs), size), 1):
        part = runs[start : start + size]
        values = stacked_values(part, size)
        if number in saved:
            like = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), network_of(carry))
            check = lambda step, about: reject_different_run(folder / str(step), about, identity, FIT, run.say)
            _, networks, about = checkpoint.restore(folder, like, step=number, check=check, warn=run.say)
            histories, stopped = about["note"]
        else:
            networks, histories, stopped = train(values, f"runs {start + 1} to {start + len(part)} of {len(runs)}")
            if config["checkpoint"]["keep"]:
                note = [histories, stopped]
                checkpoint.save(folder, number, networks, config=identity, note=note, keep=len(runs))
        networks = jax.tree.map(np.asarray, networks)
        for i, settings in enumerate(part):
            params, state = jax.tree.map(lambda leaf, i=i: leaf[i], networks)
            done.append(SweepRun(settings, histories[i], params, state, stopped[i]))
            _log(run, config["watch"], number, len(done), done[-1])
    result = SweepResult(done, config["watch"], run.folder)
    run.say(result.table())
    return result


def _trainer(
    of_run: Programs,
    metrics: Mapping[str, Metric],
    train_source: Source,
    eval_source: Source | None,
    epochs: int,
    run: Run,
) -> Callable[[Values, str], Trained]:
    """(values, title) -> the trained networks of a chunk, their histories, and the steps of non-finite values."""
    create = mapped(of_run.create, 0, compiler_options=FAST_COMPILE)
    train_epoch = mapped(of_run.train_epoch, 0, 0, None, None, donate_argnums=1)
    measure = mapped(of_run.measure, 0, 0, None)

    def train(values, title):
        with run.busy(f"{title}: compiling"):
            carry = create(values)
        count = len(carry.nonfinite_leaf)
        histories: list[list[dict[str, Any]]] = [[] for _ in range(count)]
        stopped: list[int | None] = [None] * count
        for epoch in range(epochs):
            with run.busy(f"{title}: epoch {epoch + 1} of {epochs}"):
                carry = train_epoch(values, carry, train_source.arrays, epoch)
                tests = evaluate_runs(measure, metrics, values, network_of(carry), eval_source) if eval_source else []
                sums, leaf, step = jax.device_get((carry.metric_sums, carry.nonfinite_leaf, carry.train_state.step))
            for i in range(count):
                if leaf[i] >= 0:
                    stopped[i] = int(step[i])
                    continue
                record: dict[str, Any] = {"epoch": epoch + 1, "step": int(step[i])}
                record["train"] = means({name: value[i] for name, value in sums.items()})
                histories[i].append(to_json(record | ({"test": tests[i]} if tests else {})))
        return network_of(carry), histories, stopped

    return train


def _log(run: Run, watch: str, chunk: int, number: int, result: SweepRun) -> None:
    """Print a line about a run, and add it to the log. The step of the record is the number of its chunk."""
    settings = ", ".join(f"{name}={value:g}" for name, value in result.settings.items())
    outcome = f"not finite at step {result.stopped}" if result.stopped is not None else format_metrics(result.metrics)
    record = {"settings": result.settings, "history": result.history, "stopped": result.stopped, "watch": watch}
    run.log(f"run {number} ({settings}): {outcome}", step=chunk, run=number, **record)


def _weighted(batch: dict[str, Any]) -> dict[str, Any]:
    """The shapes of an evaluation batch."""
    return batch | {"weight": jax.ShapeDtypeStruct(batch["image"].shape[:1], jnp.float32)}

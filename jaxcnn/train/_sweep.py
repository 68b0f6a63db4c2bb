"""Many training runs with different settings as one compiled program."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_integer
from jaxcnn._combine import AnyLayer
from jaxcnn._cross_entropy import cross_entropy
from jaxcnn._memory import reuse_memory_by_default
from jaxcnn.metrics import Metric
from jaxcnn.train._batch import scale_bytes
from jaxcnn.train._config import Config
from jaxcnn.train._devices import to_devices
from jaxcnn.train._evaluate import check_watch
from jaxcnn.train._event import format_metrics
from jaxcnn.train._identity import program_identity
from jaxcnn.train._inputs import Data, check_functions, checked_sources, sources
from jaxcnn.train._log import read_log
from jaxcnn.train._recipe import Loss, resolve, training_loss
from jaxcnn.train._run import Run, check_run
from jaxcnn.train._sweep_halving import Rung, rungs, survivors
from jaxcnn.train._sweep_programs import chunk_size, network_of, programs, runs_at_once
from jaxcnn.train._sweep_result import SweepResult, SweepRun, combination, format_setting
from jaxcnn.train._sweep_space import Space, reject_unsupported, stacked_values
from jaxcnn.train._sweep_train import restored, save, trainer
from jaxcnn.train.checkpoint import check_installed


def sweep(
    model: AnyLayer | Callable[..., AnyLayer],
    train_data: Data,
    *,
    over: Mapping[str, Iterable[Any]],
    eval_data: Data | None = None,
    loss: Loss = cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
    config: Config | None = None,
    run: Run | None = None,
    chunk: int = 0,
    halving: int = 0,
) -> SweepResult:
    """Train a network once for each combination of settings, in one compiled program.

    The settings are inputs of the program, and `jax.vmap` maps the training step over them. Each run has the initial
    values, order of batches, augmentation and dropout of a single `fit` with its seed, and equals it up to rounding.
    Runs whose loss is not finite end, and the others continue.

    The runs are trained in chunks that fit into memory, split over all devices. Each chunk is saved when it ends: a
    sweep with the same run folder continues after the last saved chunk.

    With `halving`, combinations of settings are dropped early, and only the best ones are trained for all epochs. With
    halving=3, 27 combinations and 9 epochs, all 27 are trained until epoch 1, the best 9 until epoch 3, and the best 3
    until epoch 9: 63 epochs instead of 243. Combinations are compared by the mean of the metric "watch" over their
    seeds, and dropped as a whole; those with a non-finite run are dropped first. Schedules are those of all epochs: a
    run that is not dropped equals that of a sweep without `halving`.

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
        chunk: number of runs to train together. 0: as many as fit into memory; on a CPU at most 16, and one per device
            for a large network, because training several together would take longer.
        halving: the reduction factor of successive halving, an integer of at least 2. After each rung, the best
            1 / halving of the combinations continue, for `halving` times as many epochs. 0: no halving.

    Raises:
        ConfigError: for an unknown or invalid setting, settings that a sweep cannot change or does not support, or a
            run folder with the results of another sweep.
        TypeError, ValueError, CheckpointError: as for `fit`.
        RuntimeError: with several processes.

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

        Two of the three learning rates are dropped after the first epoch:

        >>> options = {"over": over, "config": {"epochs": 3}, "halving": 3}
        >>> run = jaxcnn.train.Run("example", {}, folder=tempfile.mkdtemp())
        >>> result = jaxcnn.train.sweep(model, digits, run=run, **options)  # doctest: +ELLIPSIS
        6 runs ...
        >>> [len(run.history) for run in result.runs], round(result.work, 3)
        ([1, 1, 1, 1, 3, 3], 0.556)

    Source of `halving`: Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter
    optimization", 2016; with the numbers of Li et al., "Hyperband", 2018.
    """
    reuse_memory_by_default()
    check_functions(loss, metrics, eval_data)
    check_run(run)
    config = resolve(config or {})
    reject_unsupported(config)
    chunk = check_integer("sweep", "chunk", chunk, 0)
    if not isinstance(over, Mapping) or not all(isinstance(values, Iterable) for values in over.values()):
        raise TypeError(f'sweep: over must be a dict of names and values, such as {{"seed": range(5)}}, got {over!r}')
    if config["checkpoint"]["keep"]:
        check_installed()
    if jax.process_count() > 1:
        raise RuntimeError("sweep runs in one process, on all of its devices")
    space = Space(model, config, {name: list(values) for name, values in over.items()})
    plan = rungs(len({*map(combination, space.runs)}), config["epochs"], halving)
    run = run or Run("sweep", config | {"over": space.over})
    with run.locked():
        return _sweep(space, plan, train_data, eval_data, loss, metrics or {}, run, chunk)


def _sweep(space: Space, plan: list[Rung], train_data, eval_data, loss, metrics, run: Run, chunk: int) -> SweepResult:
    config, settings = space.config, space.runs
    train_source, eval_source = sources(train_data, eval_data, config)
    if train_source.arrays is None:
        raise TypeError("sweep needs training data in memory; train on a stream with fit, one run at a time")
    params, state = space.check_models(jax.eval_shape(scale_bytes, train_source.spec)["image"])
    model, first_config = space.model_and_config(settings[0])
    loss_fn = training_loss(loss, model, first_config)
    train_source, eval_source = checked_sources(
        train_source, eval_source, loss_fn, model, metrics, params, state, config, run.say
    )

    of_run = programs(space, train_source, params, state, loss, metrics)
    spec = {name: jax.ShapeDtypeStruct((), array.dtype) for name, array in stacked_values(settings[:1], 1).items()}
    carry = jax.eval_shape(of_run.create, spec)
    batch, eval_batch = (jax.eval_shape(scale_bytes, data.spec) for data in (train_source, eval_source or train_source))
    weighted = {"weight": jax.ShapeDtypeStruct(eval_batch["image"].shape[:1], jnp.float32)} | eval_batch
    if eval_source is not None:
        check_watch(config["watch"], metrics, jax.eval_shape(of_run.measure, spec, network_of(carry), weighted))
    limit = chunk or runs_at_once(jax.make_jaxpr(of_run.step)(spec, carry.train_state, batch))
    identity = {
        "config": run.config,
        "data": train_source.fingerprint,
        "fit": config | {"over": space.over, "halving": [rung.end for rung in plan[:-1]]},
        "eval_data": "none" if eval_source is None else eval_source.fingerprint,
        "training": program_identity(of_run.step, spec, carry.train_state, batch),
        "evaluation": program_identity(of_run.measure, spec, network_of(carry), weighted),
    }
    folder = run.folder / "sweep"
    trained = restored(folder, carry, identity, run)
    _forget_log(run, resumes=bool(trained))
    train = trainer(of_run, carry, metrics, to_devices(train_source), eval_source, run)

    def train_chunk(numbers, rung, size, title):
        """Train the runs of these numbers until the end of the rung, and save them."""
        before = [trained[i] for i in numbers] if rung.begin else []
        after = train([settings[i] for i in numbers], before, size, rung, title)
        if config["checkpoint"]["keep"]:
            save(folder, numbers, after, identity)
        trained.update(zip(numbers, after, strict=True))

    ended: dict[int, SweepRun] = {}

    def end(numbers, epoch):
        """These runs are trained no further than until this epoch."""
        for i in numbers:
            ended[i] = trained[i].run(settings[i], epoch)
            _log(run, i + 1, ended[i], config)

    epochs = "1 epoch" if config["epochs"] == 1 else f"{config['epochs']} epochs"
    run.say(f"{len(settings)} runs of {epochs}, {chunk_size(len(settings), limit)} at a time")
    left = [*range(len(settings))]
    for rung, following in itertools.zip_longest(plan, plan[1:]):
        if len(plan) > 1:
            run.say(f"successive halving: {len(left)} runs until epoch {rung.end}")
        saved = [i for i in left if i in trained and trained[i].reached(rung.end)]
        missing = [i for i in left if i not in saved]
        if following is None:
            end(saved, rung.end)
        size = chunk_size(max(1, len(missing)), limit)
        for start in range(0, len(missing), size):
            part = missing[start : start + size]
            train_chunk(part, rung, size, f"runs {start + 1} to {start + len(part)} of {len(missing)}")
            if following is None:
                end(part, rung.end)
        if following is not None:
            runs = {i: trained[i].run(settings[i], rung.end) for i in left}
            best = survivors(runs, following.combinations, config["watch"])
            end([i for i in left if i not in best], rung.end)
            left = best

    result = SweepResult([run for _, run in sorted(ended.items())], config["watch"], run.folder)
    run.say(result.table())
    if len(plan) > 1:
        trained_epochs, all_epochs = sum(len(run.history) for run in result.runs), len(settings) * config["epochs"]
        run.say(f"successive halving: {trained_epochs} of {all_epochs} epochs ({result.work:.0%})")
    return result


def _forget_log(run: Run, *, resumes: bool) -> None:
    """Drop all records, because all runs are logged again, also the saved ones. A log of other training is renamed."""
    logged, _ = read_log(run.folder / "metrics.jsonl")
    is_own = resumes and all("settings" in record for record in logged if "step" in record)
    run.forget_after(0 if is_own else -1)


def _log(run: Run, number: int, result: SweepRun, config: Config) -> None:
    """Print a line about a run that has ended, and add it to the log. The step of the record is the run's number."""
    settings = ", ".join(f"{name}={format_setting(value)}" for name, value in result.settings.items())
    outcome = format_metrics(result.metrics)
    if result.nonfinite_step is not None:
        outcome = f"not finite at step {result.nonfinite_step}"
    elif len(result.history) < config["epochs"]:
        outcome += f"; dropped after epoch {len(result.history)}"
    record = {name: getattr(result, name) for name in ("settings", "history", "nonfinite_step")}
    run.log(f"run {number} ({settings}): {outcome}", step=number, **record, watch=config["watch"])

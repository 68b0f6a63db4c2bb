"""Training of the runs of a sweep, one chunk after the other, and the checkpoints of the chunks."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcnn.data import Source
from jaxcnn.metrics import Metric
from jaxcnn.train import checkpoint
from jaxcnn.train._checkpoint_folder import damage, read_about
from jaxcnn.train._config import Config
from jaxcnn.train._event import Carry
from jaxcnn.train._identity import reject_different_run
from jaxcnn.train._many_steps import means
from jaxcnn.train._orbax import restored_leaf, without_key_type
from jaxcnn.train._recipe import FIT
from jaxcnn.train._run import Run, to_json
from jaxcnn.train._sweep_halving import Rung
from jaxcnn.train._sweep_programs import Programs, evaluate_runs, mapped, network_of, runs_sharding
from jaxcnn.train._sweep_result import SweepRun
from jaxcnn.train._sweep_space import Values, stacked_values


class Trained(NamedTuple):
    """A run after some epochs: its records, the step of a non-finite value, and its carry as NumPy arrays."""

    history: list[dict[str, Any]]
    nonfinite_step: int | None
    carry: Carry

    def reached(self, epoch: int) -> bool:
        """Whether it was trained until the epoch, or ended before."""
        return self.nonfinite_step is not None or len(self.history) >= epoch

    def run(self, settings: Values, epochs: int) -> SweepRun:
        """The run with the records of the first `epochs` epochs."""
        step = self.nonfinite_step if len(self.history) < epochs else None  # it may end in a later epoch
        return SweepRun(settings, self.history[:epochs], *network_of(self.carry), step)


def trainer(
    of_run: Programs,
    spec: Carry,
    metrics: Mapping[str, Metric],
    train_source: Source,
    eval_source: Source | None,
    run: Run,
) -> Callable[[Sequence[Values], Sequence[Trained], int, Rung, str], list[Trained]]:
    """(values, runs after the previous rung, chunk size, rung, title) -> the runs of a chunk after the rung.

    `spec` is the carry of a run.
    """
    create = mapped(of_run.create, 0)
    train_epoch = mapped(of_run.train_epoch, 0, 0, None, None, donate_argnums=1)
    measure = mapped(of_run.measure, 0, 0, None)

    def train(part, before, size, rung, title):
        values = stacked_values(part, size)
        with run.busy(f"{title}: compiling"):
            carry = _stacked(spec, [run.carry for run in before], size) if before else create(values)
        histories = [[*run.history] for run in before] or [[] for _ in part]
        steps: list[int | None] = [None] * len(part)
        for epoch in range(rung.begin, rung.end):
            with run.busy(f"{title}: epoch {epoch + 1} of {rung.end}"):
                carry = train_epoch(values, carry, train_source.arrays, epoch)
                tests = evaluate_runs(measure, metrics, values, network_of(carry), eval_source) if eval_source else []
                sums, leaf, step = jax.device_get((carry.metric_sums, carry.nonfinite_leaf, carry.train_state.step))
            for i in range(len(part)):
                if leaf[i] >= 0:
                    steps[i] = int(step[i])
                    continue
                record: dict[str, Any] = {"epoch": epoch + 1, "step": int(step[i])}
                record["train"] = means({name: value[i] for name, value in sums.items()})
                histories[i].append(to_json(record | ({"test": tests[i]} if tests else {})))
        return [*map(Trained, histories, steps, _rows(carry, len(part)))]

    return train


def save(folder: pathlib.Path, numbers: Sequence[int], part: Sequence[Trained], identity: Config) -> None:
    """Save the runs of a chunk, with their numbers in the sweep, as a new step."""
    note = {"runs": numbers, "histories": [run.history for run in part], "steps": [run.nonfinite_step for run in part]}
    carry = jax.tree.map(lambda *leaves: np.stack(leaves), *(run.carry for run in part))
    step = max(checkpoint.steps(folder), default=0) + 1
    checkpoint.save(folder, step, carry, config=identity, note=note, keep=step)


def restored(folder: pathlib.Path, spec: Carry, identity: Config, run: Run) -> dict[int, Trained]:
    """The saved runs by their number in the sweep, each as in its last chunk. A damaged chunk is left out."""
    one_run = jax.eval_shape(lambda carry: jax.tree.map(without_key_type, carry), spec)
    runs: dict[int, Trained] = {}
    for step in checkpoint.recovered_steps(folder):
        problem = damage(folder / str(step), step)
        about, _ = read_about(folder / str(step))
        if problem is not None or about is None:
            run.say(f"{problem}; training its runs again")
            continue
        reject_different_run(folder / str(step), about, identity, FIT, run.say)
        numbers, histories, steps = (about["note"][name] for name in ("runs", "histories", "steps"))
        like = jax.tree.map(lambda leaf, n=len(numbers): jax.ShapeDtypeStruct((n, *leaf.shape), leaf.dtype), one_run)
        carry = checkpoint.restore(folder, like, step=step).tree
        runs |= dict(zip(numbers, map(Trained, histories, steps, _rows(carry, len(numbers))), strict=True))
    return runs


def _rows(carry: Carry, count: int) -> list[Carry]:
    """The first `count` runs, as NumPy arrays that do not keep those on the devices."""
    host = jax.tree.map(lambda leaf: np.array(without_key_type(leaf)), carry)
    return [jax.tree.map(lambda leaf, i=i: leaf[i], host) for i in range(count)]


def _stacked(spec: Carry, carries: Sequence[Carry], size: int) -> Carry:
    """The carries as one of `size` runs on the devices, filled up with the last one, as `stacked_values`."""
    padded = [*carries, *[carries[-1]] * (size - len(carries))]
    stacked = jax.tree.map(lambda leaf, *leaves: restored_leaf(leaf, np.stack(leaves)), spec, *padded)
    return jax.device_put(stacked, runs_sharding())

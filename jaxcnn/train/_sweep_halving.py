"""Successive halving: for how many epochs the combinations of a sweep are trained, and which ones continue."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxcnn.train._config import ConfigError
from jaxcnn.train._sweep_result import SweepRun, combination, ranked


class Rung(NamedTuple):
    """The first epoch (from 0), the epoch at which it ends, and the number of combinations that are trained in it."""

    begin: int
    end: int
    combinations: int


def rungs(combinations: int, epochs: int, eta: int) -> list[Rung]:
    """The rungs of successive halving; a single one without it (eta = 0).

    Rung k of 0..s ends at epoch `epochs / eta**(s - k)` and has `combinations / eta**k`, rounded down. s is the largest
    number for which both are at least 1. eta is the argument `halving` of `sweep`.

    Raises:
        ConfigError: if eta is 1, negative or not an int, or if there is only one rung.
    """
    if isinstance(eta, bool) or not isinstance(eta, int) or eta < 0 or eta == 1:
        raise ConfigError(f"halving must be an integer of at least 2, or 0 to train all combinations, got {eta!r}")
    last = 0
    while eta and eta ** (last + 1) <= min(combinations, epochs):
        last += 1
    if eta and not last:
        raise ConfigError(
            f"halving={eta} needs at least {eta} combinations of settings without the seed and {eta} epochs, "
            f"got {combinations} and {epochs}"
        )
    ends = [epochs // eta ** (last - k) if eta else epochs for k in range(last + 1)]
    counts = [combinations // eta**k if eta else combinations for k in range(last + 1)]
    return [Rung(*rung) for rung in zip([0, *ends], ends, counts, strict=False)]


def survivors(runs: Mapping[int, SweepRun], combinations: int, watch: str) -> list[int]:
    """The keys of the finite runs of the best combinations, by their mean over the seeds."""
    best = {settings for settings, _ in ranked([*runs.values()], watch)[:combinations]}
    return [key for key, run in runs.items() if run.nonfinite_step is None and combination(run.settings) in best]

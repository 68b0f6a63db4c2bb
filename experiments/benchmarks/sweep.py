"""Random operations against plain `lax`, to find shapes where jaxcnn is slower.

    python -m experiments.benchmarks.sweep                  200 configurations, 15 minutes on 2 cores
    python -m experiments.benchmarks.sweep --count 20 --seed 1

The forward pass and each gradient are timed against `lax` under `jax.jit` and against `lax` with the compiler options
of `jaxcnn.jit`. If jaxcnn is more than 10 % slower, the operation is timed again for longer.
"""

import argparse
import math
import statistics
from typing import Any

import jax
import numpy as np

import jaxcnn
from experiments.benchmarks import _measure, ops

NOISE = 1.1  # larger ratios count as slower


def draw(rng: np.random.Generator) -> Any:
    """A random convolution of 1 to 400 million multiply-adds, or a pool or batch norm of up to 8 million values."""
    while True:
        rank = int(rng.choice([1, 2, 2, 2, 2, 3]))
        batch = int(rng.choice([1, 2, 8, 16, 32, 64, 128]))
        spatial = (int(rng.choice({1: [128, 500, 2048], 2: [7, 14, 16, 28, 32, 56], 3: [6, 10, 16]}[rank])),) * rank
        channels = int(rng.choice([1, 3, 8, 16, 24, 32, 64, 96, 128, 256]))
        size = int(rng.choice([1, 2, 3, 3, 3, 5, 7]))
        stride = int(rng.choice([1, 1, 2]))
        padding = int(rng.choice([0, size // 2]))
        values = batch * math.prod(spatial) * channels
        kind = rng.choice(["conv", "conv", "depthwise", "grouped", "transposed", "max", "mean", "norm"])
        if size > spatial[0]:
            continue
        if kind == "norm":
            case = ops.Norm("batch norm", batch, spatial, channels)
        elif kind in ("max", "mean"):
            size = max(size, 2)
            case = ops.Pool(f"{kind} pool", batch, spatial, channels, size, int(rng.choice([size, 2, 1])), size // 2)
            case = case._replace(padding=int(rng.choice([0, case.padding])), mean=kind == "mean")
            if size > spatial[0]:
                continue
        else:
            features = int(rng.choice([6, 16, 32, 48, 64, 128, 256]))
            groups = {"depthwise": 0, "grouped": int(rng.choice([2, 4, 8, 32]))}.get(kind, 1)
            if kind == "depthwise":
                features = channels * int(rng.choice([1, 1, 2]))
            if (groups and (channels % groups or features % groups)) or (groups == channels == 1):
                continue
            dilation = int(rng.choice([1, 1, 1, 2])) if dilated_size(size, 2) <= spatial[0] else 1
            case = ops.Conv(kind, batch, spatial, channels, features, size, stride, padding, dilation, groups)
            case = case._replace(transposed=kind == "transposed", dilation=1 if kind == "transposed" else dilation)
            out = math.prod((n + 2 * padding - dilated_size(size, case.dilation)) // stride + 1 for n in spatial)
            work = batch * out * size**rank * channels // (groups or channels) * features
            if not 1e6 <= work <= 4e8:
                continue
        if 1e4 <= values <= 8e6:
            return case._replace(name=f"{case.name} {tuple(case)[1:]}")


def dilated_size(size: int, dilation: int) -> int:
    return dilation * (size - 1) + 1


def measure(case: Any, kind: str) -> dict[str, Any]:
    args = ops.in_dtype(case, ops.inputs(case), "float32")  # NumPy arrays may be copied in each call
    calls = {
        "jaxcnn": ops.jax_call(ops.ours(case), kind, jaxcnn.jit, args),
        "lax": ops.jax_call(ops.plain(case), kind, jax.jit, args),
        "lax, same options": ops.jax_call(ops.plain(case), kind, jaxcnn.jit, args),
    }
    for turns, seconds in ((5, 0.02), (15, 0.1)):
        timings, turn_times = _measure.compare(calls, turns=turns, seconds=seconds)
        ratios = {name: _measure.ratio(turn_times, "jaxcnn", [name]) for name in calls if name != "jaxcnn"}
        if max(ratios.values()) <= NOISE:
            break
    return {
        "case": case.name,
        "kind": kind,
        "milliseconds": {name: 1e3 * timing.median for name, timing in timings.items()},
        "ratios": ratios,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    jaxcnn.train.reuse_memory()
    rng = np.random.default_rng(options.seed)
    rows = []
    table = _measure.Table(("more than 10 % slower than lax", 72), ("", 12), "jaxcnn", "lax", "same opts")
    for done in range(options.count):
        case = draw(rng)
        for kind in ops.kinds(case):
            rows.append(row := measure(case, kind))
            if max(row["ratios"].values()) > NOISE:
                table.row(row["case"], kind, *row["milliseconds"].values())
        jax.clear_caches()
        if done % 25 == 24:
            print(f"... {done + 1} of {options.count} configurations", flush=True)
    for name in ("lax", "lax, same options"):
        ratios = [row["ratios"][name] for row in rows]
        worst = max(rows, key=lambda row: row["ratios"][name])
        print(
            f"jaxcnn / {name}, {len(rows)} operations: geometric mean {statistics.geometric_mean(ratios):.2f}, "
            f"best {min(ratios):.3f}, more than 10 % slower: {sum(r > NOISE for r in ratios)}, "
            f"worst {max(ratios):.2f} ({worst['case']}, {worst['kind']})"
        )
    print(_measure.save("sweep", rows))


if __name__ == "__main__":
    main()

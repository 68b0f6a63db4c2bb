"""A training step called by itself, and the same step inside of `lax.scan`: many steps for each dispatch.

    python -m experiments.benchmarks.scan [networks ...]

XLA brings convolutions into the order of dimensions it computes well, but not those in the body of a loop; there
plain `lax` gradients are tens of times slower. Ours are in that order from the start.
"""

import sys

import jax
from jax import lax

import jaxcnn
from experiments.benchmarks import _measure, _networks

STEPS = 8


def calls(net: _networks.Network):
    """One step, and STEPS steps in a loop."""
    _, batch, create, step = _networks.jaxcnn_training(net)
    loop = jaxcnn.jit(
        lambda state, batch: lax.scan(lambda state, _: step(state, batch), state, None, STEPS), donate_argnums=0
    )
    state = {"top": create(), "loop": create()}

    def run(name, function):
        state[name], metrics = function(state[name], batch)
        jax.block_until_ready(metrics)

    return lambda: [run("top", step) for _ in range(STEPS)], lambda: run("loop", loop)


def main(names: list[str]) -> None:
    jaxcnn.train.reuse_memory()
    rows = []
    table = _measure.Table(("milliseconds for each step", 28), "by itself", "in a scan", "ratio")
    for name in _measure.chosen(names, _networks.NETWORKS):
        top, loop = calls(_networks.NETWORKS[name])
        timings, taken = _measure.compare({"top": top, "loop": loop}, seconds=0.5)
        milliseconds = {kind: 1e3 / STEPS * timing.median for kind, timing in timings.items()}
        ratio = _measure.ratio(taken, "loop", ["top"])
        rows.append({"network": name, "milliseconds": milliseconds, "ratio": ratio})
        table.row(name, *milliseconds.values(), ratio)
    if not names:
        print(_measure.save("scan", rows))


if __name__ == "__main__":
    main(sys.argv[1:])

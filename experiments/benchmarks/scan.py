"""A training step called directly, against the same step inside `lax.scan`, which runs many steps per dispatch.

    python -m experiments.benchmarks.scan [networks ...]

On a CPU, XLA transposes convolutions to a fast dimension order, but not inside a loop. There the gradients of plain
`lax` convolutions are tens of times slower. The gradients of jaxcnn always use the fast order.
"""

import sys

import jax
from jax import lax

import jaxcnn
from experiments.benchmarks import _measure, _networks

STEPS = 8


def calls(net: _networks.Network):
    """Two functions that run STEPS steps: by direct calls, and in one scan."""
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
    table = _measure.Table(("milliseconds per step", 28), "direct", "in a scan", "ratio")
    for name in _measure.select_names(names, _networks.NETWORKS):
        top, loop = calls(_networks.NETWORKS[name])
        timings, turn_times = _measure.compare({"top": top, "loop": loop}, seconds=0.5)
        milliseconds = {kind: 1e3 / STEPS * timing.median for kind, timing in timings.items()}
        ratio = _measure.ratio(turn_times, "loop", ["top"])
        rows.append({"network": name, "milliseconds": milliseconds, "ratio": ratio})
        table.row(name, *milliseconds.values(), ratio)
    if not names:
        print(_measure.save("scan", rows))


if __name__ == "__main__":
    main(sys.argv[1:])

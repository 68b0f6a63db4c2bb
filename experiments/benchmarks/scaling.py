"""Time and memory of a training step by batch size, image size and width.

    python -m experiments.benchmarks.scaling

The networks are ResNet-20 and MobileNet. Work is the number of multiply-adds in the forward pass. Memory is the
temporary memory that XLA allocates for the step, without its arguments. The last two columns are time per work and
memory per work, relative to the first row of the series. At most 1 means that cost does not grow faster than work.
"""

import jax

import jaxcnn
from experiments.benchmarks import _measure, _networks


def variants() -> dict[str, list[tuple[str, _networks.Network]]]:
    """Series of networks that grow along one axis: batch size, image size or width."""
    series = {}
    for name in ("resnet20", "mobilenet"):
        net = _networks.NETWORKS[name]._replace(batch=32)
        side = net.shape[0]
        series |= {
            f"{name}, batch": [(str(n), net._replace(batch=n)) for n in (8, 32, 128)],
            f"{name}, image": [(f"{n}x{n}", net._replace(shape=(n, n, 3))) for n in (side, 2 * side, 4 * side)],
            f"{name}, width": [(f"x{n}", net._replace(layers=_networks.widen(net.layers, n))) for n in (1, 2, 4)],
        }
    return series


def measure(net: _networks.Network) -> dict[str, float]:
    model, batch, create, step = _networks.jaxcnn_training(net)
    state = create()
    memory = step.lower(state, batch).compile().memory_analysis().temp_size_in_bytes
    work = net.batch * jaxcnn.explain.summary(model, batch["image"]).multiply_adds

    def train():
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)

    timings, _ = _measure.compare({"step": train}, turns=5, seconds=0.2)
    return {"multiply-adds": work, "milliseconds": 1e3 * timings["step"].median, "megabytes": memory / 1e6}


def main() -> None:
    jaxcnn.train.reuse_memory()
    rows = []
    columns = ("million multiply-adds", 22), "ms", "MB", "time/work", "mem./work"
    table = _measure.Table(("training step", 24), ("", 10), *columns)
    for name, series in variants().items():
        first = None
        for label, net in series:
            row = measure(net)
            first = first or row
            rows.append({"series": name, "at": label} | row)
            growth = row["multiply-adds"] / first["multiply-adds"]
            relative = [row[cost] / first[cost] / growth for cost in ("milliseconds", "megabytes")]
            table.row(name, label, row["multiply-adds"] / 1e6, row["milliseconds"], row["megabytes"], *relative)
    print(_measure.save("scaling", rows))


if __name__ == "__main__":
    main()

"""A network as a table."""

import functools
from typing import Any, NamedTuple

import jax

from jaxcnn._layer import Layer, as_layer, shown
from jaxcnn._path import count_params
from jaxcnn._probe import SLOT, Probe, Record, record


class Summary(NamedTuple):
    """The layers of a network in the order in which they run; as text, a table.

    params: all scalars of all parameters; multiply_adds: of all kernels, for one example.
    """

    input: Any
    layers: tuple[Record, ...]
    params: int
    multiply_adds: int

    def __str__(self) -> str:
        rows = [("layer", "output", "parameters", "multiply-adds"), ("(input)", _shapes(self.input), "", "")]
        for layer in self.layers:
            counts = (f"{n:,}" if n else "" for n in (layer.params, layer.multiply_adds))
            rows.append((layer.path or "(model)", _shapes(layer.output), *counts))
        rows += [("total", "", f"{self.params:,}", f"{self.multiply_adds:,}")]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [
            f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}".rstrip()
            for row in rows
        ]
        rule = "-" * (sum(widths) + 6)
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def summary(model: Layer, x: Any) -> Summary:
    """The layers of `model` on an input like `x`: their paths, output shapes, parameters and multiply-adds.

    From shapes alone: no array is made and nothing is computed. A kernel counts one multiply-add for each of
    its weights at each position of the output (of the input, where that is smaller: transposed convolution),
    for one example; biases, norms and pools count none. This is the convention of published figures.

    Args:
        model: a layer.
        x: an input with a batch dimension, or a `jax.ShapeDtypeStruct`.

    Example:
        >>> net = jaxcnn.serial(conv=jaxcnn.conv(8), flat=jaxcnn.flatten, head=jaxcnn.dense(10))
        >>> print(jaxcnn.explain.summary(net, jnp.zeros((1, 4, 4, 3))))
        layer    output        parameters  multiply-adds
        ------------------------------------------------
        (input)  (1, 4, 4, 3)
        conv     (1, 4, 4, 8)         224          3,456
        flat     (1, 128)
        head     (1, 10)            1,290          1,280
        ------------------------------------------------
        total                       1,514          4,736
    """
    model = as_layer(model)
    if not all(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(x)):
        raise TypeError(f"summary needs an input, or a jax.ShapeDtypeStruct, got {shown(x)}")
    x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)
    params, state = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), x)
    apply = functools.partial(model.apply, train=False)
    y, after = jax.eval_shape(apply, params, state | {SLOT: Probe()}, x)
    records = after.get(SLOT, Probe()).records or (record("", params, x, y),)
    containers = {r.path.rpartition("/")[0] for r in records if "/" in r.path}
    batch = jax.tree.leaves(x)[0].shape[0]
    layers = tuple(
        r._replace(multiply_adds=r.multiply_adds // batch) for r in records if r.path not in containers or r.params
    )
    return Summary(x, layers, count_params(params), sum(r.multiply_adds for r in layers))


def _shapes(tree: Any) -> str:
    return ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(tree))

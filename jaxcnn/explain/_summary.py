"""A summary of a network as a table."""

import html
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from jaxcnn._arguments import check_integer, has_spec, short_repr
from jaxcnn._array import spec_of
from jaxcnn._combine import AnyLayer
from jaxcnn._key import key_spec
from jaxcnn._layer import Layer, Params, State, as_layer
from jaxcnn._path import leaves_by_path
from jaxcnn._probe import SLOT, Probe, Record, record
from jaxcnn._trainable import trainable_params

Line = Sequence[str] | None  # cells of a table; None is a horizontal rule


class Row(NamedTuple):
    """The summary of one layer."""

    path: str
    output: Any  # a jax.ShapeDtypeStruct, or a tree of them
    params: int
    trainable: int  # trainable parameters
    multiply_adds: int  # for one example
    activation_bytes: int  # for the whole batch


class Summary(NamedTuple):
    """The layers of a network in the order in which they run. `print` shows a tree.

    layers: layers without inner layers, and outer layers with parameters; counts exclude inner layers.
    params, trainable: number of parameters, and of those that receive a gradient.
    multiply_adds: number of multiply-adds of all kernels for one example.
    param_bytes, activation_bytes: memory of all parameters, and of all activations for the whole batch.
    tree: all layers, each outer layer before its inner layers; counts include inner layers. `depth` limits only this.
    """

    input: Any
    layers: tuple[Row, ...]
    params: int
    multiply_adds: int
    trainable: int
    param_bytes: int
    activation_bytes: int
    tree: tuple[Row, ...]

    def __str__(self) -> str:
        return f"{table(self._lines(), '<<>>><')}\n{self._note()}"

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """HTML for notebooks."""
        return html_table(self._lines(), "<<>>><", self._note())

    def _note(self) -> str:
        trainable = "all" if self.trainable == self.params else f"{self.trainable:,}"
        return f"parameters take {_size(self.param_bytes)}; {trainable} are trainable"

    def _lines(self) -> list[Line]:
        lines: list[Line] = [("layer", "output", "parameters", "multiply-adds", "activations", ""), None]
        lines += [("(input)", shapes(self.input), "", "", "", "")]
        for row in self.tree:
            frozen = "" if row.trainable == row.params else "partly frozen" if row.trainable else "frozen"
            lines.append((indented(row.path), shapes(row.output), *_count_cells(row), frozen))
        return [*lines, None, ("total", "", *_count_cells(self), "")]


def summary(model: AnyLayer, x: Any, *, depth: int | None = None) -> Summary:
    """Return the output shapes, parameters, multiply-adds and memory of the layers of `model`.

    The summary is for evaluation mode and needs only shapes: it allocates and computes nothing.

    Multiply-adds follow the convention of published results: for one example, each weight of a kernel counts once per
    output position (per input position for a transposed convolution); biases, norms and pools count zero. Activations
    are the output bytes, for the whole batch, of layers without inner layers, except layers that return their input
    unchanged. They approximate the memory that a training step keeps for the backward pass. They exclude the sums of
    `residual`, and `remat` and the compiler may keep less. Parameters without a gradient in training, as in `freeze`,
    are frozen.

    Args:
        model: a layer.
        x: an input with a batch dimension, or a `jax.ShapeDtypeStruct`.
        depth: maximum depth of the tree; None shows all levels.

    Raises:
        TypeError: if x has no shape.
        ValueError: if depth < 1, or if x has no examples.

    Example:
        >>> features = jaxcnn.freeze(jaxcnn.serial(conv=jaxcnn.conv(8), act=jax.nn.relu))
        >>> net = jaxcnn.serial(features=features, flat=jaxcnn.flatten, head=jaxcnn.dense(10))
        >>> print(jaxcnn.explain.summary(net, jnp.zeros((1, 4, 4, 3))))
        layer     output        parameters  multiply-adds  activations
        ----------------------------------------------------------------------
        (input)   (1, 4, 4, 3)
        features  (1, 4, 4, 8)         224          3,456      1.02 kB  frozen
          conv    (1, 4, 4, 8)         224          3,456        512 B  frozen
          act     (1, 4, 4, 8)                                   512 B
        flat      (1, 128)                                       512 B
        head      (1, 10)            1,290          1,280         40 B
        ----------------------------------------------------------------------
        total                        1,514          4,736      1.58 kB
        parameters take 6.06 kB; 1,290 are trainable
    """
    if depth is not None:
        depth = check_integer("summary", "depth", depth)
    model = as_layer(model)
    x, params, state = specs(model, x, "summary")
    batch = _examples(x)
    records, trainable = _records(model, params, state, x), jax.tree.leaves(trainable_params(model, params, state, x))
    containers = {r.path.rpartition("/")[0] for r in records if r.path}
    rows = {
        r.path: Row(r.path, r.output, 0, 0, r.multiply_adds // batch, 0 if r.path in containers else r.output_bytes)
        for r in records
    }
    leaves = leaves_by_path(params)
    for (path, leaf), is_trainable in zip(leaves.items(), trainable, strict=True):
        while path not in rows:  # attribute it to the innermost enclosing layer
            path = path.rpartition("/")[0]
        row, trained = rows[path], leaf.size if is_trainable else 0
        rows[path] = row._replace(params=row.params + leaf.size, trainable=row.trainable + trained)
    whole, *inner = all_rows = list(rows.values())
    total = _sum(all_rows)
    tree = [total] if whole.params or not inner else []
    tree += [_with_inner(row, inner[i:]) for i, row in enumerate(inner, 1)]
    return Summary(
        input=x,
        layers=tuple(row for row in all_rows if row.path not in containers or row.params),
        params=total.params,
        multiply_adds=total.multiply_adds,
        trainable=total.trainable,
        param_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in leaves.values()),
        activation_bytes=total.activation_bytes,
        tree=tuple(row for row in tree if depth is None or row.path.count("/") < depth),
    )


def specs(model: Layer, x: Any, function: str) -> tuple[Any, Params, State]:
    """The shapes of the input, the parameters and the state."""
    leaves = jax.tree.leaves(x)
    if not leaves or not all(map(has_spec, leaves)):
        is_shape = isinstance(x, tuple) and leaves and all(isinstance(size, int) for size in x)
        hint = f"; for this shape, pass jax.ShapeDtypeStruct({x}, jnp.float32)" if is_shape else ""
        raise TypeError(f"{function} needs an input, or a jax.ShapeDtypeStruct, got {short_repr(x)}{hint}")
    x = spec_of(x)
    return x, *jax.eval_shape(model.init, key_spec(), x)


def _examples(x: Any) -> int:
    """The number of examples in an input, at least 1."""
    shape = jax.tree.leaves(x)[0].shape
    if not shape or shape[0] < 1:
        raise ValueError(f"summary needs an input with a batch dimension of at least 1, got shape {shape}")
    return shape[0]


def shapes(tree: Any) -> str:
    return ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(tree))


def indented(path: str) -> str:
    """The name of a layer, indented by its depth."""
    return "  " * path.count("/") + path.rpartition("/")[2] or "(model)"


def table(lines: Sequence[Line], align: str) -> str:
    """A text table with aligned columns; None is a horizontal rule."""
    widths = [max(map(len, column)) for column in zip(*filter(None, lines), strict=True)]

    def text(line):
        return "  ".join(f"{cell:{side}{n}}" for cell, side, n in zip(line, align, widths, strict=True)).rstrip()

    texts = [text(line) if line else "" for line in lines]
    rule = "-" * max(map(len, texts))
    return "\n".join(line or rule for line in texts)


def html_table(lines: Sequence[Line], align: str, note: str = "") -> str:
    """An HTML table with escaped text; the first line is the header."""

    def row(cells, kind):
        sides = ({"<": "left", ">": "right"}[side] for side in align)
        texts = (html.escape(cell).replace("  ", "&emsp;") for cell in cells)
        return "".join(
            f'<{kind} style="text-align: {side}">{text}</{kind}>' for text, side in zip(texts, sides, strict=True)
        )

    first, *rest = filter(None, lines)
    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rest)
    caption = f"<p>{html.escape(note)}</p>" if note else ""
    return f"<table><thead><tr>{row(first, 'th')}</tr></thead><tbody>{body}</tbody></table>{caption}"


def _records(model: Layer, params: Params, state: State, x: Any) -> list[Record]:
    """The records of all layers in evaluation mode, the model itself first."""

    def forward(params, state, x):
        y, after = model.apply(params, state | {SLOT: Probe()}, x, train=False)
        return y, after.get(SLOT)

    y, probe = jax.eval_shape(forward, params, state, x)
    return [record("", params, x, y), *(probe.records if probe else ())]


def _with_inner(row: Row, following: Sequence[Row]) -> Row:
    """The row with the counts of its inner layers added."""
    return _sum([row, *itertools.takewhile(lambda other: other.path.startswith(f"{row.path}/"), following)])


def _sum(rows: Sequence[Row]) -> Row:
    """The first row with the counts summed over all rows."""
    return Row(*rows[0][:2], *(sum(column) for column in list(zip(*rows, strict=True))[2:]))


def _count_cells(row: Row | Summary) -> tuple[str, ...]:
    """Parameters, multiply-adds and activations as text; empty for zero."""
    texts = (f"{row.params:,}", f"{row.multiply_adds:,}", _size(row.activation_bytes))
    return tuple("" if text in ("0", "0 B") else text for text in texts)


def _size(n: float) -> str:
    """A number of bytes with three significant digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 999.5:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:,.0f} TB"

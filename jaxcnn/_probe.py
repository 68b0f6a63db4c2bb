"""Reads activations out of a network of closures without hidden state.

A probe is passed to `apply` in the `state`, under a key that no layer can use. Combinators pass it on to their children
and return it, with results, in the new state. All other layers ignore it: they may return it or drop it.

The alternative is an identity operation per layer that carries its path, `jax.ad_checkpoint.checkpoint_name`. It is
free after lowering and works with `vmap`, `grad` and `scan`. But a layer does not know its path, so paths would come
from a global stack at tracing time. jax traces a jitted layer once for several uses, so the second use would report the
path of the first. A probe is an argument, and jax traces again for a different argument. It also records the input and
parameters of each layer, which `summary` needs, and does not change the program of a model without a probe.
"""

import dataclasses
import math
import re
from typing import Any, NamedTuple

import jax

from jaxcnn._array import spec_of
from jaxcnn._layer import Params, State

SLOT = "/probe"  # layer names contain no slash


class Record(NamedTuple):
    """Output shape and cost of one layer call."""

    path: str
    output: Any  # a tree of jax.ShapeDtypeStruct
    multiply_adds: int  # with the layer's own kernel; 0 without one
    output_bytes: int  # 0 if the output is the input


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Probe:
    """The request that is passed to layers, and the results that they return."""

    pattern: str | None = dataclasses.field(default=None, metadata={"static": True})  # of the paths to capture
    path: str = dataclasses.field(default="", metadata={"static": True})  # of the layer that receives this probe
    offsets: dict[str, Any] = dataclasses.field(default_factory=dict)  # by path, added to activations
    activations: dict[str, Any] = dataclasses.field(default_factory=dict)  # by path
    records: tuple[Record, ...] = dataclasses.field(default=(), metadata={"static": True})

    def enter(self, name: str) -> "Probe":
        """The probe to pass to the child `name`."""
        path = f"{self.path}/{name}".lstrip("/")
        offsets = {p: offset for p, offset in self.offsets.items() if p.startswith(path + "/")}
        return Probe(self.pattern, path, offsets)

    def leave(self, name: str, params: Params, state: State, x: Any, y: Any) -> tuple[Any, State, "Probe"]:
        """The child's output, its state without the probe, and this probe with the child's results."""
        path = self.enter(name).path
        result = state.get(SLOT, Probe())
        state = {leaf: value for leaf, value in state.items() if leaf != SLOT}
        activations = self.activations | result.activations
        if self.pattern is not None and re.fullmatch(self.pattern, path):
            if path in self.offsets:
                y = jax.tree.map(lambda a, b: a + b, y, self.offsets[path])
            activations[path] = y
        records = (*self.records, record(path, params, x, y), *result.records)
        return y, state, dataclasses.replace(self, activations=activations, records=records)

    def times(self, n: int) -> "Probe":
        """This probe with the costs of all records multiplied by n."""
        return dataclasses.replace(
            self,
            records=tuple(
                r._replace(multiply_adds=n * r.multiply_adds, output_bytes=n * r.output_bytes) for r in self.records
            ),
        )


def record(path: str, params: Params, x: Any, y: Any) -> Record:
    """The record of a layer that computed `y` from `x` with `params`."""
    multiply_adds, kernel = 0, params.get("kernel", {})
    if not isinstance(kernel, dict):  # a dict has the parameters of a layer with the name "kernel"
        # Each weight is used once per position of the output, or of the input of a transposed convolution. Of several
        # inputs, such as those of `deform_conv`, the first one counts.
        positions = min(math.prod(jax.tree.leaves(data)[0].shape[:-1]) for data in (x, y))
        multiply_adds = math.prod(kernel.shape) * positions
    shapes = spec_of(y)
    output_bytes = 0 if y is x else sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    return Record(path, shapes, multiply_adds, output_bytes)

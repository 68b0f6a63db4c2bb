"""How activations are read out of a network of closures without hidden state.

A request rides in the `state` that `apply` is given, under a name that no layer can have. Combinators
hand it down to their children and give it back, filled, in the new state. All other layers know nothing
of it: they return their state or drop it, and either is right.

The alternative is an identity operation for each layer that carries its path, `jax.ad_checkpoint.checkpoint_name`. It
costs nothing after lowering and passes through `vmap`, `grad` and `scan`, but a layer does not know where it stands:
paths would come from a global stack at tracing time, and jax traces a jitted layer once for all the places it is used
in, so that the second one shows the path of the first. A request is an argument, of which jax keeps the traces apart.
It also tells the input and the parameters of each layer, which `summary` needs, and leaves the program of a model that
nobody looks into as it is.
"""

import dataclasses
import math
import re
from typing import Any, NamedTuple

import jax

from jaxcnn._layer import Params, State

SLOT = "/probe"  # the names of layers have no slash


class Record(NamedTuple):
    """What a layer did, as far as shapes tell."""

    path: str
    output: Any  # a jax.ShapeDtypeStruct, or a tree of them
    multiply_adds: int  # with its own kernel, if it has one
    output_bytes: int  # 0 if it gives back its input as it is


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Probe:
    """What is asked for on the way down, and found on the way up."""

    pattern: str | None = dataclasses.field(default=None, metadata={"static": True})  # of the paths to keep
    path: str = dataclasses.field(default="", metadata={"static": True})  # where the layer that gets this stands
    offsets: dict[str, Any] = dataclasses.field(default_factory=dict)  # by path, to be added to activations
    activations: dict[str, Any] = dataclasses.field(default_factory=dict)  # by path
    records: tuple[Record, ...] = dataclasses.field(default=(), metadata={"static": True})

    def enter(self, name: str) -> "Probe":
        """The request for the child `name`."""
        path = f"{self.path}/{name}".lstrip("/")
        offsets = {p: offset for p, offset in self.offsets.items() if p.startswith(path + "/")}
        return Probe(self.pattern, path, offsets)

    def leave(self, name: str, params: Params, state: State, x: Any, y: Any) -> tuple[Any, State, "Probe"]:
        """The child's output, its state without the request, and this request with what was found."""
        path = self.enter(name).path
        found = state.get(SLOT, Probe())
        state = {leaf: value for leaf, value in state.items() if leaf != SLOT}
        activations = self.activations | found.activations
        if self.pattern is not None and re.fullmatch(self.pattern, path):
            if path in self.offsets:
                y = jax.tree.map(lambda a, b: a + b, y, self.offsets[path])
            activations[path] = y
        records = (*self.records, record(path, params, x, y), *found.records)
        return y, state, dataclasses.replace(self, activations=activations, records=records)

    def times(self, n: int) -> "Probe":
        """The same, where what was recorded happens n times."""
        return dataclasses.replace(
            self,
            records=tuple(
                r._replace(multiply_adds=n * r.multiply_adds, output_bytes=n * r.output_bytes) for r in self.records
            ),
        )


def record(path: str, params: Params, x: Any, y: Any) -> Record:
    """What a layer did that made `y` from `x` with `params`."""
    multiply_adds = 0
    if "kernel" in params:
        # Each weight is used once at each position: of the output, or of a transposed convolution's input.
        positions = min(math.prod(data.shape[:-1]) for data in (x, y))
        multiply_adds = math.prod(params["kernel"].shape) * positions
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), y)
    output_bytes = 0 if y is x else sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    return Record(path, shapes, multiply_adds, output_bytes)

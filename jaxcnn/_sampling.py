"""Random layers in evaluation: the request of `monte_carlo` that dropout stays on.

The request is an entry of `state` without arrays, under a key that no layer can use. Combinators pass it on to their
children, as they do with a probe. It is an argument, so jax traces a jitted layer again for it.
"""

from jaxcnn._arguments import check_train
from jaxcnn._layer import State

SAMPLING = "/sampling"  # layer names contain no slash


def requested(state: State) -> State:
    """The entry of `state` to pass to children; {} without a request."""
    return {SAMPLING: ()} if SAMPLING in state else {}


def with_sampling(state: State) -> State:
    """`state` with the request."""
    return state | {SAMPLING: ()}


def without_sampling(state: State) -> State:
    """`state` without the request."""
    return {name: child for name, child in state.items() if name != SAMPLING}


def is_random(state: State, train: bool) -> bool:
    """Whether a random layer draws values: in training, or on request."""
    return check_train(train) or SAMPLING in state

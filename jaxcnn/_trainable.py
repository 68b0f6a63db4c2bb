"""Which parameters of a network are trained, and which `freeze` keeps constant."""

from typing import Any

import jax

from jaxcnn._key import key_spec
from jaxcnn._layer import Layer, Params, State
from jaxcnn._program import inputs_used


def trainable_params(model: Layer, params: Params, state: State, x: Any) -> Params:
    """A tree of bools: for each parameter, whether an output in training mode (main or auxiliary) depends on it."""

    def tangent(tangents, params, state, x, key):
        forward = lambda params: model.apply(params, state, x, train=True, key=key)[0]
        return jax.jvp(forward, (params,), (tangents,))[1]

    program = jax.make_jaxpr(tangent)(params, params, state, x, key_spec())
    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(structure, inputs_used(program)[: len(leaves)])

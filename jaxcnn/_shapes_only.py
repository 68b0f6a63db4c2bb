"""Whether a network is traced only for the shapes in it, as `init` does to find the input of each layer.

    with SHAPES_ONLY(True): ..
    if SHAPES_ONLY.value: ..        initial values are zeros; nothing is arranged for a backward pass

It is part of the key of JAX's caches: a jitted initializer that is traced for shapes is traced again for values.
"""

import jax

SHAPES_ONLY = jax.make_user_context(False)

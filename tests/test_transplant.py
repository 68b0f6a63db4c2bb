"""Known values in the place of others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import weights

PARAMS = {"body": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}, "head": {"kernel": jnp.zeros(1)}}


def test_the_rest_is_as_it_was():
    result = weights.transplant(PARAMS, {"body": {"kernel": np.ones((2, 3), np.float64)}})
    assert result["body"]["kernel"].dtype == jnp.float32
    assert (result["body"]["kernel"] == 1).all()
    assert result["head"]["kernel"] is PARAMS["head"]["kernel"]
    assert jax.tree.structure(weights.transplant(PARAMS, {})) == jax.tree.structure(PARAMS)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"boddy": {}}, "the model has no boddy; expected one of: body, head; did you mean 'body'"),
        ({"body": {"kernel": np.ones(3)}}, r"body/kernel has shape \(3,\), the model needs \(2, 3\)"),
        ({"body": {"kernel": {"a": 1}}}, r"body/kernel has a dict, the model needs \(2, 3\)"),
        ({"body": np.ones(3)}, "body must be a dict; expected one of: .*kernel"),
        (None, "the part must be a dict; expected one of: body, head"),
    ],
)
@pytest.mark.parametrize("params", [PARAMS, jax.eval_shape(lambda: PARAMS)])
def test_refuses(params, part, message):
    with pytest.raises(ValueError, match=message):
        weights.transplant(params, part)

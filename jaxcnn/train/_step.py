"""The training step: the gradient of the loss and the optax update in one compiled function."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxcnn._arguments import short_repr
from jaxcnn._combine import AnyLayer
from jaxcnn._jit import jit
from jaxcnn._key import child_key
from jaxcnn._layer import Params, State, as_layer, checked_init
from jaxcnn._loss import Batch, LossFn, check_loss, checked_loss_result


class TrainState(NamedTuple):
    """All values that training updates.

    step: number of steps done, a scalar int32; params, state: of the model; opt_state: of the optimizer;
    key: the random key of the run. Each step folds its number into it.
    """

    step: jax.Array
    params: Params
    state: State
    opt_state: Any
    key: jax.Array

    def __repr__(self) -> str:
        try:
            step = str(int(self.step))
        except (TypeError, ValueError, RuntimeError):  # traced, a ShapeDtypeStruct, not a scalar, or donated
            step = short_repr(self.step)
        trees = ", ".join(f"{name}=<{_size(getattr(self, name))}>" for name in ("params", "state", "opt_state"))
        return f"TrainState(step={step}, {trees}, key=<{short_repr(self.key)}>)"

    @classmethod
    def create(cls, model: AnyLayer, optimizer: optax.GradientTransformation, key: jax.Array, x: Any) -> "TrainState":
        """The state before the first step.

        Args:
            model: a layer.
            optimizer: an optax gradient transformation.
            key: the random key of the run, for the initial parameters and all steps.
            x: an input or a `jax.ShapeDtypeStruct`; only its shape and dtype matter.

        Raises:
            TypeError: if `optimizer` is not an optimizer, or as in `model.init`.
            ValueError: as in `model.init`.

        Example:
            >>> import optax
            >>> x = jax.ShapeDtypeStruct((4, 3), jnp.float32)
            >>> state = jaxcnn.train.TrainState.create(jaxcnn.dense(2), optax.sgd(0.1), jax.random.key(0), x)
            >>> int(state.step), state.params["kernel"].shape
            (0, (3, 2))
        """
        check_transformation("TrainState.create", optimizer)
        params, state = checked_init(as_layer(model).init(child_key(key, "init"), x))

        def complete(params, state, key):
            train_state = cls(jnp.zeros((), jnp.int32), params, state, optimizer.init(params), key)
            # A step donates the buffers of its state, so no two leaves may share a buffer.
            return jax.tree.map(jnp.copy, train_state)

        return jit(complete)(params, state, child_key(key, "steps"))


def make_step(
    loss_fn: LossFn, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """A compiled function (train_state, batch) -> (train_state, metrics).

    gradient = d loss_fn / d params;  update, opt_state = optimizer(gradient);  params + update

    Compiled once per batch shape. The input train_state is donated: its arrays are invalid after the call. The metrics
    stay on the device; reading them waits for the step.

    Args:
        loss_fn: a loss function, as returned by `cross_entropy(model)`.
        optimizer: an optax gradient transformation. Those that need the loss, such as `optax.lbfgs` and
            `optax.contrib.reduce_on_plateau`, get it of the batch. So do those that compute it, or its gradient,
            again for other parameters, such as `optax.contrib.sophia` and `optax.contrib.sam(opaque_mode=True)`.

    Raises:
        TypeError: if `loss_fn` is a model or does not return (loss, (state, metrics)), `optimizer` is not an optimizer,
            or the step is called with something else than a `TrainState`.
        ValueError: if the step is called with a `TrainState` that was created with another optimizer.

    Example:
        >>> import optax
        >>> model, optimizer = jaxcnn.dense(2), optax.sgd(0.1)
        >>> batch = {"image": jnp.ones((4, 3)), "label": jnp.zeros(4, int)}
        >>> train_state = jaxcnn.train.TrainState.create(model, optimizer, jax.random.key(0), batch["image"])
        >>> step = jaxcnn.train.make_step(jaxcnn.cross_entropy(model), optimizer)
        >>> for _ in range(10):
        ...     train_state, metrics = step(train_state, batch)
        >>> int(train_state.step), float(metrics["accuracy"])
        (10, 1.0)
    """
    check_loss("make_step", loss_fn)
    check_transformation("make_step", optimizer)
    update = accepting_loss(optimizer).update

    def step(train_state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        if not isinstance(train_state, TrainState):
            raise TypeError(f"call step(train_state, batch) with a TrainState, got {short_repr(train_state)}")
        count, params, state, opt_state, key = train_state

        def batch_loss(params):
            result = loss_fn(params, state, batch, train=True, key=jax.random.fold_in(key, count))
            return checked_loss_result(result, state)

        (loss, (new_state, metrics)), gradient = jax.value_and_grad(batch_loss, has_aux=True)(params)
        metrics = {"loss": loss} | metrics
        extra = {"value": loss, "grad": gradient, **loss_functions(lambda params: batch_loss(params)[0])}
        # optax relies on promotion, even if the user has configured JAX to reject it.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            try:
                updates, opt_state = update(gradient, opt_state, params, **extra)
            except (AttributeError, TypeError, ValueError) as error:
                structure: Any = jax.tree.structure(opt_state)
                if structure == jax.tree.structure(jax.eval_shape(optimizer.init, params)):
                    raise
                raise ValueError("step: the train_state was created with another optimizer than the step") from error
            new = optax.apply_updates(params, updates)
        return train_state._replace(step=count + 1, params=new, state=new_state, opt_state=opt_state), metrics

    return jit(step, donate_argnums=0)


def loss_functions(loss: Callable[[Params], jax.Array]) -> dict[str, Callable[..., Any]]:
    """The loss of the batch and its gradient, by the keywords of optax's optimizers that compute them again."""

    def value_fn(params, obj_fn=None, grad_fn=None):  # line searches refuse keywords that it does not name
        return loss(params)

    return {"value_fn": value_fn, "obj_fn": value_fn, "grad_fn": lambda params, i: jax.grad(loss)(params)}


def accepting_loss(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The optimizer, whose update ignores those of the keywords of `make_step` that it does not need."""
    extended = optax.with_extra_args_support(optimizer)
    parameters = inspect.signature(extended.update).parameters

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return extended.update(updates, state, params, **{name: extra[name] for name in extra if name in parameters})

    accepts_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return extended if accepts_all else optax.GradientTransformationExtraArgs(extended.init, update)


def check_transformation(name: str, optimizer: Any) -> None:
    """Raise TypeError if `optimizer` is not an optax optimizer."""
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(
            f"{name}: optimizer must be an optax optimizer, such as optax.sgd(0.1), got {short_repr(optimizer)}"
        )


def _size(tree: Any) -> str:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    megabytes = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) / 1e6
    return f"{sum(leaf.size for leaf in leaves):,} values in {len(leaves)} arrays, {megabytes:.3g} MB"

"""The optimizer and the augmentation that `fit` takes in place of settings: their checks and identities."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn._arguments import short_repr
from jaxcnn._key import key_spec
from jaxcnn._layer import Params
from jaxcnn._loss import Batch
from jaxcnn.data import augment
from jaxcnn.train._config import Config, ConfigError
from jaxcnn.train._identity import program_identity
from jaxcnn.train._recipe import FIT, augmentation_of
from jaxcnn.train._step import accepting_loss, loss_functions


def reject_replaced(config: Config, argument: str, settings: Sequence[str]) -> None:
    """Raise ConfigError for settings that an argument of `fit` replaces."""
    for name in settings:
        if config[name] != FIT[name]:
            raise ConfigError(
                f"{name} has no effect together with the argument {argument} of fit; make it a part of that"
            )


def checked_augmentation(
    own: Callable[..., Batch] | None, config: Config, key: jax.Array, batch: Batch
) -> tuple[Callable[..., Batch] | None, Config]:
    """The augmentation of batches, the caller's or that of the settings, and the identity of the caller's.

    Its errors are raised here, outside of the compiled function, with a short traceback.
    """
    when = jax.eval_shape(augment.When, np.zeros(batch["image"].shape[0], np.int32), np.int32(0))
    if own is None:
        if augment_batch := augmentation_of(config):
            try:
                jax.eval_shape(augment_batch, key, batch, when)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"augment: {error}") from error
        return augment_batch, {}
    try:
        after = jax.eval_shape(own, key, batch, when)
    except Exception as error:
        error.add_note(
            "in the argument augmentation of fit, (key, batch, when) -> batch; data.augment.compose makes one of "
            "augmentations of single images"
        )
        raise
    before, after = (
        {name: np.shape(entry) for name, entry in entries.items()} if isinstance(entries, dict) else short_repr(entries)
        for entries in (batch, after)
    )
    if before != after:
        raise ValueError(f"augmentation must return a batch with the entries and shapes {before}, got {after}")
    return own, {"augmentation": program_identity(own, key_spec(), batch, when)}


def optimizer_identity(optimizer: optax.GradientTransformation, config: Config, params: Params) -> Config:
    """The identity of the caller's optimizer. ConfigError if it needs the loss, which accumulated gradients lack."""
    if config["accumulate"] > 1:
        _check_needs_no_loss(optimizer, params)
    first_update = partial(_first_update, optimizer)
    return {"optimizer": program_identity(first_update, params, params, jax.ShapeDtypeStruct((), jnp.float32))}


def _first_update(optimizer: optax.GradientTransformation, gradient: Params, params: Params, loss: jax.Array) -> Any:
    """The update of a step, see `make_step`."""
    extra = {"value": loss, "grad": gradient, **loss_functions(lambda params: loss)}
    try:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return accepting_loss(optimizer).update(gradient, optimizer.init(params), params, **extra)
    except Exception as error:
        error.add_note("in the argument optimizer of fit, which gets the params of the model, and a gradient like them")
        raise


def _check_needs_no_loss(optimizer: optax.GradientTransformation, params: Params) -> None:
    """Raise ConfigError if the update needs more than the gradient: a mean over steps has no loss of its own."""
    try:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            jax.eval_shape(lambda params: optimizer.update(params, optimizer.init(params), params), params)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"accumulate must be 1: the optimizer needs the loss of each step: {error}") from error

"""Losses made from losses: they apply the model once, and give its output to each of them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import check_number, check_positive, is_function, short_repr
from jaxcnn._array import at_least_float32
from jaxcnn._key import key_spec
from jaxcnn._layer import Layer, as_layer
from jaxcnn._loss import (
    Batch,
    LossFn,
    batch_weights,
    check_loss_of_models,
    check_output,
    counted_fractions,
    image_spec,
    inputs,
    masked,
    output_shape,
    weighted_mean,
    with_counted,
)
from jaxcnn._numeric import times_log
from jaxcnn._validate import check_for_loss, check_weights, with_check

Loss = Callable[..., LossFn]  # model -> LossFn


def weighted_sum(*terms: tuple[float, Loss]) -> Loss:
    """model -> LossFn: a weighted sum of losses of one model.

    loss = sum_j weight_j * loss_j

    Args:
        terms: pairs (weight, loss), with loss: model -> LossFn, such as `cross_entropy`, or `functools.partial` of one.

    Returns:
        a loss, model -> LossFn, for `fit(loss=)`. Its metrics are "loss" and those of the terms. Of
        several metrics with one name, it has that of the first term.

    Raises:
        TypeError: for a term that is not a pair of a number and a function.
        ValueError: without terms, for a negative weight, or for a `distillation` as a term.

    Example:
        >>> loss = jaxcnn.weighted_sum((1.0, jaxcnn.cross_entropy), (0.5, jaxcnn.dice))
        >>> loss_fn = loss(jaxcnn.as_layer(jaxcnn.identity))
        >>> batch = {"image": jnp.zeros((1, 4, 2)), "label": jnp.array([[0, 0, 1, 1]])}
        >>> round(float(loss_fn({}, {}, batch, train=True)[0]), 4)  # log 2 + (1 - 3 / 5) / 2
        0.8931
    """
    if not terms:
        raise ValueError("weighted_sum needs at least one pair (weight, loss), got none")
    pairs = []
    for term in terms:
        if not isinstance(term, tuple) or len(term) != 2 or not is_function(term[1]):
            raise TypeError(f"weighted_sum needs pairs (weight, loss), such as (0.5, dice), got {short_repr(term)}")
        check_loss_of_models("weighted_sum", term[1])
        pairs.append((check_number("weighted_sum", "weight", term[0]), term[1]))

    def loss(model: Layer) -> LossFn:
        model = as_layer(model)
        parts = [(weight, make(_OUTPUT)) for weight, make in pairs]

        def loss_fn(params, state, batch, *, train, key=None):
            image, _ = inputs(batch)
            output, state = model.apply(params, state, image, train=train, key=key)
            total: Any = 0.0
            metrics: dict[str, jax.Array] = {}
            for weight, part in parts:
                value, (_, named) = part({}, {}, batch | {"image": output}, train=train)
                total, metrics = total + weight * value, named | metrics
            return total, (state, metrics | {"loss": total})

        with_counted(loss_fn, functools.partial(_counted, [part for _, part in parts]))
        return with_check(loss_fn, _check_parts(model, [part for _, part in parts]))

    return loss


def distillation(
    loss: Loss, teacher: Callable[[jax.Array], jax.Array], *, temperature: float = 4.0, weight: float = 0.5
) -> Loss:
    """model -> LossFn: trains the model to match a teacher as well as the labels.

    loss = (1 - weight) * loss(labels) + weight * T^2 KL(softmax(teacher / T) || softmax(logits / T)),  T = temperature

    In evaluation it is the loss of the labels alone.

    Args:
        loss: model -> LossFn, such as `cross_entropy`.
        teacher: images -> logits with the shape of the model's, such as
            `lambda x: net.apply(params, state, x, train=False)[0]`. It is not trained.
        temperature: above 0; a higher one shows more of the teacher's smaller probabilities.
        weight: of the teacher, from 0 to 1.

    Returns:
        a loss, model -> LossFn, for `fit(loss=)`, with the metrics of `loss` and, in training, "distillation".

    Raises:
        TypeError: for a teacher that is not a function, or logits that are not one floating-point array.
        ValueError: for arguments out of range, logits of another shape than the teacher's, or inside of `weighted_sum`
            or `per_member`.

    Example:
        >>> loss = jaxcnn.distillation(jaxcnn.cross_entropy, lambda x: 0 * x, weight=1.0, temperature=1.0)
        >>> loss_fn = loss(jaxcnn.as_layer(jaxcnn.identity))
        >>> batch = {"image": jnp.log(jnp.array([[0.8, 0.2]])), "label": jnp.array([0])}
        >>> round(float(loss_fn({}, {}, batch, train=True)[0]), 4)  # (log(0.5 / 0.8) + log(0.5 / 0.2)) / 2
        0.2231

    Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.
    """
    check_loss_of_models("distillation", loss)
    if not is_function(teacher):
        raise TypeError(
            "distillation: teacher must be a function images -> logits, such as lambda x: net.apply(params, state, x, "
            f"train=False)[0], got {short_repr(teacher)}"
        )
    weight = check_number("distillation", "weight", weight, 0, 1, closed=True)
    temperature = check_positive("distillation", "temperature", temperature)

    def distilled(model: Layer) -> LossFn:
        if model is _OUTPUT:
            raise ValueError(
                "distillation inside weighted_sum or per_member: the teacher would get the model's output; use "
                "distillation(weighted_sum(..), teacher)"
            )
        model = as_layer(model)
        labels_loss = loss(_OUTPUT)

        def loss_fn(params, state, batch, *, train, key=None):
            image, example_weight = inputs(batch)
            output, state = model.apply(params, state, image, train=train, key=key)
            value, (_, metrics) = labels_loss({}, {}, batch | {"image": output}, train=train)
            if not train:
                return value, (state, metrics)
            main = output[0] if isinstance(output, tuple) else output
            check_output("distillation: the output of the model", main)
            logits = masked(at_least_float32(main), example_weight)
            target = teacher(image)
            check_output("distillation: the output of the teacher", target)
            target = jax.lax.stop_gradient(target).astype(logits.dtype)
            if target.shape != logits.shape:
                raise ValueError(f"distillation: the teacher gives {target.shape}, the model {logits.shape}")
            log_q = jax.nn.log_softmax(masked(target, example_weight) / temperature)
            log_p, q = jax.nn.log_softmax(logits / temperature), jnp.exp(log_q)
            divergence = (times_log(q, log_q) - times_log(q, log_p)).sum(-1)
            matching = temperature**2 * weighted_mean(divergence, example_weight)
            value = (1 - weight) * value + weight * matching
            return value, (state, metrics | {"loss": value, "distillation": matching})

        with_counted(loss_fn, functools.partial(counted_fractions, labels_loss))
        return with_check(loss_fn, _check_parts(model, [labels_loss]))

    return distilled


def per_member(loss: Loss) -> Loss:
    """model -> LossFn: trains each member of an `ensemble` with its own loss.

    training: loss = sum_i loss(f_i),  evaluation: loss(combined output)

    The loss is a sum, so that each member gets the gradient that it would get alone. With the same batches, optimizers
    that update each value separately, such as SGD and Adam, train the members as in n separate runs. All members see
    the same batches.

    Members also differ by their training examples if the batch has an entry "member_weight" (N, n), the weight of each
    example for each member. Draw it once per data set: bootstrap resampling is
    `np.random.default_rng(0).multinomial(N, np.full(N, 1 / N), n).T`. Batch norm uses all examples of the batch.

    Args:
        loss: model -> LossFn, such as `cross_entropy`.

    Returns:
        a loss, model -> LossFn, for `fit(loss=)`. In training, its metrics are means over the members.

    Raises:
        ValueError: in training, for a model whose output is not (n, N, ..), or a "member_weight" of another shape, or
            that is negative or not finite.

    Example:
        >>> model = jaxcnn.ensemble(jaxcnn.dense(3), 5)
        >>> batch = {"image": jnp.ones((2, 4)), "label": jnp.array([0, 2])}
        >>> params, state = model.init(jax.random.key(0), batch["image"])
        >>> loss, (_, metrics) = jaxcnn.per_member(jaxcnn.cross_entropy)(model)(params, state, batch, train=True)
        >>> round(float(loss / metrics["loss"]), 4)
        5.0

    Source: Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty estimation using deep
    ensembles", 2017; Breiman, "Bagging predictors", 1996 (bootstrap).
    """

    check_loss_of_models("per_member", loss)

    def ensemble_loss(model: Layer) -> LossFn:
        model = as_layer(model)
        part = loss(_OUTPUT)

        def loss_fn(params, state, batch, *, train, key=None):
            image, weight = inputs(batch)
            output, state = model.apply(params, state, image, train=train, key=key)
            if not train:
                value, (_, metrics) = part({}, {}, batch | {"image": output}, train=False)
                return value, (state, metrics)

            def member_loss(output, weight):
                weighted = {} if weight is None else {"weight": weight}
                value, (_, metrics) = part({}, {}, batch | weighted | {"image": output}, train=True)
                return value, metrics

            weights = _member_weights(batch, weight, _member_count(output, len(jax.tree.leaves(image)[0])))
            values, metrics = jax.vmap(member_loss)(output, weights)
            return values.sum(), (state, jax.tree.map(lambda values: values.mean(0), metrics))

        check_part = _check_parts(model, [part])

        def check(name, params, state, data):
            check_part(name, params, state, data)
            if "member_weight" in data:
                weight, image = data["member_weight"], image_spec(data["image"])
                apply = lambda params, state, x, key: model.apply(params, state, x, train=True, key=key)[0]
                n = _member_count(jax.eval_shape(apply, params, state, image, key_spec()), 1)
                _check_member_shape(f"{name}: ", np.shape(weight), len(jax.tree.leaves(data["image"])[0]), n)
                check_weights(f"{name}: member_weight", weight)

        with_counted(loss_fn, functools.partial(counted_fractions, part))
        return with_check(loss_fn, check)

    return ensemble_loss


def _counted(parts: list[LossFn], batch: Batch) -> dict[str, jax.Array]:
    """`counted_fractions` of a weighted sum: of each metric, the smallest of its terms."""
    fractions: dict[str, jax.Array] = {}
    for part in parts:
        for name, fraction in counted_fractions(part, batch).items():
            fractions[name] = jnp.minimum(fraction, fractions.get(name, 1.0))
    return fractions


def _member_count(output: Any, count: int) -> int:
    """The number n of members of an ensemble whose output in training is (n, N, ..) for N = `count` examples."""
    shapes = [np.shape(y) for y in jax.tree.leaves(output)]
    if any(shape[1:2] != (count,) for shape in shapes):
        raise ValueError(
            "per_member needs an ensemble, whose output in training is (n, N, ..): use ensemble(net, n); this model "
            f"gives {', '.join(map(str, shapes))} for N = {count}"
        )
    return shapes[0][0]


def _member_weights(batch: dict[str, Any], weight: jax.Array | None, n: int) -> jax.Array | None:
    """(n, N): the weights of the examples for each member; None if all are 1."""
    count = len(jax.tree.leaves(batch["image"])[0])
    if "member_weight" not in batch:
        return None if weight is None else jnp.broadcast_to(weight, (n, count))
    weights = batch_weights(batch, "member_weight")
    _check_member_shape("", weights.shape, count, n)
    return weights.T if weight is None else weights.T * weight[None]


def _check_member_shape(where: str, shape: tuple[int, ...], count: int, n: int) -> None:
    if shape != (count, n):
        raise ValueError(
            f'{where}"member_weight" must have shape ({count}, {n}), a weight per example and member, got {shape}'
        )


def _check_parts(model: Layer, parts: list[LossFn]) -> Callable[..., None]:
    """A check of data that gives each part the shape of the model's output."""
    output_of = output_shape(model)

    def check(name, params, state, data):
        outputs = {"image": output_of(params, state, data["image"])}
        for part in parts:
            check_for_loss(name, part, {}, {}, data | outputs)

    return check


_OUTPUT = Layer(lambda key, x: ({}, {}), lambda params, state, x, *, train, key=None: (x, state))

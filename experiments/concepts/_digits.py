"""The digits of the package and training functions, shared by the concepts that train."""

import contextlib
import io
import tempfile

import jax
import numpy as np
import optax

from jaxcnn import cross_entropy, data, train


def digits(split):
    """Return images (N, 28, 28, 1) in [0, 1] and their labels."""
    dataset = data.load("mnist_small", split)
    return dataset.images.astype(np.float32) / 255, dataset.labels


def batch_of_digits(split, count=None):
    """Return the first `count` digits, or all of them, as a batch."""
    images, labels = digits(split)
    return {"image": images[:count], "label": labels[:count]}


def trained(model, *, epochs=2, batch_size=64, learning_rate=3e-3, seed=0):
    """Train a model on the digits. Return its params and state, and its initial params."""
    images, labels = digits("train")
    steps = len(images) // batch_size
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, epochs * steps))
    train_state = train.TrainState.create(model, optimizer, jax.random.key(seed), images[:1])
    start = jax.tree.map(np.array, train_state.params)
    step = train.make_step(cross_entropy(model), optimizer)
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        for at in rng.permutation(len(images))[: steps * batch_size].reshape(steps, batch_size):
            train_state, _ = step(train_state, {"image": images[at], "label": labels[at]})
    return train_state.params, train_state.state, start


def fitted(model, train_data, config, eval_data=None):
    """Train a model by `train.fit`, which prints nothing and keeps no files. Return its `FitResult`."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        run = train.Run("concept", {}, folder=folder)
        return train.fit(model, train_data, eval_data=eval_data, config=config, run=run)

"""DCGAN: a generator learns to draw digits that a discriminator cannot tell from real ones.

    python -m experiments.dcgan       Frechet distance 18, against 1.5 of training digits and 330 before training;
                                      1 minute on 2 cores

Shows a training loop with two networks and two optimizers. Samples are written to the run's folder as samples.png.
A LeNet-5 that was trained on digits judges them: the Frechet distance compares mean and covariance of its features
between samples and test digits (Heusel et al., 2017, with LeNet instead of Inception). The distance between training
and test digits is the floor; the untrained generator shows the scale. A generator that draws all classes equally often
has an entropy of log2(10) = 3.32 bits. Needs pip install '.[train,plot]'.

Source: Radford, Metz and Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks", 2016.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._settings import require_gray
from experiments.concepts._figure import load_matplotlib
from jaxcnn import batch_norm, conv, conv_transpose, data, dense, explain, flatten, jit, models, serial, train

CONFIG = {
    "data": {"name": "mnist_small", "root": ""},
    "model": {"noise": 32, "width": 16},  # noise: dimensions of the generator's input
    "train": {"seed": 0, "epochs": 15, "batch_size": 64, "optimizer": {"learning_rate": 1e-3, "b1": 0.5}},
    "judge": {"epochs": 4},
    "runs": "runs",
}
LIMITS = {
    "model.noise": (1, 10**4),
    "model.width": (1, 10**4),
    "train.seed": (0, 2**32),
    "train.epochs": (1, 10**6),
    "train.optimizer.learning_rate": (0, math.inf),
    "train.optimizer.b1": (0, 1),
    "judge.epochs": (1, 10**6),
}
SAMPLES = 2000


def generator(width):
    """(N, noise) -> (N, 28, 28, 1), from -1 to 1."""
    return serial(
        dense=dense(7 * 7 * 2 * width, bias=False),
        reshape=lambda x: x.reshape(-1, 7, 7, 2 * width),
        norm1=batch_norm(),
        relu1=jax.nn.relu,
        up1=conv_transpose(width, 4, stride=2, bias=False),  # 14 x 14
        norm2=batch_norm(),
        relu2=jax.nn.relu,
        up2=conv_transpose(1, 4, stride=2),  # 28 x 28
        tanh=jnp.tanh,
    )


def discriminator(width):
    """(N, 28, 28, 1) -> (N, 1): the logit of the probability that an image is real."""
    leaky_relu = functools.partial(jax.nn.leaky_relu, negative_slope=0.2)
    return serial(
        down1=conv(width, 4, stride=2, padding=1),  # 14 x 14
        relu1=leaky_relu,
        down2=conv(2 * width, 4, stride=2, padding=1, bias=False),  # 7 x 7
        norm2=batch_norm(),
        relu2=leaky_relu,
        flatten=flatten,
        head=dense(1),
    )


class Player(NamedTuple):
    """A network in training: its parameters, the statistics of its batch norm, and the state of its optimizer."""

    params: Any
    state: Any
    opt_state: Any


def make_step(generator, discriminator, optimizer):
    """Return the compiled step: (players, images, noise) -> (players, losses), with a pair for both networks."""

    def generator_loss(params, g, d, noise):
        fake, state = generator.apply(params, g.state, noise, train=True)
        logits, _ = discriminator.apply(d.params, d.state, fake, train=True)
        return jax.nn.softplus(-logits).mean(), (state, fake)  # -log sigmoid(logits): "real" is the generator's aim

    def discriminator_loss(params, d, real, fake):
        real_logits, state = discriminator.apply(params, d.state, real, train=True)
        fake_logits, state = discriminator.apply(params, state, fake, train=True)
        return (jax.nn.softplus(-real_logits) + jax.nn.softplus(fake_logits)).mean(), state

    def update(player, gradient, state):
        change, opt_state = optimizer.update(gradient, player.opt_state)
        return Player(optax.apply_updates(player.params, change), state, opt_state)

    def step(players, images, noise):
        g, d = players
        (g_loss, (g_state, fake)), g_gradient = jax.value_and_grad(generator_loss, has_aux=True)(g.params, g, d, noise)
        real = images.astype(jnp.float32) / 127.5 - 1
        d_gradient_fn = jax.value_and_grad(discriminator_loss, has_aux=True)
        (d_loss, d_state), d_gradient = d_gradient_fn(d.params, d, real, fake)
        return (update(g, g_gradient, g_state), update(d, d_gradient, d_state)), (g_loss, d_loss)

    return jit(step, donate_argnums=0)


def frechet_distance(x, y):
    """|mean x - mean y|^2 + trace(Cx + Cy - 2 (Cx Cy)^(1/2)) of features (N, D), with their covariances Cx and Cy."""
    cx, cy = np.cov(x.T), np.cov(y.T)
    values, vectors = np.linalg.eigh(cx)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cy @ root), 0)).sum()  # of Cx^(1/2) Cy Cx^(1/2)
    return float(np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(cx) + np.trace(cy) - 2 * shared)


def entropy(labels):
    """Entropy in bits of the frequencies of 10 classes."""
    p = np.bincount(labels, minlength=10) / len(labels)
    return float(-(p * np.log2(np.where(p > 0, p, 1))).sum())


def train_judge(digits, test_digits, config, run):
    """Return images uint8 -> features (N, 84) and probabilities (N, 10) of a LeNet-5 trained on the digits."""
    lenet = models.lenet5(classes=None)
    net = serial(lenet=lenet, head=dense(10))
    settings = {"seed": config["train"]["seed"], "checkpoint": {"keep": 0}, **config["judge"]}
    part = train.Run("judge", config, folder=run.folder / "judge")
    fitted = train.fit(net, digits, eval_data=test_digits, config=settings, run=part)

    @jit
    def features(images):
        return lenet.apply(fitted.params["lenet"], {}, images / np.float32(255), train=False)[0]

    head = fitted.params["head"]
    return features, lambda x: jax.nn.softmax(x @ head["kernel"] + head["bias"])


def main(config):
    load_matplotlib()  # fail before training
    digits, test_digits = (
        data.load(config["data"]["name"], split, root=config["data"]["root"] or None) for split in ("train", "test")
    )
    require_gray(config, digits)
    train.require(config, LIMITS | {"train.batch_size": (1, len(digits.images) + 1)})
    settings, noise_size, width = config["train"], config["model"]["noise"], config["model"]["width"]
    run = train.Run("dcgan", config, root=config["runs"])
    features, probabilities = train_judge(digits, test_digits, config, run)

    networks = generator(width), discriminator(width)
    optimizer = optax.adam(**settings["optimizer"])
    key = jax.random.key(settings["seed"])
    inputs = jnp.zeros((1, noise_size)), jnp.zeros((1, 28, 28, 1))
    players = []
    for i, (network, x) in enumerate(zip(networks, inputs, strict=True)):
        params, state = network.init(jax.random.fold_in(key, i), x)
        players.append(Player(params, state, optimizer.init(params)))
    step = make_step(*networks, optimizer)
    draw = lambda i, count: jax.random.normal(jax.random.fold_in(key, i), (count, noise_size))
    sampled = jit(lambda g, noise: networks[0].apply(g.params, g.state, noise, train=False)[0])

    def sample():
        images = sampled(players[0], draw(2, SAMPLES))
        return np.round(127.5 * (np.asarray(images) + 1)).astype(np.uint8)

    def write(images, name):
        explain.plot_images(images[:32]).savefig(run.folder / f"{name}.png")

    reference = features(test_digits.images)
    distance = lambda images: frechet_distance(np.asarray(features(images)), np.asarray(reference))
    images = sample()
    write(images, "untrained")
    result = {"distance": {"training digits": distance(digits.images[:SAMPLES]), "untrained": distance(images)}}
    batches = data.source(digits, settings["batch_size"])
    steps = settings["epochs"] * batches.steps
    for i, batch in zip(range(1, steps + 1), batches.batches(0, key), strict=False):
        players, losses = step(tuple(players), batch["image"], draw(2 + i, settings["batch_size"]))
        if i % batches.steps == 0:
            g_loss, d_loss = map(float, losses)
            epoch, value = i // batches.steps, distance(sample())
            run.log(
                f"epoch {epoch}: loss of generator {g_loss:.3f}, of discriminator {d_loss:.3f}; distance {value:.1f}",
                epoch=epoch,
                train={"loss": g_loss, "discriminator": d_loss},
                distance=value,
            )
    images = sample()
    predicted = np.asarray(probabilities(features(images)))
    result["distance"]["samples"] = distance(images)
    result["entropy"] = entropy(predicted.argmax(1))
    result["confidence"] = float(predicted.max(1).mean())
    write(images, "samples")
    for name, value in result["distance"].items():
        print(f"Frechet distance of {name:16} {value:7.2f}")
    print(f"classes of the samples: entropy {result['entropy']:.2f} bits, mean confidence {result['confidence']:.1%}")
    print(f"see {run.folder}/samples.png")
    return result


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)

"""A custom training loop over the events of `train.loop`, with an evaluation and a checkpoint after each epoch.

    python -m experiments.write_your_own_loop                97 % of the digits in the package, 8 s

If interrupted, it resumes from the last finished epoch when started again.
"""

import jax
import jax.numpy as jnp
import optax

from jaxcnn import cross_entropy, data, models, train
from jaxcnn.train import checkpoint

CONFIG = {
    "train": {"seed": 0, "epochs": 5, "batch_size": 64, "optimizer": {"learning_rate": 2e-3}},
    "folder": "runs/write_your_own_loop",
}


def main(config):
    settings, folder = config["train"], config["folder"]
    limits = {"seed": (0, 2**32), "epochs": (1, 10**9), "batch_size": (1, 8001), "optimizer.learning_rate": (0, 1e3)}
    train.require(settings, limits)
    digits, test = (data.load("mnist_small", split) for split in ("train", "test"))
    source = data.source(digits, settings["batch_size"])
    model, optimizer = models.lenet5(), optax.adam(settings["optimizer"]["learning_rate"])
    loss_fn = cross_entropy(model)
    step = train.make_step(loss_fn, optimizer)
    state = train.TrainState.create(model, optimizer, jax.random.key(settings["seed"]), jnp.zeros((1, 28, 28, 1)))
    for event in train.loop(step, state, source, epochs=settings["epochs"]):
        if event.kind == "start" and checkpoint.steps(folder):
            event.step, event.carry, _ = checkpoint.restore(folder, event.carry, config=config)
        if event.kind == "epoch":
            result = train.evaluate(loss_fn, event.params, event.state, test)
            loss, accuracy = result["loss"], result["accuracy"]
            print(f"epoch {event.epoch}: test loss {loss:.4f}, accuracy {accuracy:.2%}", flush=True)
            checkpoint.save(folder, event.step, event.carry, config=config, metric=accuracy)
    return train.evaluate(loss_fn, event.params, event.state, test)


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)

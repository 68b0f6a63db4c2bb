"""The loop that `train.fit` runs, written by hand: a step, an evaluation, a checkpoint.

    python -m experiments.write_your_own_loop                97 % of the digits in the package, 10 s

Stopped at any moment, it goes on from the last epoch when it is started again.
"""

import jax
import numpy as np
import optax

from jaxcnn import cross_entropy, data, models, train
from jaxcnn.train import checkpoint

CONFIG = {
    "train": {"seed": 0, "epochs": 5, "batch_size": 64, "optimizer": {"learning_rate": 2e-3}},
    "folder": "runs/write_your_own_loop",
}


def main(config):
    digits, unseen = (data.load("mnist_small", split) for split in ("train", "test"))
    test = {"image": unseen.images / np.float32(255), "label": unseen.labels}
    settings = config["train"]
    model, optimizer = models.lenet5(), optax.adam(settings["optimizer"]["learning_rate"])
    loss_fn = cross_entropy(model)
    step = train.make_step(loss_fn, optimizer)
    state = train.TrainState.create(model, optimizer, jax.random.key(settings["seed"]), test["image"][:1])
    first = 0
    if checkpoint.steps(config["folder"]):
        first, state, _ = checkpoint.restore(config["folder"], state, config=config)
    for epoch in range(first, settings["epochs"]):
        order = np.random.default_rng((settings["seed"], epoch)).permutation(len(digits.images))
        steps = len(order) // settings["batch_size"]
        for at in order[: steps * settings["batch_size"]].reshape(steps, -1):
            state, _ = step(state, {"image": digits.images[at] / np.float32(255), "label": digits.labels[at]})
        result = train.evaluate(loss_fn, state.params, state.state, test)
        print(f"epoch {epoch + 1}: test loss {result['loss']:.4f}, accuracy {result['accuracy']:.2%}", flush=True)
        checkpoint.save(config["folder"], epoch + 1, state, config=config, metric=result["accuracy"])
    return train.evaluate(loss_fn, state.params, state.state, test)


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)

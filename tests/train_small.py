"""A small training as a command, which the tests stop in all ways; at its end it prints a hash of all that came out."""

import hashlib
import json

import jax
import numpy as np

from jaxcnn import batch_norm, conv, data, dense, dropout, flatten, max_pool, serial, train

CONFIG = {
    "images": 256,
    "poison": -1,  # an image of NaN
    "fit": train.FIT
    | {
        "epochs": 4,
        "batch_size": 32,
        "augment": [["translate", 2], ["alternating_flip"]],
        "ema": 0.9,
        "label_smoothing": 0.1,
        "checkpoint": {"every": 3, "keep": 2},
    },
    "runs": "runs",
    "folder": "",
}


def model():
    return serial(
        conv(4, stride=2, bias=False),
        batch_norm(),
        jax.nn.relu,
        max_pool(2),
        flatten,
        dense(16),
        jax.nn.relu,
        dropout(0.2),
        dense(10),
    )


def digest(fitted):
    """Of parameters, statistics, the optimizer, keys and the log but for its times."""
    hashed = hashlib.sha256()
    for leaf in jax.tree.leaves(fitted.train_state):
        leaf = jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        hashed.update(np.asarray(leaf).tobytes())
    for record in fitted.history:
        kept = {name: value for name, value in record.items() if name not in ("seconds", "images_per_second")}
        hashed.update(json.dumps(kept).encode())
    return hashed.hexdigest()


def main(config):
    digits = data.load("mnist_small", "test")
    images = digits.images[: config["images"]]
    if config["poison"] >= 0:
        images = images / np.float32(255)
        images[config["poison"]] = np.nan
    train_data = {"image": images, "label": digits.labels[: config["images"]]}
    eval_data = {"image": digits.images[-100:], "label": digits.labels[-100:]}
    run = train.Run("train_small", config, root=config["runs"], folder=config["folder"])
    fitted = train.fit(model(), train_data, eval_data=eval_data, config=config["fit"], run=run)
    print("digest", digest(fitted), flush=True)
    return fitted


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)

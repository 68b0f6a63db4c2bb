"""Three convolutions with batch norm on handwritten digits, with small random shifts and rotations.

    python -m experiments.mnist_cnn                          99.5 % of MNIST, 2 minutes on 2 cores
    python -m experiments.mnist_cnn data.name=mnist_small    the digits in the package, half a minute

To resume an interrupted run, pass its folder: folder=runs/mnist_cnn-...
"""

import jax

from experiments._settings import config_error
from jaxcnn import batch_norm, conv, data, dense, dropout, flatten, max_pool, serial, train

CONFIG = {
    "data": {"name": "mnist", "root": ""},
    "model": {"width": 24, "dropout_rate": 0.4},
    "train": train.FIT
    | {
        "epochs": 12,
        "optimizer": {"name": "adamw", "learning_rate": 3e-3},
        "schedule": {"name": "cosine", "warmup": 0.1, "end": 0.0},
        "weight_decay": {"rate": 0.01, "where": "(.*/)?kernel"},
        "augment": [["rotate", 10], ["translate", 2]],
        "ema": 0.99,
    },
    "runs": "runs",
    "folder": "",
}


def block(width):
    return serial(conv=conv(width, bias=False), norm=batch_norm(), relu=jax.nn.relu, pool=max_pool(2))


def network(digits, width, dropout_rate):
    return serial(
        normalize=data.normalize(digits),
        block1=block(width),  # 14 x 14
        block2=block(2 * width),  # 7 x 7
        block3=block(4 * width),  # 3 x 3
        flatten=flatten,
        drop=dropout(dropout_rate),
        head=dense(10),
    )


def main(config, name="mnist_cnn", network=network):
    train.resolve(config["train"])
    digits, test_digits = (
        data.load(config["data"]["name"], split, root=config["data"]["root"] or None) for split in ("train", "test")
    )
    with config_error("model"):
        model = network(digits, **config["model"])
    run = train.Run(name, config, root=config["runs"], folder=config["folder"])
    fitted = train.fit(model, digits, eval_data=test_digits, config=config["train"], run=run)
    print(fitted.outcome)
    return fitted.history[-1]


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)

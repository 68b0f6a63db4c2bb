"""Train a classifier on a folder with one folder of images per class: photos/cat/1.jpg, photos/dog/1.jpg, ...

    python -m experiments.image_folder data.path=photos      your own images; a tenth of them is the test set
    python -m experiments.image_folder                       generated images of digits; 99 %, 15 s

Needs pip install '.[train,images]'. With data.stream=true, images are read during training, which needs '.[grain]'. The
test then uses the whole folder.
"""

import pathlib

import jax
import numpy as np

from experiments._settings import require_default, require_one_of
from jaxcnn import batch_norm, conv, data, dense, global_avg_pool, serial, train

CONFIG = {
    "data": {"path": "", "height": 32, "width": 32, "on_bad_image": "raise", "test_fraction": 0.1, "stream": False},
    "model": {"width": 24},
    "train": train.FIT
    | {
        "epochs": 12,
        "batch_size": 64,
        "optimizer": {"name": "adamw", "learning_rate": 3e-3},
        "weight_decay": {"rate": 0.01, "where": "(.*/)?kernel"},
        "augment": [["random_crop", 2]],
    },
    "runs": "runs",
    "folder": "",
}


def network(images, width):
    """Three stages of two convolutions with batch norm, the first with stride 2, then global average pooling."""
    layers = []
    for features in (width, 2 * width, 4 * width):
        layers += [conv(features, stride=2, padding=1, bias=False), batch_norm(), jax.nn.relu]
        layers += [conv(features, bias=False), batch_norm(), jax.nn.relu]
    return serial(data.normalize(images), *layers, global_avg_pool, dense(len(images.classes)))


def digits_as_files(folder, count=2000):
    """Write digits as PNG files, one folder per class. Return the folder."""
    from PIL import Image

    digits = data.load("mnist_small", "train")
    for i, (image, label) in enumerate(zip(digits.images[:count, ..., 0], digits.labels, strict=False)):
        path = folder / digits.classes[label] / f"{i:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            Image.fromarray(image).save(path)
    return folder


def split(images, test_fraction):
    """Return training and test images, shuffled with a fixed seed."""
    order = np.random.default_rng(0).permutation(len(images.images))
    test, training = np.split(order, [round(test_fraction * len(order))])
    return (data.Dataset(images.images[at], images.labels[at], images.classes) for at in (training, test))


def main(config):
    train.resolve(config["train"])
    data_config = config["data"]
    train.require(config, {"data.height": (8, 10**5), "data.width": (8, 10**5), "data.test_fraction": (0, 1)})
    require_one_of(config, "data.on_bad_image", ("raise", "skip"))
    if data_config["stream"]:
        unused = ("data.on_bad_image", "data.test_fraction")
        require_default(config, CONFIG, unused, "with data.stream=true, which trains and tests on all images")
    path = data_config["path"] or digits_as_files(pathlib.Path(config["runs"], "digits_as_files"))
    size = (data_config["height"], data_config["width"])
    if data_config["stream"]:
        batch_size = config["train"]["batch_size"]
        train_data = data.image_stream(path, size, batch_size=batch_size, seed=config["train"]["seed"])
        test_data = data.image_stream(path, size, batch_size=batch_size, shuffle=False)
        first = next(train_data.batches(0))  # mean and std of one batch are accurate enough
        images = data.Dataset(first["image"], first["label"], train_data.classes)
    else:
        images = data.image_folder(path, size, on_bad_image=data_config["on_bad_image"])
        print(f"{len(images.images):,} images of {len(images.classes)} classes: {', '.join(images.classes)}")
        train_data, test_data = split(images, data_config["test_fraction"])
    model = network(images, config["model"]["width"])
    run = train.Run("image_folder", config, root=config["runs"], folder=config["folder"])
    fitted = train.fit(model, train_data, eval_data=test_data, config=config["train"], run=run)
    print(fitted.outcome)
    return fitted.history[-1]


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)

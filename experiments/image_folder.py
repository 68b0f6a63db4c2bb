"""A classifier from a folder of images with a folder for each class: photos/cat/1.jpg, photos/dog/1.jpg, ...

    python -m experiments.image_folder data.path=photos      your own images; a tenth of them is kept for the test
    python -m experiments.image_folder                       images of digits, made for this purpose; 99 %, 15 s

Needs pip install '.[train,images]'. With data.stream=true the images are read while the network trains, for which
'.[grain]' is needed, and the test is on the whole folder.
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
    """Three times convolution, norm and stride; then the mean over what is left of the image."""
    layers = []
    for features in (width, 2 * width, 4 * width):
        layers += [conv(features, stride=2, padding=1, bias=False), batch_norm(), jax.nn.relu]
        layers += [conv(features, bias=False), batch_norm(), jax.nn.relu]
    return serial(data.normalize(images), *layers, global_avg_pool, dense(len(images.classes)))


def digits_as_files(folder, count=2000):
    """A folder of PNG files to try it on."""
    from PIL import Image

    digits = data.load("mnist_small", "train")
    for i, (image, label) in enumerate(zip(digits.images[:count, ..., 0], digits.labels, strict=False)):
        path = folder / digits.classes[label] / f"{i:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            Image.fromarray(image).save(path)
    return folder


def split(images, share):
    """Training and test images, shuffled the same way each time."""
    order = np.random.default_rng(0).permutation(len(images.images))
    test, rest = np.split(order, [round(share * len(order))])
    return (data.Dataset(images.images[at], images.labels[at], images.classes) for at in (rest, test))


def main(config):
    train.resolve(config["train"])
    own = config["data"]
    train.require(config, {"data.height": (8, 10**5), "data.width": (8, 10**5), "data.test_fraction": (0, 1)})
    require_one_of(config, "data.on_bad_image", ("raise", "skip"))
    if own["stream"]:
        unused = ("data.on_bad_image", "data.test_fraction")
        require_default(config, CONFIG, unused, "with data.stream=true, which reads and tests on all images")
    path = own["path"] or digits_as_files(pathlib.Path(config["runs"], "digits_as_files"))
    size = (own["height"], own["width"])
    if own["stream"]:
        batch_size = config["train"]["batch_size"]
        seen = data.image_stream(path, size, batch_size=batch_size, seed=config["train"]["seed"])
        unseen = data.image_stream(path, size, batch_size=batch_size, shuffle=False)
        first = next(seen.batches(0))  # the mean and std of one batch will do
        images = data.Dataset(first["image"], first["label"], seen.classes)
    else:
        images = data.image_folder(path, size, on_bad_image=own["on_bad_image"])
        print(f"{len(images.images):,} images of {len(images.classes)} classes: {', '.join(images.classes)}")
        seen, unseen = split(images, own["test_fraction"])
    model = network(images, config["model"]["width"])
    run = train.Run("image_folder", config, root=config["runs"], folder=config["folder"])
    fitted = train.fit(model, seen, eval_data=unseen, config=config["train"], run=run)
    print(fitted.outcome)
    return fitted.history[-1]


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)

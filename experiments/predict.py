"""What is in an image: a file of weights and images in, the five likeliest classes out.

    python -m experiments.predict weights=resnet50.safetensors model=resnet50 images=photos class_names=imagenet.txt
    python -m experiments.predict                            digits, by a LeNet that is trained for it first; 10 s

Weights are a safetensors file with the names of torchvision, timm or `jaxcnn.weights.save`; images a file or all of a
folder, where those that cannot be read are reported and left out; names a text file with a class a line. Mean and
std are those that models of ImageNet are trained with; torchvision's GoogLeNet and Inception v3 have 0.5 for all.
timm's MobileNet v3 and EfficientNet b5 to b7 need eps=1e-5.
Needs pip install '.[train,images,weights]'.
"""

import functools
import pathlib
import sys

import jax
import numpy as np

from experiments._settings import require_one_of, require_weights
from jaxcnn import batch_norm, data, jit, models, serial, train, weights

CONFIG = {
    "model": "",  # that the weights are for
    "classes": 1000,
    "eps": 0.0,  # of its batch norms; 0 for the model's own
    "weights": "",
    "images": "",
    "on_bad_image": "skip",  # or "raise"
    "class_names": "",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "top": 5,
    "runs": "runs",
}
BAR = 30  # characters of a bar for 100 %
OF_WEIGHTS = ("classes", "eps", "on_bad_image", "class_names")
MARGIN = 0.875  # images are scaled to cover a square, of which this part around the middle is seen


def demonstration(config):
    """Settings for digits that a LeNet has not seen, and files for them."""
    from PIL import Image

    print("no weights are given; a LeNet learns digits for them")
    digits, unseen = (data.load("mnist_small", split) for split in ("train", "test"))
    run = train.Run("predict", config, root=config["runs"])
    fitted = train.fit(models.lenet5(), digits, config={"epochs": 3, "checkpoint": {"keep": 0}}, run=run)
    weights.save(run.folder / "lenet5.safetensors", fitted.params, fitted.state, model="lenet5")
    (run.folder / "names.txt").write_text("\n".join(digits.classes))
    (run.folder / "images").mkdir()
    for i in range(3):
        image = np.pad(unseen.images[i, ..., 0], 2)  # whose margin is not seen
        Image.fromarray(image).save(run.folder / "images" / f"{digits.classes[unseen.labels[i]]}_{i}.png")
    return config | {
        "model": "lenet5",
        "classes": 10,
        "weights": str(run.folder / "lenet5.safetensors"),
        "images": str(run.folder / "images"),
        "class_names": str(run.folder / "names.txt"),
        "mean": [0.0],
        "std": [1.0],
    }


def files_of(path):
    """The file, or those of a folder that are the user's own."""
    path = pathlib.Path(path)
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.is_file() and not data.is_hidden(file))
    if not files:
        raise data.DataError(f"{path}: expected images, found none")
    return files


def read(path, shape, on_bad_image):
    """The files' names and their images, the middle of each, from 0 to 1."""
    whole = round(shape[0] / MARGIN)
    margin = (whole - shape[0]) // 2
    seen = slice(margin, margin + shape[0])
    images = {}
    for file in files_of(path):
        try:
            images[file.name] = data.read_image(file, (whole, whole), channels=shape[2])[seen, seen]
        except data.DataError as error:
            if on_bad_image == "raise":
                raise
            print(f"left out: {error}", file=sys.stderr)
    if not images:
        raise data.DataError(f"{path}: none of its images can be read")
    return list(images), np.stack(list(images.values())) / np.float32(255)


def main(config):
    train.require(config, {"classes": (1, 10**6), "top": (1, 10**6), "eps": (0, 1)})
    require_one_of(config, "on_bad_image", ("raise", "skip"))
    require_weights(config, CONFIG, "images", OF_WEIGHTS)
    if not config["weights"]:
        config = demonstration(config)
    options = {"classes": config["classes"]}
    if config["eps"]:
        options["norm"] = functools.partial(batch_norm, eps=config["eps"])
    params, state = weights.load(config["weights"], config["model"], **options)
    build = models.MODELS[config["model"]]
    names, images = read(config["images"], build.input_shape, config["on_bad_image"])
    classes = [f"class {i}" for i in range(config["classes"])]
    if config["class_names"]:
        try:
            classes = pathlib.Path(config["class_names"]).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            raise data.DataError(f"{config['class_names']}: cannot be read: {error}") from error
        if len(classes) != config["classes"]:
            raise data.DataError(f"{config['class_names']}: {len(classes)} lines, for {config['classes']} classes")
    model = serial(normalize=data.normalize(config["mean"], config["std"]), net=build(**options))
    apply = jit(model.apply, static_argnames="train")
    result = {}
    for name, image in zip(names, images, strict=True):
        logits, _ = apply({"net": params}, {"net": state} if state else {}, image[None], train=False)
        shares = np.asarray(jax.nn.softmax(logits[0]))
        best = np.argsort(-shares)[: config["top"]]
        print(f"\n{name}")
        for i in best:
            print(f"  {shares[i]:6.1%}  {'#' * round(BAR * float(shares[i])):{BAR}}  {classes[i]}")
        result[name] = {classes[i]: float(shares[i]) for i in best}
    return result


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)

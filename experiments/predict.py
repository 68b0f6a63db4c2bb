"""Classify images with a trained network: prints the five most likely classes of each image.

    python -m experiments.predict run=runs/image_folder-.. images=photos
    python -m experiments.predict weights=resnet50.safetensors model=resnet50 images=photos class_names=imagenet.txt
    python -m experiments.predict                            trains a LeNet on digits first; 10 s

`run` is the folder of a run of `experiments.image_folder`; its program, class names and image size are used, and a
contact sheet of the images is written. `weights` is a safetensors file with parameter names of torchvision, timm or
`jaxcnn.weights.save`. `images` is a file, or a folder with images at any depth; unreadable files are reported and
skipped. `class_names` is a text file with one class per line. The default mean and std are those of ImageNet models;
torchvision's GoogLeNet and Inception v3 use 0.5 for all channels. timm's MobileNet v3 and EfficientNet b5 to b7 need
eps=1e-5.
Needs pip install '.[train,images,weights,export,plot]'.
"""

import pathlib
import sys
import warnings

import jax
import numpy as np

from experiments._model_settings import norm_options, require_weights
from experiments._program import Program, load_program
from experiments._settings import require_default, require_one_of
from jaxcnn import data, explain, jit, models, serial, train, weights

CONFIG = {
    "run": "",
    "model": "",  # name of the model of the weights
    "classes": 1000,
    "eps": 0.0,  # epsilon of the batch norms; 0 keeps the model's default
    "weights": "",
    "images": "",
    "on_bad_image": "skip",  # or "raise"
    "class_names": "",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "top": 5,
    "runs": "runs",
}
BAR = 30  # length in characters of a bar for 100 %
SHEET = 64  # maximum number of images on a contact sheet
WEIGHTS_KEYS = ("classes", "eps", "on_bad_image", "class_names")
RUN_KEYS = ("model", "classes", "eps", "weights", "class_names", "mean", "std")  # have no effect with a run
CENTER_FRACTION = 0.875  # images are resized to cover a square, then cropped to this fraction of its side


def demonstration(config):
    """Train a LeNet and write its weights and test images to files. Return the settings to use them."""
    from PIL import Image

    print("no weights given; training a LeNet on digits")
    digits, test_digits = (data.load("mnist_small", split) for split in ("train", "test"))
    run = train.Run("predict", config, root=config["runs"])
    fitted = train.fit(models.lenet5(), digits, config={"epochs": 3, "checkpoint": {"keep": 0}}, run=run)
    weights.save(run.folder / "lenet5.safetensors", fitted.params, fitted.state, model="lenet5")
    (run.folder / "names.txt").write_text("\n".join(digits.classes))
    (run.folder / "images").mkdir()
    for i in range(3):
        image = np.pad(test_digits.images[i, ..., 0], 2)  # the center crop removes this margin
        Image.fromarray(image).save(run.folder / "images" / f"{digits.classes[test_digits.labels[i]]}_{i}.png")
    return config | {
        "model": "lenet5",
        "classes": 10,
        "weights": str(run.folder / "lenet5.safetensors"),
        "images": str(run.folder / "images"),
        "class_names": str(run.folder / "names.txt"),
        "mean": [0.0],
        "std": [1.0],
    }


def image_files(path):
    """Return the file by name, or the files below a folder by relative path, without hidden and system files."""
    path = pathlib.Path(path)
    if not path.is_dir():
        return {path.name: path}
    files = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        if file.is_file() and not any(map(data.is_hidden, name.parts)):
            files[bytes(name).decode(errors="backslashreplace")] = file  # prints also if the name is not UTF-8
    if not files:
        raise data.DataError(f"{path}: expected images, found none")
    return files


def read_images(path, read, on_bad_image):
    """Yield (name, image) for a file, or for the files of a folder. `read` returns the array of an image file."""
    files, skipped = image_files(path), 0
    for name, file in files.items():
        try:
            image = read(file)
        except data.DataError as error:
            if on_bad_image == "raise":
                raise
            print(f"skipped: {error}", file=sys.stderr)
            skipped += 1
        else:
            yield name, image
    if skipped == len(files):
        raise data.DataError(f"{path}: contains no readable images")
    if skipped:
        print(f"skipped {skipped} of {len(files)} files", file=sys.stderr)


def center_crop_reader(shape):
    """A function from an image file to its center crop, with the center fraction of ImageNet evaluation."""
    full_side = round(shape[0] / CENTER_FRACTION)
    margin = (full_side - shape[0]) // 2
    center = slice(margin, margin + shape[0])
    return lambda file: data.read_image(file, (full_side, full_side), channels=shape[2])[center, center]


def show(name, top):
    """Print the most likely classes of an image with bars."""
    print(f"\n{name}")
    for entry in top:
        bar = "#" * round(BAR * entry["probability"])
        print(f"  {entry['probability']:6.1%}  {bar:{BAR}}  {entry['name']}")


def write_contact_sheet(path, images, tops):
    """Write a PNG file with the images and their most likely classes."""
    best = {name: tops[name][0] for name in images}
    titles = [f"{name[-16:]}\n{top['name']} {top['probability']:.0%}" for name, top in best.items()]
    figure = explain.plot_images(np.stack(list(images.values())), titles)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # names in other scripts
        figure.savefig(path)
    print(f"\ncontact sheet: {path}")


def program_of_weights(config):
    """The classifier with weights from a file."""
    options = {"classes": config["classes"]} | norm_options(config["model"], config["eps"])
    params, state = weights.load(config["weights"], config["model"], **options)
    build = models.MODELS[config["model"]]
    model = serial(normalize=data.normalize(config["mean"], config["std"]), net=build(**options))
    trees = {"net": params}, {"net": state} if state else {}
    probabilities = jit(lambda images: jax.nn.softmax(model.apply(*trees, images, train=False)[0]))
    *size, channels = build.input_shape
    return Program(lambda images: np.asarray(probabilities(images)), class_names(config), tuple(size), channels)


def class_names(config):
    """The names in the file config["class_names"], or numbers."""
    if not config["class_names"]:
        return [f"class {i}" for i in range(config["classes"])]
    try:
        classes = pathlib.Path(config["class_names"]).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise data.DataError(f"{config['class_names']}: cannot be read: {error}") from error
    if len(classes) != config["classes"]:
        raise data.DataError(
            f"{config['class_names']}: expected one line per class ({config['classes']}), got {len(classes)}"
        )
    return classes


def main(config):
    train.require(config, {"classes": (1, 10**6), "top": (1, 10**6), "eps": (0, 1)})
    require_one_of(config, "on_bad_image", ("raise", "skip"))
    if config["run"]:
        require_default(config, CONFIG, RUN_KEYS, "with run=FOLDER, which knows its network")
        if not config["images"]:
            raise train.ConfigError(f"run={config['run']} needs images=..")
        program = load_program(config["run"])
        read = program.read
    else:
        require_weights(config, CONFIG, "images", WEIGHTS_KEYS, "without run=FOLDER or weights=FILE")
        if not config["weights"]:
            config = demonstration(config)
        program = program_of_weights(config)
        read = center_crop_reader((*program.size, program.channels))
    tops, shown = {}, {}
    for name, image in read_images(config["images"], read, config["on_bad_image"]):
        tops[name] = program.top(program.predict(image[None])[0], config["top"])
        show(name, tops[name])
        if len(shown) < SHEET:
            shown[name] = image
    if config["run"]:
        write_contact_sheet(pathlib.Path(config["run"], "predictions.png"), shown, tops)
    return {name: {entry["name"]: entry["probability"] for entry in top} for name, top in tops.items()}


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)

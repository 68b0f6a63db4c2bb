"""Train a classifier on a folder with one folder of images per class: photos/cat/1.jpg, photos/dog/1.jpg, ...

    python -m experiments.image_folder data.path=photos      your own images; a tenth of each class is the test set
    python -m experiments.image_folder data.path=photos model=resnet18 weights=resnet18.a1_in1k export=onnx
    python -m experiments.image_folder                       generated images of digits; 99 %, 15 s

The second command fine-tunes pretrained weights, a name of `jaxcnn.weights.available` or a file: first only a new last
layer, for `frozen_epochs`, then all layers. For a file, mean, std and eps are as in `experiments.predict`. A run writes
`weights.safetensors`, `classes.txt` and the program `model.stablehlo` of the best epoch, which `experiments.predict`
and `experiments.serve` use; with train.report=true also `report.html`, with export=onnx also `model.onnx`.
Needs pip install '.[train,images,weights,export]'. With data.stream=true, images are read during training, which needs
'.[grain]'. The test then uses the whole folder.
"""

import functools
import inspect
import pathlib

import jax
import jax.numpy as jnp

from experiments._model_settings import norm_options, require_image_model, require_model_of, require_weights
from experiments._program import save_program
from experiments._settings import require_default, require_one_of
from jaxcnn import Layer, batch_norm, conv, data, dense, global_avg_pool, models, paths, serial, train, weights

CONFIG = {
    # height and width in pixels; 0 is the size that the model was designed for
    "data": {"path": "", "height": 0, "width": 0, "on_bad_image": "raise", "test_fraction": 0.1, "stream": False},
    "model": "",  # a classifier of `jaxcnn.models`; "" is a small network
    "weights": "",  # pretrained weights of the model: a file, or a name of `jaxcnn.weights.available`
    "eps": 0.0,  # epsilon of the model's batch norms; 0 keeps its default
    "mean": [0.485, 0.456, 0.406],  # mean and std of the images that the weights were trained on
    "std": [0.229, 0.224, 0.225],
    "frozen_epochs": 3,  # with weights: epochs that only train the new last layer
    "export": "stablehlo",  # or "onnx", which also writes model.onnx
    "train": train.FIT
    | {
        "epochs": 12,
        "batch_size": 64,
        "optimizer": {"name": "adamw", "learning_rate": 3e-3},
        "weight_decay": {"rate": 0.01, "where": "(.*/)?kernel"},
        "augment": [["random_crop", 2]],
        "restore_best": True,
    },
    "runs": "runs",
    "folder": "",
}
LIMITS = {
    "data.height": (0, 10**5),
    "data.width": (0, 10**5),
    "data.test_fraction": (1e-9, 1),
    "frozen_epochs": (0, 10**6),
    "eps": (0, 1),
}


def small_network(images, width=24):
    """Three stages of two convolutions with batch norm, the first with stride 2, then global average pooling."""
    layers = []
    for features in (width, 2 * width, 4 * width):
        layers += [conv(features, stride=2, padding=1, bias=False), batch_norm(), jax.nn.relu]
        layers += [conv(features, bias=False), batch_norm(), jax.nn.relu]
    return serial(*layers, global_avg_pool, dense(len(images.classes)))


def pretrained_network(config, classes):
    """Return a model with a new last layer, and its initial params and state."""
    name = config["model"]
    if not pathlib.Path(config["weights"]).exists():
        net = weights.pretrained(config["weights"], classes=classes)
        return net.model, (net.params, net.state)
    build, options = models.MODELS[name], norm_options(name, config["eps"])
    if "auxiliary" in inspect.signature(build).parameters:
        options["auxiliary"] = False  # the weights of the body have no auxiliary head
    body = weights.load(config["weights"], name, classes=None, **options)
    model = serial(normalize=data.normalize(config["mean"], config["std"]), network=build(classes, **options))
    return model, tuple({"network": tree} if tree else {} for tree in body)


def with_frozen_body(model, config):
    """Return the model with constant parameters and statistics, except those of the last layer."""
    build = models.MODELS[config["model"]]
    x = jax.ShapeDtypeStruct((1, *build.input_shape), jnp.float32)
    body = {f"network/{path}" for path in paths(jax.eval_shape(build(None).init, jax.random.key(0), x)[0])}

    def apply(params, state, x, *, train, key=None):
        leaves = zip(paths(params), jax.tree.leaves(params), strict=True)
        leaves = [jax.lax.stop_gradient(leaf) if path in body else leaf for path, leaf in leaves]
        return model.apply(jax.tree.unflatten(jax.tree.structure(params), leaves), state, x, train=False)

    return Layer(model.init, apply)


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


def read(config, size, channels):
    """Return training and test images, and images for the statistics."""
    settings = config["data"]
    path = settings["path"] or digits_as_files(pathlib.Path(config["runs"], "digits_as_files"))
    if settings["stream"]:
        stream = functools.partial(
            data.image_stream, path, size, channels=channels, batch_size=config["train"]["batch_size"]
        )
        train_data, test_data = stream(seed=config["train"]["seed"]), stream(shuffle=False)
        first = next(train_data.batches(0))  # mean and std of one batch are accurate enough
        return train_data, test_data, data.Dataset(first["image"], first["label"], train_data.classes)
    images = data.image_folder(path, size, channels=channels, on_bad_image=settings["on_bad_image"])
    print(f"{len(images.images):,} images of {len(images.classes)} classes: {', '.join(images.classes)}")
    train_data, test_data = data.train_test_split(images, settings["test_fraction"])
    return train_data, test_data, train_data


def main(config):
    train.resolve(config["train"])
    train.require(config, LIMITS)
    require_one_of(config, "data.on_bad_image", ("raise", "skip"))
    require_one_of(config, "export", ("stablehlo", "onnx"))
    if config["data"]["stream"]:
        unused = ("data.on_bad_image", "data.test_fraction")
        require_default(config, CONFIG, unused, "with data.stream=true, which trains and tests on all images")
    name, pretrained = config["model"], config["weights"]
    size = config["data"]["height"], config["data"]["width"]
    if pretrained:
        require_weights(config, CONFIG, "data.path", (), size=size)
        if not pathlib.Path(pretrained).exists():
            reason = f"with weights={pretrained}, which is no file: weights by name come with their own"
            require_default(config, CONFIG, ("mean", "std", "eps"), reason)
            require_model_of(pretrained, name)
    else:
        require_default(config, CONFIG, ("mean", "std", "frozen_epochs"), "without weights=FILE")
        if name:
            require_image_model(name, size, config["eps"])
        else:
            require_default(config, CONFIG, ("eps",), "without model=NAME")
    height, width, channels = models.MODELS[name].input_shape if name else (32, 32, 3)
    size = (size[0] or height, size[1] or width)
    train_data, test_data, images = read(config, size, channels)
    run = train.Run("image_folder", config, root=config["runs"], folder=config["folder"])
    fit, start = functools.partial(train.fit, eval_data=test_data), None
    if pretrained:
        model, start = pretrained_network(config, len(images.classes))
        if config["frozen_epochs"]:
            run.say("training the new last layer")
            part = train.Run("frozen", config, folder=run.folder / "frozen")
            settings = config["train"] | {"epochs": config["frozen_epochs"]}
            start = fit(with_frozen_body(model, config), train_data, config=settings, run=part, start=start).best[:2]
            run.say("training all layers")
    else:
        options = norm_options(name, config["eps"])
        network = models.MODELS[name](len(images.classes), **options) if name else small_network(images)
        model = serial(normalize=data.normalize(images), network=network)
    fitted = fit(model, train_data, config=config["train"], run=run, start=start)
    print(fitted.outcome)
    weights.save(run.folder / "weights.safetensors", fitted.params, fitted.state)
    names = "".join(f"{name}\n" for name in images.classes)
    (run.folder / "classes.txt").write_text(names, encoding="utf-8", errors="backslashreplace")
    save_program(run.folder, model, fitted.params, fitted.state, images, onnx=config["export"] == "onnx")
    return fitted.best.metrics


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)

"""Settings of experiments that use files of weights or images: each is used or refused, in one line."""

import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import finetune, image_folder, mnist_lenet, predict
from jaxcnn import data, models, serial, weights
from jaxcnn.data import DataError
from jaxcnn.train import ConfigError, override
from jaxcnn.weights import WeightsError


@pytest.fixture
def files(tmp_path):
    """Weights of a LeNet and a folder of two images."""
    params, state = models.lenet5().init(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    weights.save(tmp_path / "w.safetensors", params, state, model="lenet5")
    (tmp_path / "images").mkdir()
    for i in range(2):
        Image.fromarray(np.full((32, 32), 100 * i, np.uint8)).save(tmp_path / "images" / f"{i}.png")
    return tmp_path


def run(module, folder, *assignments):
    return module.main(override(module.CONFIG, [f"runs={folder / 'runs'}", *assignments]))


def for_lenet(folder, *others):
    arguments = [f"weights={folder}/w.safetensors", "model=lenet5", "classes=10", "mean=[0.5]", "std=[0.25]"]
    return [*arguments, f"images={folder}/images", *others]


@pytest.mark.parametrize(
    "setting",
    [
        *("images=x.png", "model=resnet18", "class_names=x.txt", "classes=10", "eps=0.1"),
        *("on_bad_image=raise", "mean=[0.5]", "std=[0.5]"),
    ],
)
def test_predict_without_weights(tmp_path, setting):
    message = rf"^{re.escape(setting.partition('=')[0])}=.* has no effect without run=FOLDER or weights=FILE$"
    with pytest.raises(ConfigError, match=message):
        run(predict, tmp_path, setting)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model="], "needs model="),
        (["images="], "needs images="),
        (["model=lenet55"], "model=lenet55 is not in .*; did you mean 'lenet5'"),
        (["model=fcn1d"], r"model=fcn1d is for inputs of shape \(128, 1\), not for images"),
        (["mean=[0.5, 0.5, 0.5]"], r"mean must have one number per channel \(lenet5 has 1\), got \[0.5, 0.5, 0.5\]"),
        (["std=[0]"], "std must have one positive number per channel"),
        (['mean=["a"]'], "mean must have one number"),
        (["on_bad_image=ignore"], "on_bad_image must be one of raise, skip, got 'ignore'"),
        (["class_names=/nonexistent"], "/nonexistent: cannot be read"),
        (["weights=/nonexistent"], "/nonexistent cannot be read"),
        (["images=/nonexistent"], "/nonexistent: contains no readable images"),
    ],
)
def test_predict_with_weights(files, settings, message):
    with pytest.raises((ConfigError, DataError, WeightsError), match=message):
        run(predict, files, *for_lenet(files, *settings))
    assert not (files / "runs").exists()


def test_predict_passes_over_what_is_no_image(files, capsys):
    for name in (".DS_Store", "Thumbs.db", "._0.png"):
        (files / "images" / name).write_bytes(b"not an image")
    (files / "images" / "bad.png").write_bytes(b"not an image")
    assert set(run(predict, files, *for_lenet(files))) == {"0.png", "1.png"}
    reported = capsys.readouterr().err
    assert re.fullmatch(r"skipped: .*bad\.png: cannot be read as an image: .*\nskipped 1 of 3 files\n", reported)
    with pytest.raises(DataError, match=r"bad\.png"):
        run(predict, files, *for_lenet(files, "on_bad_image=raise"))


def test_predict_on_weights_of_another_network(files):
    """Saved without the name of a model, of a chain that begins with its normalization."""
    model = serial(norm=data.normalize([0.5], [0.25]), net=models.lenet5())
    trees = model.init(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    weights.save(files / "w.safetensors", *trees)
    with pytest.raises(WeightsError, match=r"w\.safetensors: these weights do not fit lenet5: .*params/net/") as error:
        run(predict, files, *for_lenet(files))
    assert "\n" not in str(error.value)


def test_predict_with_the_eps_of_the_weights(tmp_path):
    """timm's names are refused without it; the logits are those of the model with this eps."""
    from tests.test_weight_files import timm

    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file(timm("mobilenet_v3_small"), tmp_path / "w.safetensors")
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(tmp_path / "x.png")
    arguments = [f"weights={tmp_path}/w.safetensors", "model=mobilenet_v3_small", f"images={tmp_path}/x.png"]
    with pytest.raises(WeightsError, match="eps=1e-05"):
        run(predict, tmp_path, *arguments)
    assert len(run(predict, tmp_path, *arguments, "eps=1e-5")["x.png"]) == 5


UNREADABLE = r"alexnet cannot read images of 16 x 16 pixels: max_pool: the window"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model=lenet5", "eps=1e-3"], "eps=0.001 has no effect on model=lenet5, which has no batch norms"),
        (["eps=1e-3"], "eps=0.001 has no effect without model=NAME"),
        (["model=unet"], r"model=unet is no classifier: its output has shape \('N', 388, 388, 2\), expected \('N', cl"),
        (["model=fcn_resnet50"], "model=fcn_resnet50 is no classifier"),
        (["model=alexnet", "data.height=16", "data.width=16"], UNREADABLE),
        (["data.height=1"], r"augment: random_crop: an image \(1, 32, 3\) cannot be reflected by 2 pixels"),
    ],
)
def test_models_and_sizes_that_image_folder_cannot_train(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        run(image_folder, tmp_path, *settings)
    assert not [*tmp_path.glob("runs/image_folder*")]


@pytest.mark.parametrize("module", [predict, finetune])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["eps=1e-3"], "eps=0.001 has no effect on model=lenet5"),
        (["model=unet"], "model=unet is no classifier"),
        (["model=fcn_resnet50", "mean=[0, 0, 0]", "std=[1, 1, 1]"], "model=fcn_resnet50 is no classifier"),
    ],
)
def test_models_that_are_no_classifiers(files, module, settings, message):
    given = for_lenet(files, *settings)
    if module is finetune:
        given = [entry.replace("images=", "data.path=") for entry in given if not entry.startswith("classes=")]
    with pytest.raises(ConfigError, match=message):
        run(module, files, *given)
    assert not (files / "runs").exists()


def test_weights_of_dense_layers_need_their_size(files):
    """A dense layer has the number of features of one size."""
    given = [f"weights={files}/w.safetensors", "model=lenet5", "mean=[0.5]", "std=[0.25]", f"data.path={files}"]
    with pytest.raises(ConfigError, match="model=lenet5 cannot read images of 40 x 28 pixels"):
        run(image_folder, files, *given, "data.height=40")


@pytest.mark.parametrize(
    "setting",
    ["data.path=/nonexistent", "data.on_bad_image=skip", "model=resnet18", "eps=0.1", "mean=[0.5]", "std=[0.5]"],
)
def test_finetune_without_weights(tmp_path, setting):
    with pytest.raises(ConfigError, match=rf"^{setting.partition('=')[0]}=.* has no effect without weights=FILE$"):
        run(finetune, tmp_path, setting)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["pretrain.epochs=2"], r"^pretrain\.epochs=2 has no effect with weights"),
        (["data.path="], r"needs data\.path="),
        (["data.path=/nonexistent"], "/nonexistent: cannot be read"),
        (["weights=/nonexistent"], "/nonexistent cannot be read"),
        (["data.on_bad_image=no"], r"data\.on_bad_image must be one of raise, skip"),
        (["data.images_per_class=9"], "no test images left: training uses all 2; lower data.images_per_class"),
    ],
)
def test_finetune_with_weights(files, settings, message):
    (files / "images" / "a").mkdir()
    for i in range(2):
        (files / "images" / f"{i}.png").rename(files / "images" / "a" / f"{i}.png")
    arguments = [*for_lenet(files)[:2], "mean=[0.5]", "std=[0.5]", f"data.path={files}/images", *settings]
    with pytest.raises((ConfigError, DataError, WeightsError), match=message):
        run(finetune, files, *arguments)
    assert not (files / "runs").exists()


def test_root_of_a_data_set_that_is_in_the_package(tmp_path):
    with pytest.raises(DataError, match="mnist_small is included in the package; do not set root='/nonexistent'"):
        run(mnist_lenet, tmp_path, "data.root=/nonexistent")


@pytest.mark.parametrize("setting", ["data.on_bad_image=skip", "data.test_fraction=0.5"])
def test_image_folder_as_a_stream(tmp_path, setting):
    with pytest.raises(ConfigError, match=rf"^{setting} has no effect with data\.stream=true"):
        run(image_folder, tmp_path, "data.stream=true", setting)
    with pytest.raises(ConfigError, match=r"data\.on_bad_image must be one of"):
        run(image_folder, tmp_path, "data.on_bad_image=maybe")


@pytest.mark.parametrize("setting", ["mean=[0.5, 0.5, 0.5]", "std=[0.1, 0.1, 0.1]", "eps=0.1"])
def test_image_folder_with_weights_by_name(tmp_path, setting):
    """The normalization and eps of pretrained weights come with them."""
    arguments = ["model=resnet18", "weights=resnet18.a1_in1k", f"data.path={tmp_path}", setting]
    message = rf"^{re.escape(setting)} has no effect with weights=resnet18\.a1_in1k, which is no file: weights by name"
    with pytest.raises(ConfigError, match=message):
        run(image_folder, tmp_path, *arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["model=resnet18", "weights=resnet50.a1_in1k"],
            r"weights=resnet50\.a1_in1k are those of model=resnet50, got model=resnet18",
        ),
        (
            ["model=resnet18", "weights=resnet18.a1_in2k"],
            r"is neither a file nor in .*; did you mean 'timm/resnet18\.a1_in1k'",
        ),
        (["data.test_fraction=0"], r"data\.test_fraction must be at least 1e-09 and below 1, got 0\.0"),
    ],
)
def test_image_folder_fails_before_it_reads_images(tmp_path, monkeypatch, settings, message):
    monkeypatch.setattr(data, "image_folder", lambda *args, **options: pytest.fail("images were read"))
    with pytest.raises(ConfigError, match=message):
        run(image_folder, tmp_path, f"data.path={tmp_path}", *settings)
    assert not (tmp_path / "runs").exists()


def test_one_line_and_status_2():
    command = [sys.executable, "-m", "experiments.finetune", "data.path=/nonexistent"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"error: data\.path=/nonexistent has no effect without weights=FILE\n", done.stderr)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_scale_of_torchvisions_transform_input(name):
    """What it does to images of the usual mean and std is what the documentation says instead."""
    x = np.random.default_rng(0).random((1, 4, 4, 3), np.float32)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    there = (x - mean) / std * (std / 0.5) + (mean - 0.5) / 0.5  # torchvision/models/googlenet.py
    here, _ = data.normalize([0.5] * 3, [0.5] * 3).apply({}, {}, x, train=False)
    np.testing.assert_allclose(here, there, atol=1e-6)
    words = " ".join(models.MODELS[name].__doc__.split())
    assert "torchvision enables `transform_input` with its trained weights" in words
    assert "`data.normalize([0.5] * 3, [0.5] * 3)`" in words

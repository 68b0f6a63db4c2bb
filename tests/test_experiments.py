"""Experiments keep their promises: the figure they claim, the record they leave, the command they answer to."""

import json
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
import scipy.ndimage
import scipy.spatial
from PIL import Image

from experiments import (
    _program,
    _settings,
    autoencoder,
    cifar10_resnet20,
    cifar10_speedrun,
    dcgan,
    distillation,
    ensembles,
    finetune,
    image_folder,
    mislabelled,
    mnist_best,
    mnist_cnn,
    mnist_lenet,
    mnist_speedrun,
    multilabel,
    overfit_and_regularize,
    predict,
    regression,
    robustness,
    segmentation,
    signals,
    sweep,
    write_your_own_loop,
)
from experiments._model_settings import norm_options, require_image_model
from jaxcnn import data, dense, explain, models, serial, train, weights
from jaxcnn.data import DataError
from jaxcnn.train import FIT, ConfigError, override
from jaxcnn.train._config import flat_entries

ROOT = pathlib.Path(__file__).parent.parent


EXPERIMENTS = [cifar10_resnet20, cifar10_speedrun, image_folder, mnist_best, mnist_cnn, mnist_lenet, mnist_speedrun]
EXPERIMENTS += [overfit_and_regularize, write_your_own_loop]
EXPERIMENTS += [autoencoder, dcgan, distillation, ensembles, mislabelled, multilabel, regression, robustness]
EXPERIMENTS += [segmentation, signals, sweep]


@pytest.mark.parametrize("module", EXPERIMENTS)
def test_settings_of_training_have_the_names_of_fit(module):
    """Whether `train.fit` or a loop of its own trains, they are under "train"; only optimizers have more."""
    known = {key for key, _ in flat_entries(FIT)}
    settings = {key for key, _ in flat_entries(module.CONFIG["train"])}
    assert {key for key in settings - known if not key.startswith("optimizer.")} == set()
    assert settings & {"seed", "epochs", "batch_size"} == {"seed", "epochs", "batch_size"}
    assert not {*module.CONFIG} & {*FIT, "fit", "learning_rate"}


@pytest.mark.parametrize(
    ("module", "key", "nearest"),
    [
        (mnist_lenet, "learning_rate", "train.optimizer.learning_rate"),
        (mnist_lenet, "report", "train.report"),
        (mnist_cnn, "fit.epochs", "train.epochs"),
        (mnist_cnn, "epochs", "train.epochs"),
        (mnist_cnn, "train.evaluate.batchsize", "train.evaluate.batch_size"),
        (mnist_best, "train.learning_rate", "train.optimizer.learning_rate"),
        (mnist_speedrun, "betas", "train.optimizer.betas"),
        (write_your_own_loop, "seeds", "train.seed"),
        (overfit_and_regularize, "dropout", "dropout_rate"),
    ],
)
def test_unknown_keys_name_the_nearest_path(module, key, nearest):
    with pytest.raises(ConfigError, match=rf"unknown key '{re.escape(key)}'; .*did you mean '{re.escape(nearest)}'\?"):
        override(module.CONFIG, [f"{key}=1"])


def short(folder, *assignments):
    return override(mnist_lenet.CONFIG, ["train.epochs=1", f"runs={folder}", *assignments])


def records(folder):
    """The config and the metrics of the only run in a folder, without what the clock decides."""
    (run,) = folder.iterdir()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(line.pop("seconds") > 0 for line in lines)
    return json.loads((run / "config.json").read_text())["config"], lines


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    config = short(folder)
    return config, mnist_lenet.main(config), folder


def test_one_epoch_learns(one_epoch):
    _, result, _ = one_epoch
    assert 0.85 < result["accuracy"] < 0.99
    assert 0.03 < result["loss"] < 0.6
    assert result["penalty"] > 0


def test_the_record_is_what_was_returned(one_epoch):
    config, result, folder = one_epoch
    written, lines = records(folder)
    assert written == config
    assert [line["epoch"] for line in lines] == [1]
    assert lines[-1]["test"] == result
    assert lines[-1]["train"]["loss"] > result["loss"]


def test_same_seed_same_metrics(one_epoch, tmp_path):
    _, result, folder = one_epoch
    assert mnist_lenet.main(short(tmp_path)) == result
    assert records(tmp_path)[1] == records(folder)[1]


@pytest.mark.parametrize(
    ("module", "name"), [(np.random, "default_rng"), (jax.random, "key")], ids=["weights", "order"]
)
def test_the_seed_decides(one_epoch, tmp_path, monkeypatch, module, name):
    """With one of its two uses held at 0, the seed changes the run through the other."""
    _, result, _ = one_epoch
    make = getattr(module, name)
    monkeypatch.setattr(module, name, lambda seed: make(0))
    other = mnist_lenet.main(short(tmp_path, "train.seed=1"))
    assert other["loss"] != result["loss"]
    assert other["accuracy"] > 0.85


@pytest.mark.parametrize(
    "assignment",
    [
        "train.epochs=0",
        "train.batch_size=0",
        "train.batch_size=8001",
        "model.dropout=1",
        "data.shift=-1",
        "train.optimizer.learning_rate=-1",
        "train.regularize.l2=1e999",
        "train.seed=-1",
    ],
)
def test_limits(tmp_path, assignment):
    key = assignment.partition("=")[0]
    with pytest.raises(ConfigError, match=re.escape(key)):
        mnist_lenet.main(short(tmp_path, assignment))
    assert list(tmp_path.iterdir()) == []


def test_batches_are_every_image_once_moved_by_no_more_than_shift():
    n, shift = 23, 2
    images = np.zeros((n, 9, 9, 1), np.uint8)
    images[:, 4, 4, 0] = np.arange(n) + 1
    seen = []
    for batch in mnist_lenet.batches(images, np.arange(n), 5, shift, np.random.default_rng(0)):
        assert batch["image"].shape == (5, 9, 9, 1)
        assert batch["image"].dtype == np.float32
        for image, label in zip(batch["image"], batch["label"], strict=True):
            ((down, right, _),) = np.argwhere(image)
            assert abs(down - 4) <= shift
            assert abs(right - 4) <= shift
            np.testing.assert_allclose(image[down, right, 0], (label + 1) / 255, rtol=1e-6)
            seen.append((int(label), down - 4, right - 4))
    labels = [label for label, _, _ in seen]
    assert len(labels) == len(set(labels)) == 20
    assert labels != sorted(labels)
    assert any(down != right for _, down, right in seen)
    assert {down for _, down, _ in seen} == {right for _, _, right in seen} == set(range(-shift, shift + 1))


def run(*arguments):
    command = [sys.executable, "-m", "experiments.mnist_lenet", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_help():
    done = run("--help")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "python -m experiments.mnist_lenet" in done.stdout
    assert re.search(r"^  train\.optimizer\.learning_rate=0\.003$", done.stdout, re.MULTILINE)
    assert re.search(r"^  train\.epochs=20$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.epoch=1"], r"error: unknown key 'train\.epoch'; .*did you mean 'train\.epochs'.*"),
        (["data.name=mnits"], r"error: unknown data set 'mnits'; .*did you mean 'mnist'.*"),
    ],
)
def test_bad_setting(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(f"{message}\n", done.stderr)


@pytest.mark.full
def test_claim(tmp_path):
    result = mnist_lenet.main(override(mnist_lenet.CONFIG, [f"runs={tmp_path}"]))
    assert result["accuracy"] >= 0.975


def small(module, folder, *assignments):
    """An experiment of few steps, in a folder of its own."""
    return module.main(
        override(module.CONFIG, [*assignments, *([f"runs={folder}"] if "runs" in module.CONFIG else [])])
    )


@pytest.mark.slow
def test_mnist_cnn(tmp_path):
    last = small(
        mnist_cnn, tmp_path, "data.name=mnist_small", "model.width=4", "train.epochs=2", 'train.augment=["flip"]'
    )
    assert last["test"]["accuracy"] > 0.3
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {"config.json", "metrics.jsonl", "metrics.csv", "checkpoints"}


@pytest.mark.full
def test_mnist_best(tmp_path):
    last = small(
        mnist_best, tmp_path, "data.name=mnist_small", "model.widths=[4, 4, 8, 8]", "train.epochs=2", "train.augment=[]"
    )
    assert last["test"]["accuracy"] > 0.3
    model = mnist_best.network(data.load("mnist_small", "test"), **mnist_best.CONFIG["model"])
    assert explain.summary(model, jax.ShapeDtypeStruct((1, 28, 28, 1), np.float32)).params < 1_000_000


@pytest.mark.slow
def test_cifar10_resnet20(tmp_path):
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        records = rng.integers(0, 256, (16, 3073), np.uint8)
        records[:, 0] %= 10
        (tmp_path / f"{name}.bin").write_bytes(records.tobytes())
    history = small(
        cifar10_resnet20, tmp_path / "runs", f"data.root={tmp_path}", "train.epochs=2", "train.batch_size=40"
    )
    assert [record["step"] for record in history] == [2, 4]


@pytest.mark.slow
def test_write_your_own_loop_goes_on(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    arguments = [f"folder={tmp_path}", "train.batch_size=500"]
    small(write_your_own_loop, tmp_path, *arguments, "train.epochs=2")
    whole = small(write_your_own_loop, tmp_path, *arguments, "train.epochs=2")
    assert whole["accuracy"] > 0.5
    with pytest.raises(ConfigError, match=r"train\.epochs: was 2, now 3"):
        small(write_your_own_loop, tmp_path, *arguments, "train.epochs=3")


@pytest.mark.slow
def test_overfit_and_regularize(tmp_path):
    result = small(overfit_and_regularize, tmp_path, "images=100", "train.epochs=2", "l1=0.01")
    assert set(result) == {"nothing", "L1", "L2", "dropout", "augmentation"}
    assert result["L1"]["near_zero"] > result["nothing"]["near_zero"]
    (folder,) = tmp_path.iterdir()
    rows = (folder / "curves.csv").read_text().splitlines()
    assert rows[0].startswith("epoch,nothing train,nothing test,L1 train")
    assert len(rows) == 3


CASES = {"from scratch", "frozen features", "fine-tuned"}


@pytest.mark.full
def test_finetune(tmp_path):
    assert set(small(finetune, tmp_path, "pretrain.epochs=1", "train.epochs=1")) == CASES


@pytest.mark.slow
def test_finetune_on_a_folder_of_images_with_weights_from_a_file(tmp_path):
    folder = image_folder.digits_as_files(tmp_path / "digits", count=60)
    params, state = models.lenet5(classes=7).init(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    weights.save(tmp_path / "w.safetensors", params, state, model="lenet5")
    arguments = [f"data.path={folder}", "data.images_per_class=2", "model=lenet5", f"weights={tmp_path}/w.safetensors"]
    result = small(finetune, tmp_path / "runs", *arguments, "mean=[0.1]", "std=[0.3]", "train.epochs=1")
    assert set(result) == CASES


def test_predict(tmp_path):
    """What a file of weights says of images is what the model says; the margin of an image is not seen."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (2, 32, 32), np.uint8)
    (tmp_path / "images").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "names.txt").write_text("\n".join("abcdefghij"))
    params, state = models.lenet5().init(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    weights.save(tmp_path / "w.safetensors", params, state, model="lenet5")
    arguments = ["model=lenet5", "classes=10", f"weights={tmp_path}/w.safetensors", f"images={tmp_path}/images"]
    arguments += [f"class_names={tmp_path}/names.txt", "mean=[0.5]", "std=[0.25]", "top=2"]
    result = predict.main(override(predict.CONFIG, arguments))
    seen = (images[:, 2:-2, 2:-2, None] / np.float32(255) - 0.5) / 0.25
    shares = jax.nn.softmax(models.lenet5().apply(params, state, seen.astype(np.float32), train=False)[0])
    for i in range(2):
        found = result[f"{i}.png"]
        assert list(found) == ["abcdefghij"[at] for at in np.argsort(-shares[i])[:2]]
        np.testing.assert_allclose(list(found.values()), np.sort(shares[i])[::-1][:2], rtol=1e-4)
    (tmp_path / "names.txt").write_text("a\nb")
    with pytest.raises(DataError, match=r"names.txt: expected one line per class \(10\), got 2"):
        predict.main(override(predict.CONFIG, arguments))


@pytest.mark.slow
def test_mnist_speedrun():
    """On an eighth of the digits."""
    arguments = ["data.name=mnist_small", "train.epochs=2", "train.batch_size=100"]
    arguments += ["train.optimizer.learning_rate=0.01"]
    assert mnist_speedrun.main(override(mnist_speedrun.CONFIG, arguments)) > 0.95


@pytest.mark.parametrize("setting", ["train.epochs=3", "widths=[8,8,8]", "train.dtype=float32"])
def test_settings_that_small_would_override_are_refused(setting):
    config = override(cifar10_speedrun.CONFIG, [setting, "small=true"])
    with pytest.raises(ConfigError, match=r"has no effect with small=true"):
        cifar10_speedrun.main(config)


@pytest.mark.slow
def test_cifar10_speedrun(tmp_path, monkeypatch):
    """Learns stripes, in two runs on the device."""
    draw = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        labels = draw.integers(0, 10, 100, np.uint8)
        images = draw.integers(0, 60, (100, 3, 32, 32), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[:, 3 * label : 3 * label + 3] += 190
        (tmp_path / f"{name}.bin").write_bytes(np.concatenate([labels[:, None], images.reshape(100, -1)], 1).tobytes())
    monkeypatch.setitem(cifar10_speedrun.SMALL, "widths", [16, 16, 16])
    monkeypatch.setitem(cifar10_speedrun.SMALL["train"], "batch_size", 50)
    monkeypatch.setitem(cifar10_speedrun.SMALL["train"], "epochs", 4)
    config = override(cifar10_speedrun.CONFIG, [f"data.root={tmp_path}", "small=true", "runs=2", "translate=0"])
    result = cifar10_speedrun.main(config)
    assert min(result["accuracies"]) > 0.5
    assert len(result["seconds"]) == 2


def test_whitening():
    """The kernel makes neighboring pixels uncorrelated, with variance 1."""
    draw = np.random.default_rng(0)
    images = np.cumsum(draw.standard_normal((50, 32, 32, 3)), axis=2).astype(np.float32)
    kernel = np.asarray(cifar10_speedrun.whitening(images))
    patches = np.stack([images[:, i : i + 31, j : j + 31] for i in (0, 1) for j in (0, 1)], -2).reshape(-1, 12)
    white = patches @ kernel[..., :12].reshape(12, 12)
    np.testing.assert_allclose(np.cov(white.T), np.eye(12), atol=0.02)
    np.testing.assert_array_equal(kernel[..., 12:], -kernel[..., :12])


def test_steps_of_muon_are_orthogonal():
    matrices = np.random.default_rng(0).standard_normal((3, 8, 20)).astype(np.float32)
    values = np.linalg.svd(np.asarray(cifar10_speedrun.orthogonal(matrices)), compute_uv=False)
    assert 0.5 < values.min() <= values.max() < 1.5
    tall = np.asarray(cifar10_speedrun.orthogonal(matrices.transpose(0, 2, 1)))
    assert tall.shape == (3, 20, 8)


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_image_folder(tmp_path, stream):
    pytest.importorskip("grain" if stream else "PIL")
    folder = image_folder.digits_as_files(tmp_path / "digits", count=150)
    arguments = [f"data.path={folder}", "data.height=16", "data.width=16", "train.epochs=1"]
    last = small(
        image_folder, tmp_path / "runs", *arguments, "train.batch_size=16", f"data.stream={str(stream).lower()}"
    )
    assert set(last) == {"loss", "accuracy"}
    assert len(list(folder.rglob("*.png"))) == 150
    (run,) = (tmp_path / "runs").glob("image_folder-*")
    assert (run / "classes.txt").read_text().split() == list("0123456789")
    assert _program.load_program(str(run)).size == (16, 16)


@pytest.mark.full
def test_image_folder_with_pretrained_weights(tmp_path, monkeypatch):
    """First only the new last layer learns, then all layers."""
    folder = image_folder.digits_as_files(tmp_path / "digits", count=150)
    params, state = models.lenet5().init(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    weights.save(tmp_path / "w.safetensors", params, state, model="lenet5")
    onnxruntime = pytest.importorskip("onnxruntime")
    fitted, fit = [], image_folder.train.fit
    monkeypatch.setattr(image_folder.train, "fit", lambda *a, **k: fitted.append(fit(*a, **k)) or fitted[-1])
    arguments = [f"data.path={folder}", "model=lenet5", f"weights={tmp_path}/w.safetensors", "mean=[0.1]", "std=[0.3]"]
    arguments += ["frozen_epochs=2", "train.epochs=1", "train.regularize.l2=0.1", "train.batch_size=16"]
    small(image_folder, tmp_path / "runs", *arguments, "train.augment=[]", "export=onnx")
    kernels = [fit.params["network"]["conv1"]["kernel"] for fit in fitted]
    np.testing.assert_array_equal(kernels[0], params["conv1"]["kernel"])
    assert np.abs(kernels[1] - kernels[0]).max() > 1e-4
    assert [len(fit.history) for fit in fitted] == [2, 1]
    (run,) = (tmp_path / "runs").glob("image_folder-*")
    saved, _ = weights.load(run / "weights.safetensors")
    np.testing.assert_array_equal(saved["network"]["conv1"]["kernel"], kernels[1])
    session = onnxruntime.InferenceSession(run / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    logits = session.run(None, {"x": images})[0]
    np.testing.assert_allclose(jax.nn.softmax(logits), _program.load_program(str(run)).predict(images), rtol=1e-4)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list("0123456789")


def waves(folder):
    """A file like that of the UCR archive: two frequencies at random phases."""
    labels = np.arange(40) % 2
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, (40, 1))
    waves = np.sin(0.7 * (1 + labels[:, None]) * np.arange(16) + phases)[..., None].astype(np.float32)
    arrays = {"Waves/classes": np.array(["slow", "fast"])}
    for split in ("train", "test"):
        arrays |= {f"Waves/{split}/x": 5 + 3 * waves, f"Waves/{split}/y": labels.astype(np.int32)}
    np.savez(folder / "ucr.npz", **arrays)
    return ["data.name=Waves", f"data.root={folder}", f"runs={folder / 'runs'}"]


def test_signals(tmp_path, capsys, monkeypatch):
    batch_sizes, fit = [], signals.train.fit

    def noted(*args, config, **options):
        batch_sizes.append(config["batch_size"])
        return fit(*args, config=config, **options)

    monkeypatch.setattr(signals.train, "fit", noted)
    config = override(signals.CONFIG, [*waves(tmp_path), "train.epochs=4"])
    result = signals.main(config)
    assert result["test"]["error"] == 1 - result["test"]["accuracy"] < 0.2
    assert batch_sizes == [4]  # a tenth of the signals
    assert f"fcn1d on Waves: test error {result['test']['error']:.2%}; results in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("data.root=/nonexistent", r"/nonexistent/ucr\.npz: not found\. Set data\.root or JAXCNN_DATA"),
        ("data.name=Wave", r"ucr\.npz: has no set 'Wave'; expected one of: Waves"),
        ("model.name=resnet18", "model.name must be one of fcn1d, inception_time, resnet1d, got 'resnet18'"),
        ("train.patience=3", "train.patience=3 has no effect because the test set is evaluated only once"),
    ],
)
def test_wrong_settings_of_signals(tmp_path, assignment, message):
    with pytest.raises((ConfigError, DataError), match=message):
        signals.main(override(signals.CONFIG, [*waves(tmp_path), assignment]))
    assert not (tmp_path / "runs").exists()


def test_signals_in_a_damaged_file(tmp_path):
    settings = waves(tmp_path)
    (tmp_path / "ucr.npz").write_bytes((tmp_path / "ucr.npz").read_bytes()[:2000])
    with pytest.raises(DataError, match=r"ucr\.npz: cannot be read: "):
        signals.main(override(signals.CONFIG, settings))


FITTED = [mnist_cnn, mnist_best, cifar10_resnet20, image_folder, overfit_and_regularize]
FITTED += [autoencoder, distillation, ensembles, mislabelled, multilabel, regression, robustness]
FITTED += [segmentation, sweep]


@pytest.mark.parametrize("module", FITTED)
@pytest.mark.parametrize("assignment", ["train.epochs=0", "train.optimizer.learning_rate=-1", 'train.augment=["no"]'])
def test_settings_that_cannot_be_leave_no_folder(tmp_path, module, assignment):
    if assignment.partition("=")[0] not in dict(flat_entries(module.CONFIG)):
        assignment = "train.seed=-1"
    with pytest.raises(ConfigError, match=assignment.partition("=")[0].removeprefix("train.")):
        small(module, tmp_path, assignment)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "assignment", "message"),
    [
        (mnist_cnn, "model.width=0", "model: conv: features must be at least 1"),
        (mnist_best, "model.widths=[8]", "model: not enough values to unpack"),
        (mnist_speedrun, "widths=[]", "network and training: not enough values"),
        (mnist_speedrun, "norm_decay=2", "network and training: batch_norm: decay"),
        (mnist_speedrun, "train.batch_size=8000", r"train\.epochs=0\.9 of 8000 images are no step"),
        (distillation, "distillation.weight=2", "distillation: distillation: weight must be at least 0 and at most 1"),
        (write_your_own_loop, "train.epochs=0", "epochs must be at least 1"),
        (write_your_own_loop, "train.batch_size=8001", "batch_size must be at least 1 and below 8001"),
    ],
)
def test_settings_of_a_network_that_cannot_be(tmp_path, module, assignment, message):
    names = {"data.name": "mnist_small", "runs": str(tmp_path), "folder": str(tmp_path / "run")}
    known = dict(flat_entries(module.CONFIG))
    settings = [f"{name}={value}" for name, value in names.items() if name in known]
    with pytest.raises(ConfigError, match=message):
        module.main(override(module.CONFIG, [*settings, assignment]))
    assert list(tmp_path.iterdir()) == []


def test_the_list_of_programs_is_complete():
    command = [sys.executable, "-m", "experiments"]
    out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = {line.split()[0] for line in out.splitlines()[2:]}
    assert names == {module.__name__.rpartition(".")[2] for module in [*EXPERIMENTS, finetune, predict]} | {
        *("concepts", "lessons", "serve")
    }


@pytest.mark.parametrize(
    ("module", "assignment"),
    [
        (regression, "loss=absolute"),
        (regression, "data.degrees=0"),
        (multilabel, "loss.pos_weight=0"),
        (multilabel, "data.size=16"),
        (ensembles, "members=[]"),
        (ensembles, "members=[5,1]"),
        (ensembles, "members=[0,1]"),
        (ensembles, "members=[1.5]"),
        (ensembles, "samples=0"),
        (mislabelled, "changed=0"),
        (mislabelled, "damping=0"),
        (segmentation, "background_weight=-1"),
        (segmentation, "model.levels=1"),
        (distillation, "digits=8001"),
        (distillation, "distillation.temperature=0"),
        (distillation, 'teacher.augment=["no"]'),
        (autoencoder, "data.noise=-1"),
        (dcgan, "train.batch_size=8001"),
        (dcgan, "train.optimizer.b1=1"),
        (sweep, "seeds=0"),
        (robustness, "attack.train_eps=0"),
        (robustness, "attack.eps=[0.1,2]"),
        (robustness, "attack.eps=[]"),
    ],
)
def test_bad_settings_of_other_tasks_leave_no_folder(tmp_path, module, assignment):
    key = assignment.partition("=")[0].removeprefix("teacher.")
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)}"):
        small(module, tmp_path, assignment)
    assert list(tmp_path.iterdir()) == []


def test_eps_is_for_models_with_batch_norm():
    for model in ("vgg11", "convnext_tiny", "alexnet"):
        with pytest.raises(ConfigError, match=r"eps=0\.001 has no effect"):
            require_image_model(model, eps=1e-3)
    assert norm_options("mnasnet1_0", 1e-3)["norm"].keywords == {"decay": 0.9997, "eps": 1e-3}
    assert norm_options("resnet18", 0.0) == {}


def test_data_sets_of_another_shape_are_refused():
    digits = data.load("mnist_small", "test")
    _settings.require_gray({"data": {"name": "mnist_small"}}, digits)
    with pytest.raises(
        ConfigError, match=r"data.name=cifar10: the images must be \(28, 28, 1\), but are \(32, 32, 3\)"
    ):
        _settings.require_gray({"data": {"name": "cifar10"}}, data.Dataset(np.zeros((1, 32, 32, 3)), digits.labels, ()))


def test_rotated_digits():
    """Counterclockwise by the returned angle, with bilinear interpolation."""
    digits = data.load("mnist_small", "test")
    digits = data.Dataset(digits.images[:5], digits.labels[:5], digits.classes)
    images, angles = regression.rotated_digits(digits, 40.0, 2, 0)
    assert images.shape == (10, 28, 28, 1)
    assert (abs(angles) <= 40).all()
    assert len(np.unique(angles)) == 10
    for i, (image, (angle,)) in enumerate(zip(images[..., 0], angles, strict=True)):
        pixels = digits.images[i % 5, ..., 0].astype(float)
        expected = scipy.ndimage.rotate(pixels, angle, reshape=False, order=1)
        np.testing.assert_allclose(image, expected, atol=1)


def test_baselines_of_regression():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (400, 3, 3, 1), np.uint8)
    angles = (images.reshape(400, -1)[:, :1] - 100.0).astype(np.float32)
    predicted = regression.ridge(images, angles, images, strength=1e-6)
    np.testing.assert_allclose(predicted, angles, atol=1e-2)
    assert regression.errors(predicted, angles)["r2"] > 0.9999
    heavy = regression.ridge(images, angles, images, strength=1e12)
    np.testing.assert_allclose(heavy, np.broadcast_to(angles.mean(), heavy.shape), atol=1e-3)
    errors = regression.errors(heavy, angles)
    np.testing.assert_allclose(errors["mean_absolute_error"], abs(angles - angles.mean()).mean(), rtol=1e-5)
    assert abs(errors["r2"]) < 1e-4


def test_ridge_satisfies_the_normal_equations():
    """The gradient of |xw + b - y|^2 + strength * |w|^2 is zero."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 2, 2, 1), np.uint8)
    angles = rng.standard_normal((30, 1))
    x, basis = images.reshape(30, -1) / 255, np.eye(4).reshape(4, 2, 2, 1) * 255
    zero, *rows = regression.ridge(images, angles, np.concatenate([0 * basis[:1], basis]).astype(np.uint8), 3.0)
    w = np.array(rows) - zero
    residual = x @ w + zero - angles
    np.testing.assert_allclose(x.T @ residual + 3.0 * w, 0, atol=1e-9)
    np.testing.assert_allclose(residual.sum(), 0, atol=1e-9)


def test_baseline_of_segmentation():
    """An image of background and one of the digit 0: IoU 3/4 of background, 0 of the digit."""
    masks = np.zeros((2, 4, 4), np.int32)
    masks[1, :2] = 1
    baseline = segmentation.background_only(masks)
    assert baseline == pytest.approx({"mean_iou": 0.75 / 2, "pixel_accuracy": 0.75})


def test_color_distance():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3), np.uint8)
    images[..., 1] = images[..., 0] // 2 + images[..., 2] // 4  # correlated channels
    for image, distance in zip(images / 255, multilabel.color_distance(images), strict=True):
        colors = image.reshape(-1, 3)
        inverse = np.linalg.inv(np.cov(colors.T, bias=True) + 1e-3 * np.eye(3))
        expected = [scipy.spatial.distance.mahalanobis(color, colors.mean(0), inverse) for color in colors]
        np.testing.assert_allclose(distance, np.reshape(expected, (5, 6, 1)), rtol=1e-4)


def test_baseline_of_multilabel():
    labels = np.zeros((8, 10), np.int32)
    labels[:4, :5] = labels[:1, 5:] = 1
    baseline = multilabel.always_present(labels)
    np.testing.assert_allclose(baseline["average_precision"], (0.5 + 0.125) / 2, rtol=1e-6)
    np.testing.assert_allclose(baseline["f1"], (2 * 4 / 12 + 2 * 1 / 9) / 2, rtol=1e-6)


def test_baselines_of_autoencoder():
    images = np.random.default_rng(0).random((2, 28, 20, 1), np.float32)
    for image, median, smooth in zip(
        images, autoencoder.median_filter(images), autoencoder.gaussian_filter(images, 1.1), strict=True
    ):
        expected = scipy.ndimage.median_filter(image[..., 0], 3, mode="nearest")
        np.testing.assert_array_equal(median[..., 0], expected)
        expected = scipy.ndimage.gaussian_filter(image[..., 0], 1.1, mode="constant")
        np.testing.assert_allclose(smooth[..., 0], expected, atol=1e-6)


def test_psnr():
    clean = np.full((3, 4, 4, 1), 0.5, np.float32)
    output = clean + np.array([0.1, 0.01, 9.0], np.float32)[:, None, None, None]  # 9 is clipped to 1
    np.testing.assert_allclose(autoencoder.psnr_per_image(output, clean), [20, 40, 20 * np.log10(2)], rtol=1e-4)
    batch = {"label": clean, "weight": np.array([1, 1, 0], np.float32)}
    np.testing.assert_allclose(autoencoder.PSNR.compute(autoencoder.PSNR.update(output, batch)), 30, rtol=1e-4)


def test_frechet_distance():
    """Of normal distributions with diagonal covariance: the squared distance of the means and of the stds."""
    x = np.random.default_rng(0).standard_normal((500, 4))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T  # the covariance is the identity
    std, mean = np.array([1.0, 2.0, 0.5, 0.0]), np.array([0.0, 3.0, 0.0, -1.0])
    rotated = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0]
    expected = (mean**2).sum() + ((std - 1) ** 2).sum()
    np.testing.assert_allclose(dcgan.frechet_distance(x @ rotated, (x * std + mean) @ rotated), expected, rtol=1e-5)
    np.testing.assert_allclose(dcgan.frechet_distance(x * std, x * std), 0, atol=1e-6)


def test_entropy():
    assert dcgan.entropy(np.arange(20) % 10) == pytest.approx(np.log2(10))
    assert dcgan.entropy(np.zeros(5, int)) == 0
    assert dcgan.entropy(np.array([0, 3])) == 1


@pytest.mark.slow
def test_a_step_of_dcgan_moves_both_networks_towards_their_aims():
    """After repeated steps on the same batch with one network held, the loss of the other is smaller."""
    networks = dcgan.generator(4), dcgan.discriminator(4)
    images = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 1), np.uint8)
    noise = jax.random.normal(jax.random.key(0), (8, 5))
    step = dcgan.make_step(*networks, optax.adam(1e-2))

    def start():
        inputs = zip(networks, (noise, np.zeros((1, 28, 28, 1), np.float32)), strict=True)
        trees = [network.init(jax.random.key(1), x) for network, x in inputs]
        return tuple(dcgan.Player(*tree, optax.adam(1e-2).init(tree[0])) for tree in trees)

    for held in (0, 1):
        players, losses = start(), []
        for _ in range(8):
            players, loss = step(players, images, noise)
            losses.append(float(loss[1 - held]))
            fixed = start()[held]
            players = (fixed, players[1]) if held == 0 else (players[0], fixed)
        assert losses[-1] < 0.7 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["mean_squared_error", pytest.param("huber", marks=pytest.mark.full)])
def test_regression(tmp_path, loss):
    settings = [f"loss={loss}", "train.epochs=2", "data.copies=1", "model.width=4", "train.report=true"]
    result = small(regression, tmp_path, *settings)
    assert result["network"]["mean_absolute_error"] < 0.8 * result["mean"]["mean_absolute_error"]
    assert result["ridge"]["mean_absolute_error"] < 0.8 * result["mean"]["mean_absolute_error"]
    np.testing.assert_allclose(result["mean"]["mean_absolute_error"], 22.5, atol=0.7)  # half of 45
    assert (next(tmp_path.iterdir()) / "report.html").exists()


@pytest.mark.full
def test_multilabel(tmp_path):
    settings = ["data.train_scenes=300", "data.test_scenes=50", "train.epochs=1", "model.width=4", "train.report=true"]
    result = small(multilabel, tmp_path, *settings)
    assert set(result) == {"always present", "linear", "network"}
    assert all({*row} == {"average_precision", "f1"} for row in result.values())
    assert len(list(tmp_path.glob("*/*/report.html"))) == 2


@pytest.mark.slow
def test_segmentation(tmp_path):
    settings = ["data.train_scenes=200", "data.test_scenes=20", "data.size=32", "train.epochs=1", "train.report=true"]
    result = small(segmentation, tmp_path, *settings, "model.width=4", "model.levels=3")
    assert set(result) == {"background", "fcn", "unet"}
    assert all({*row} == {"mean_iou", "pixel_accuracy"} for row in result.values())
    assert len(list(tmp_path.glob("*/*/report.html"))) == 2


@pytest.mark.full
def test_distillation(tmp_path):
    settings = ["digits=200", "train.epochs=4", "teacher.epochs=1", "teacher.width=4", "train.report=true"]
    result = small(distillation, tmp_path, *settings)
    assert set(result) == {"teacher", "student alone", "student with teacher"}
    assert result["student alone"]["loss"] != result["student with teacher"]["loss"]
    assert result["teacher"]["accuracy"] > 0.5
    assert len(list(tmp_path.glob("*/student*/report.html"))) == 2


@pytest.mark.full
def test_autoencoder(tmp_path):
    result = small(autoencoder, tmp_path, "train.epochs=2", "train.report=true")
    assert result["noisy"] < result["median filter"] < result["gaussian filter"] < result["network"]
    assert (next(tmp_path.iterdir()) / "report.html").exists()


@pytest.mark.full
def test_dcgan(tmp_path):
    pytest.importorskip("matplotlib")
    result = small(dcgan, tmp_path, "train.epochs=2", "model.width=8", "judge.epochs=1")
    assert result["distance"]["training digits"] < result["distance"]["samples"] < result["distance"]["untrained"]
    assert 0 <= result["entropy"] <= np.log2(10)
    (folder,) = tmp_path.iterdir()
    assert {"untrained.png", "samples.png", "metrics.jsonl"} < {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_sweep(tmp_path):
    pytest.importorskip("matplotlib")
    settings = "seeds=2", "learning_rates=[0.00001,0.01]", "weight_decays=[0.0,0.1]", "train.epochs=1", "model.width=2"
    result = small(sweep, tmp_path, *settings)
    assert result["best"] >= result["mean of the best"] > 0.5
    assert result["settings"]["optimizer.learning_rate"] == 0.01
    (folder,) = tmp_path.iterdir()
    assert {"landscape.svg", "report.html", "sweep"} < {path.name for path in folder.iterdir()}
    assert "test accuracy" in (page := (folder / "report.html").read_text())
    assert 'alt="Test accuracy for 2 learning rates and 2 weight decays' in page


def test_landscape():
    row = lambda rate, decay, accuracy, **options: train.SweepRun(
        {"optimizer.learning_rate": rate, "weight_decay.rate": decay, "seed": 0},
        [{"test": {"accuracy": accuracy, "loss": 1.0}}],
        *({}, {}),
        **options,
    )
    runs = [row(0.1, 0.0, 0.5), row(0.1, 0.0, 0.7), row(0.2, 0.0, 0.9), row(0.2, 1.0, 0.9, nonfinite_step=3)]
    grid = sweep.landscape(train.SweepResult(runs, "", pathlib.Path()), [0.1, 0.2], [0.0, 1.0])
    np.testing.assert_allclose(grid, [[0.6, np.nan], [0.9, np.nan]])


def test_changed_labels():
    labels = np.repeat(np.arange(10, dtype=np.int32), 20)
    noisy, changed = mislabelled.change_labels(labels, 0.05, 0)
    assert changed.sum() == 10
    np.testing.assert_array_equal(noisy != labels, changed)
    assert ((noisy >= 0) & (noisy < 10)).all()
    assert not np.array_equal(changed, mislabelled.change_labels(labels, 0.05, 1)[1])


def test_found_among_the_largest_scores():
    scores, changed = np.array([1.0, 4.0, 2.0, 3.0]), np.array([True, True, False, False])
    np.testing.assert_allclose(mislabelled.found(scores, changed), [0.5, 0.5, 0.5, 1])


@pytest.mark.full
def test_mislabelled(tmp_path):
    pytest.importorskip("matplotlib")
    result = small(mislabelled, tmp_path, "digits=600", "train.epochs=8")
    assert result["loss"]["found"] > 0.7
    assert result["self-influence"]["found"] > 0.7
    assert result["self-influence"]["auroc"] > 0.9
    (folder,) = tmp_path.iterdir()
    svg = (folder / "mislabelled.svg").read_text()
    assert "fraction of the changed labels found" in svg
    assert svg.count("<image") == mislabelled.SHOWN
    assert "Forty digits with their labels in training" in (folder / "report.html").read_text()


def test_measures_of_an_ensemble():
    """Two members that agree on the known images and disagree on one of the unknown, by hand."""
    known = np.array([[[0.8, 0.2], [0.6, 0.4]], [[0.8, 0.2], [0.4, 0.6]]])
    unknown = np.array([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
    measured = ensembles.measures(known, np.array([0, 1]), unknown)
    assert measured["accuracy"] == 0.5  # [0.5, 0.5] is class 0
    np.testing.assert_allclose(measured["NLL"], -np.log([0.8, 0.5]).mean(), 1e-6)
    np.testing.assert_allclose(measured["ECE"], (0.2 + 0.5) / 2, 1e-6)
    # entropies: 0.50 and 0.69 against 0.69 and 0; mutual information: 0 and 0.02 against 0.69 and 0
    np.testing.assert_allclose(measured["AUROC of entropy"], (1 + 0.5 + 0 + 0) / 4)
    np.testing.assert_allclose(measured["AUROC of mutual information"], (1 + 1 + 0.5 + 0) / 4)
    assert np.isnan(ensembles.measures(known[:1], np.array([0, 1]), unknown[:1])["AUROC of mutual information"])


def test_disjoint_ensembles():
    parts = ensembles.disjoint(np.arange(7), 3)
    np.testing.assert_array_equal(parts, [[0, 1, 2], [3, 4, 5]])
    rows = [dict.fromkeys(ensembles.METRICS, value) for value in (1.0, 2.0)]
    assert ensembles.summary(rows)["NLL"] == {"mean": 1.5, "std": pytest.approx(0.5**0.5)}
    assert np.isnan(ensembles.summary(rows[:1])["NLL"]["std"])


def test_unknown_images():
    digits = data.load("mnist_small", "test").images
    corners = np.array([[1, 2], [3, 4]], np.uint8).reshape(1, 2, 2, 1)
    rotated = ensembles.unknown_images("rotated", corners)
    assert rotated[0, ..., 0].tolist() == [[2, 4], [1, 3]]  # counterclockwise
    np.testing.assert_array_equal(ensembles.unknown_images("mnist_small", digits), digits)
    with pytest.raises(ConfigError, match=r"mnist_small has images of \(28, 28, 1\), but digits have \(32, 32, 3\)"):
        ensembles.unknown_images("mnist_small", np.zeros((1, 32, 32, 3), np.uint8))


@pytest.mark.full
def test_ensembles(tmp_path):
    """The mean of probabilities has the smaller NLL, and images cannot be told from themselves."""
    pytest.importorskip("matplotlib")
    settings = "digits=500", "train.epochs=8", "members=[1,4]", "samples=3", "unknown=mnist_small"
    result = small(ensembles, tmp_path, *settings)
    one, four, sampled = (result[name] for name in ("ensemble of 1", "ensemble of 4", "MC dropout"))
    assert four["NLL"]["mean"] < one["NLL"]["mean"]
    assert four["accuracy"]["mean"] > 0.8
    for part in (one, four, sampled):
        assert part["AUROC of entropy"]["mean"] == pytest.approx(0.5)
    (folder,) = tmp_path.iterdir()
    assert "ensemble of 4: entropy" in (folder / "ensembles.svg").read_text()
    assert "Metrics over the number of members, reliability diagrams" in (folder / "report.html").read_text()
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["ensemble of 4"]["NLL"]["mean"] == four["NLL"]["mean"]


def test_attack_accuracies():
    """Of a linear network on two pixels, whose class is that of the brighter one."""
    batch = {"image": np.array([[0.6, 0.4], [0.2, 0.5]], np.float32), "label": np.array([0, 1])}
    model = serial(head=dense(2))
    params = {"head": {"kernel": np.eye(2, dtype=np.float32), "bias": np.zeros(2, np.float32)}}
    networks, eps_values = {"linear": params}, [0.0, 0.125, 0.25]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robustness, "MODEL", model)
        accuracies, examples = robustness.attack_accuracies(networks, batch, eps_values, 3, jax.random.key(0))
    assert set(accuracies) == {("linear", "FGSM"), ("linear", "PGD")}
    for values in accuracies.values():
        np.testing.assert_array_equal(values, [1, 0.5, 0])
    images, predictions = examples["linear"][1]
    np.testing.assert_allclose(images, [[0.475, 0.525], [0.325, 0.375]], atol=1e-6)
    np.testing.assert_array_equal(predictions, [1, 1])


@pytest.mark.full
def test_robustness(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    load = data.load

    def few(name, split):
        digits = load(name, split)
        return data.Dataset(digits.images[:1000], digits.labels[:1000], digits.classes)

    monkeypatch.setattr(robustness.data, "load", few)
    monkeypatch.setattr(
        robustness, "CORRUPTIONS", {name: robustness.CORRUPTIONS[name] for name in ("contrast", "pixelate")}
    )
    settings = ["train.epochs=6", "attack.train_eps=0.1", "attack.train_steps=2", "attack.eps=[0.1,0.0]"]
    result = small(robustness, tmp_path, *settings, "attack.steps=3")
    for row in result.values():
        assert row["FGSM 0"] == row["PGD 0"] > 0.5
        assert row["PGD 0.1"] < row["PGD 0"]
        np.testing.assert_allclose(row["mean of corruptions"], (row["contrast"] + row["pixelate"]) / 2, rtol=1e-6)
    lost = {name: row["PGD 0"] - row["PGD 0.1"] for name, row in result.items()}
    assert lost["adversarial"] < lost["standard"]
    (folder,) = tmp_path.iterdir()
    figures = {"attacks.svg", "corruptions.svg", "corrupted_digits.svg"}
    assert figures | {"report.html", "corruptions.csv", "standard"} < {path.name for path in folder.iterdir()}
    rows = (folder / "corruptions.csv").read_text().splitlines()
    assert rows[0] == "corruption,severity,standard,adversarial"
    assert len(rows) == 11
    assert "PGD" in (folder / "attacks.svg").read_text()

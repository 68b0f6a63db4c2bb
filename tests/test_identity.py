"""A run resumes only with the same model, data and settings; other differences are reported."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn
from jaxcnn import data, train
from jaxcnn.train import checkpoint
from jaxcnn.train._identity import program_difference, program_identity

pytest.importorskip("orbax.checkpoint")

DIGITS = data.load("mnist_small", "test")
FEW = data.Dataset(DIGITS.images[:64], DIGITS.labels[:64], DIGITS.classes)
TEST_DATA = data.Dataset(DIGITS.images[64:96], DIGITS.labels[64:96], DIGITS.classes)
CONFIG = {"epochs": 1, "batch_size": 32}


def model(activation=jax.nn.relu, rate=0.2, scale=1.0, first=cnn.max_pool(4)):
    layers = first, cnn.flatten, cnn.dense(8), activation, cnn.dropout(rate), cnn.dense(10), lambda x: x * scale
    return cnn.serial(*layers)


def fit(folder, net=None, train_data=FEW, eval_data=TEST_DATA, outer=None, **config):
    run = train.Run("test", outer or {}, folder=folder)
    return train.fit(net or model(), train_data, eval_data=eval_data, config=CONFIG | config, run=run)


OTHERS = {
    "activation": (lambda: model(jnp.tanh), r"model in training: .*max \d -> \d, .*tanh 0 -> 1"),
    "dropout rate": (lambda: model(rate=0.9), "model in training: same operations with different constants"),
    "constant": (lambda: model(scale=2.0), "model in evaluation: same operations with different constants"),
    "pool": (lambda: model(first=cnn.avg_pool(4)), "model in training"),
    "captured array": (lambda: model(lambda x: x * np.arange(8.0, dtype=np.float32)), "model in training"),
    "eps": (lambda: cnn.serial(model(), cnn.rms_norm(eps=1e-2)), "model in training"),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", OTHERS)
def test_another_model_is_refused(tmp_path, name):
    net, message = OTHERS[name]
    fit(tmp_path)
    with pytest.raises(train.ConfigError, match=f"different model, optimizer or augmentation; (.|\n)*{message}"):
        fit(tmp_path, net())
    fit(tmp_path)  # the same program in another Python object: nothing is left to do


def test_the_values_of_captured_arrays_are_part_of_the_model(tmp_path):
    scaled = lambda last: model(lambda x: x * np.array([1, 2, 3, 4, 5, 6, 7, last], np.float32))
    fit(tmp_path, scaled(8))
    with pytest.raises(train.ConfigError, match="different model"):
        fit(tmp_path, scaled(9))


def relabeled():
    labels = FEW.labels.copy()
    labels[3] = (labels[3] + 1) % 10
    return data.Dataset(FEW.images, labels, FEW.classes)


@pytest.mark.parametrize(
    ("train_data", "eval_data", "part"),
    [
        (relabeled(), TEST_DATA, "data"),
        (data.Dataset(FEW.images[::-1].copy(), FEW.labels, FEW.classes), TEST_DATA, "data"),
        ({"image": FEW.images, "label": FEW.labels, "weight": np.full(64, 2.0, np.float32)}, TEST_DATA, "data"),
        (FEW, FEW, "eval_data"),
        (FEW, None, "eval_data"),
    ],
)
def test_other_data_are_refused(tmp_path, train_data, eval_data, part):
    fit(tmp_path)
    with pytest.raises(train.ConfigError, match=f"different config; (.|\n)*  {part}: was"):
        fit(tmp_path, train_data=train_data, eval_data=eval_data)


def test_data_fingerprints():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1, 1)
    label = np.arange(4)
    fingerprint = lambda given: data.source(given).fingerprint
    prints = [
        fingerprint({"image": image, "label": label}),
        fingerprint({"image": image.reshape(4, 2, 2, 1), "label": label}),
        fingerprint({"image": image.view(np.int8), "label": label}),
        fingerprint({"image": image, "label": label.astype(np.int32)}),
        fingerprint({"image": image[::-1], "label": label}),
        fingerprint({"image": image[:, ::-1], "label": label}),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint({"label": label, "image": np.asfortranarray(image)}) == prints[0]
    assert fingerprint(data.Dataset(image, label, ())) == prints[0]
    assert fingerprint((image, label)) == prints[0]


def test_an_image_moved_to_another_class_of_a_stream_is_refused(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("grain")
    for name, values in (("cat", (0, 40, 80)), ("dog", (200, 220, 240))):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i, value in enumerate(values):
            image.new("RGB", (9, 9), (value, value, i)).save(tmp_path / "pets" / name / f"{name}{i}.png")
    stream = lambda **options: data.image_stream(tmp_path / "pets", (8, 8), batch_size=2, **options)
    net = cnn.serial(cnn.flatten, cnn.dense(2))
    go = lambda train_data: fit(tmp_path / "run", net, train_data=train_data, eval_data=None)
    go(stream())
    go(stream())
    with pytest.raises(train.ConfigError, match=r"data: was 3 batches 2x8x8x3 uint8 .*, now"):
        go(stream(seed=1))
    (tmp_path / "pets" / "cat" / "cat1.png").rename(tmp_path / "pets" / "dog" / "cat1.png")
    with pytest.raises(train.ConfigError, match=r"data: was 3 batches 2x8x8x3 uint8 .*, now"):
        go(stream())


def stored(folder):
    """The path of the last step and its about.json."""
    step = folder / "checkpoints" / str(checkpoint.steps(folder / "checkpoints")[-1])
    return step, json.loads((step / "about.json").read_text())


def store(step, about):
    import hashlib

    (step / "about.json").write_text(json.dumps(about))
    manifest = json.loads((step / "manifest.json").read_text())
    manifest["about.json"] = hashlib.sha256((step / "about.json").read_bytes()).hexdigest()
    (step / "manifest.json").write_text(json.dumps(manifest))


def test_a_setting_added_later_has_its_default(tmp_path):
    fit(tmp_path, outer={"depth": 2})
    step, about = stored(tmp_path)
    del (
        about["config"]["fit"]["patience"],
        about["config"]["fit"]["evaluate"]["tta"],
        about["config"]["config"]["depth"],
    )
    store(step, about)
    fit(tmp_path, outer={"depth": 2})
    with pytest.raises(train.ConfigError, match="  patience: was 0, now 5"):
        fit(tmp_path, patience=5)


def test_settings_that_do_not_affect_training_may_change(tmp_path):
    before = fit(tmp_path, outer={"runs": "a"})
    after = fit(tmp_path, outer={"runs": "b"}, checkpoint={"keep": 2}, restore_best=True)
    assert after.history == before.history


def test_settings_are_named_as_in_the_config(tmp_path):
    fit(tmp_path, outer={"train": {"epochs": 1}, "train_data": 64})
    with pytest.raises(train.ConfigError) as caught:
        fit(tmp_path, outer={"train": {"epochs": 3}, "train_data": 32}, epochs=3, seed=4)
    lines = str(caught.value).splitlines()[1:]
    expected = ["seed: was 0, now 4", "train.epochs: was 1, now 3", "train_data: was 64, now 32"]
    assert sorted(lines) == [f"  {line}" for line in expected]


def test_another_version_of_jax_is_reported(tmp_path, capsys):
    fit(tmp_path)
    step, about = stored(tmp_path)
    about["versions"]["jax"] = "0.9.9"
    store(step, about)
    fit(tmp_path)
    out = capsys.readouterr().out
    assert "saved with other package versions, so results may differ:\n  jax: was 0.9.9, now " in out
    fit(tmp_path, model(jnp.tanh))  # programs of two releases cannot be compared


def test_another_watched_metric_is_refused(tmp_path):
    """The checkpoint holds the best value of the metric."""
    metric = lambda scale: {"m": cnn.metrics.Metric(lambda y, batch: (scale * y).sum(), lambda total: total)}

    def fit_watching(scale, watch):
        options = {"eval_data": TEST_DATA, "config": CONFIG | {"watch": watch}}
        return train.fit(model(), FEW, metrics=metric(scale), run=train.Run("test", {}, folder=tmp_path), **options)

    history = fit_watching(1.0, "m").history
    assert fit_watching(1.0, "m").history == history
    with pytest.raises(train.ConfigError, match="model in evaluation"):
        fit_watching(2.0, "m")


def test_another_start_is_refused(tmp_path):
    def fit_from(params):
        run = train.Run("test", {}, folder=tmp_path)
        return train.fit(model(), FEW, config=CONFIG, run=run, start=None if params is None else (params, {}))

    params, _ = model().init(jax.random.key(3), FEW.images[:1] / 255)
    history = fit_from(params).history
    assert fit_from(params).history == history
    for other in (None, jax.tree.map(lambda leaf: 2 * leaf, params)):
        with pytest.raises(train.ConfigError, match=r"start: was [0-9a-f]{16}, now "):
            fit_from(other)


def test_programs():
    x = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    same = [program_identity(lambda x: jnp.sin(x) + 1, x), program_identity(lambda y: jnp.sin(y) + 1, x)]
    assert same[0] == same[1]
    assert program_difference({"training": same[0]}, {"training": same[1], "evaluation": same[0]}) != []
    others = [
        program_identity(lambda x: jnp.sin(x) + 2, x),
        program_identity(lambda x: jnp.cos(x) + 1, x),
        program_identity(lambda x: 1 + jnp.sin(x + 0), x),
        program_identity(lambda x: jnp.sin(x) + 1, jax.ShapeDtypeStruct((2, 4), jnp.float32)),
        program_identity(lambda x: jnp.sin(x) + 1, jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)),
        program_identity(lambda x: jax.lax.fori_loop(0, 2, lambda i, x: jnp.sin(x) + 1, x), x),
        program_identity(lambda x: jax.lax.fori_loop(0, 2, lambda i, x: jnp.sin(x) + 2, x), x),
        program_identity(lambda x: jax.lax.fori_loop(0, 3, lambda i, x: jnp.sin(x) + 2, x), x),
    ]
    hashes = [program["hash"] for program in [same[0], *others]]
    assert len(set(hashes)) == len(hashes)

"""Augmentations of label maps: the movement of the image, to the nearest position; and of signals and volumes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn
from jaxcnn import train
from jaxcnn.data import augment
from jaxcnn.data.augment import When, compose

N, HEIGHT, WIDTH = 24, 9, 12
ROWS, COLUMNS = np.indices((HEIGHT, WIDTH))
# Bilinear interpolation of the coordinates gives the position that a pixel comes from.
IMAGES = np.tile(np.stack([ROWS / HEIGHT, COLUMNS / WIDTH, np.ones_like(ROWS)], -1).astype(np.float32), (N, 1, 1, 1))
INDICES = np.tile((WIDTH * ROWS + COLUMNS).astype(np.int32), (N, 1, 1))
WHEN = When(jnp.arange(N), 1)
MOVING = {
    "random_crop": augment.random_crop(3),
    "wrap": augment.random_crop(3, mode="wrap"),
    "translate": augment.translate(3),
    "flip": augment.flip(),
    "alternating_flip": augment.alternating_flip(),
    "rotate": augment.rotate(30),
    "affine": augment.affine(30, 3, 0.3, 0.2),
    "rand_augment": augment.rand_augment(2, 15),
}


def run(change, **batch):
    return jax.jit(lambda batch: change(jax.random.key(3), batch, WHEN))(batch)


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", [name for name in MOVING if name != "rand_augment"])
def test_a_label_map_moves_with_its_image(name):
    y = run(compose(MOVING[name], label_fill=-1), image=IMAGES, label=INDICES, other=INDICES)
    assert y["label"].dtype == np.int32
    np.testing.assert_array_equal(y["other"], INDICES)
    row, column, inside = (np.asarray(y["image"][..., i]) for i in range(3))
    row, column, inside = row * HEIGHT, column * WIDTH, inside > 1 - 1e-5
    expected = np.round(row).astype(int) * WIDTH + np.round(column).astype(int)
    clear = inside & (np.abs(row % 1 - 0.5) > 1e-3) & (np.abs(column % 1 - 0.5) > 1e-3)
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(y["label"][clear], expected[clear])
    assert (np.asarray(y["label"])[np.asarray(y["image"][..., 2]) == 0] == -1).all()  # far outside
    assert (y["label"] != INDICES).any()


def test_rand_augment_moves_labels_in_its_geometric_operations_only():
    change, operations, seen = augment.rand_augment(1, 15), augment._rand_augment_operations(0.5), set()
    moving = {"rotate", "shear_x", "shear_y", "translate_x", "translate_y"}
    moved = jax.jit(lambda key, label: change.on_label(key, label, When(), jnp.array([-1])))
    for seed in range(90):
        key = jax.random.key(seed)
        index_key, sign_key = jax.random.split(jax.random.split(key, 1)[0])
        index, sign = int(jax.random.randint(index_key, (), 0, 14)), jax.random.rademacher(sign_key, (), jnp.float32)
        label = moved(key, INDICES[0, ..., None])[..., 0]
        name = list(operations)[index]
        if name in seen:
            continue
        seen.add(name)
        if name not in moving:
            np.testing.assert_array_equal(label, INDICES[0])
            continue
        image = np.asarray(operations[name](jnp.asarray(IMAGES[0]), sign))
        row, column = image[..., 0] * HEIGHT, image[..., 1] * WIDTH
        clear = (image[..., 2] > 1 - 1e-5) & (np.abs(row % 1 - 0.5) > 1e-3) & (np.abs(column % 1 - 0.5) > 1e-3)
        expected = np.round(row) * WIDTH + np.round(column)
        np.testing.assert_array_equal(np.asarray(label)[clear], expected[clear])
        assert (label != INDICES[0]).any()
    assert seen > moving


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", MOVING)
def test_one_hot_maps_move_like_classes_and_images_are_drawn_as_without_labels(name):
    classes = np.random.default_rng(0).integers(0, 4, (N, HEIGHT, WIDTH)).astype(np.uint8)
    chain = (MOVING[name], augment.brightness(0.3), augment.flip())
    y = run(compose(*chain, label_fill=2), image=IMAGES, label=classes)
    one_hot = run(compose(*chain, label_fill=[0, 0, 1, 0]), image=IMAGES, label=np.eye(4, dtype=np.float32)[classes])
    np.testing.assert_array_equal(one_hot["label"], np.eye(4)[np.asarray(y["label"])])
    images = jax.jit(lambda images: compose(*chain)(jax.random.key(3), images, WHEN))(IMAGES)
    np.testing.assert_array_equal(y["image"], images)


def test_what_leaves_labels_unchanged():
    shift = lambda key, image, when: jnp.roll(image, 1, 0)
    for change in (
        compose(shift, augment.brightness(0.5), augment.cutout(4), augment.random_erasing(1.0)),
        compose(augment.flip(1.0), augment.rotate(20), augment_labels=False),
    ):
        y = run(change, image=IMAGES, label=INDICES)
        np.testing.assert_array_equal(y["label"], INDICES)
        assert (y["image"] != IMAGES).any()
    classes = np.arange(N)
    np.testing.assert_array_equal(run(compose(augment.rotate(20)), image=IMAGES, label=classes)["label"], classes)
    reflected = run(compose(augment.random_crop(2), augment.flip()), image=IMAGES, label=INDICES)["label"]
    assert (reflected != INDICES).any()  # without a label_fill, because nothing comes from outside
    assert reflected.min() >= 0
    batch = {"image": IMAGES}
    assert compose()(jax.random.key(0), batch) is batch


@pytest.mark.parametrize(
    ("change", "label", "message"),
    [
        (
            compose(augment.rotate(9)),
            INDICES,
            "rotate moves label maps: set label_fill, the label of positions outside",
        ),
        (compose(augment.translate(2)), INDICES, "translate moves label maps: set label_fill"),
        (compose(augment.rand_augment()), INDICES, "rand_augment moves label maps: set label_fill"),
        (compose(augment.flip()), INDICES[:, 1:], r"labels of shape \(24, 8, 12\) do not have the size of images"),
        (compose(augment.flip()), np.zeros((N, 5, 4)), r"or set augment_labels to False"),
        (compose(augment.flip()), INDICES[:5], "one label map per image, got 24 images, 5 maps"),
        (compose(augment.rotate(9), label_fill=300), INDICES.astype(np.uint8), "label_fill 300 does not fit .* uint8"),
        (compose(augment.rotate(9), label_fill=[1, 2]), INDICES, "label_fill must be a number, or 1 numbers"),
    ],
)
def test_mistakes(change, label, message):
    with pytest.raises(ValueError, match=message):
        run(change, image=IMAGES, label=label)


def test_signals_and_volumes():
    random = np.random.default_rng(0)
    for shape in ((20, 3), (6, 7, 8, 2)):
        x, rank = random.normal(size=shape).astype(np.float32), len(shape) - 1
        for seed in range(2):
            key = jax.random.key(seed)
            shifts = np.asarray(jax.random.randint(key, (rank,), 0, 5))
            for mode in ("constant", "reflect"):
                padded = np.pad(x, [(2, 2)] * rank + [(0, 0)], mode)
                expected = padded[tuple(slice(a, a + n) for a, n in zip(shifts, shape, strict=False))]
                np.testing.assert_array_equal(augment.random_crop(2, mode=mode)(key, x, When()), expected)
            covered = np.asarray(augment.cutout(3)(key, jnp.ones(shape), When())) == 0
            sides = [np.flatnonzero(covered.any(tuple({*range(rank + 1)} - {axis}))) for axis in range(rank)]
            assert covered.sum() == np.prod([len(side) for side in sides]) * shape[-1]
            assert all(1 < len(side) <= 3 and np.ptp(side) == len(side) - 1 for side in sides)
    volume = jnp.asarray(random.random((4, 5, 6, 3)), jnp.float32)
    np.testing.assert_array_equal(augment.flip(1.0)(jax.random.key(0), volume, When()), volume[:, :, ::-1])
    for name in ("brightness", "contrast", "saturation"):
        key, change = jax.random.key(1), getattr(augment, name)(0.5)
        frames = change(key, volume.reshape(4, 30, 1, 3).reshape(4 * 5, 6, 3), When())  # as one large image
        np.testing.assert_allclose(change(key, volume, When()), frames.reshape(volume.shape), atol=1e-6)
    signal, key = jnp.ones((8, 2)), jax.random.key(0)
    for change in (
        augment.flip(),
        augment.alternating_flip(),
        augment.rotate(9),
        augment.affine(),
        augment.contrast(1),
    ):
        with pytest.raises(ValueError, match=r"needs an image \(H, W, C\).*, got float32 of shape \(8, 2\)"):
            change(key, signal, When())
    for change in (augment.rotate(9), augment.rand_augment(), augment.random_erasing()):
        with pytest.raises(ValueError, match=r"needs an image \(H, W, C\), got float32 of shape \(4, 5, 6, 3\)"):
            change(key, volume, When())


def label_error(model):
    """A loss whose metric "moved" is the fraction of positions whose label is not the value of the image."""

    def loss_fn(params, state, batch, *, train, key=None):
        output, state = model.apply(params, state, batch["image"], train=train, key=key)
        loss = jnp.mean(jnp.square(output))
        moved = jnp.mean(batch["image"][..., 0] != batch["label"], dtype=jnp.float32)
        return loss, (state, {"loss": loss, "moved": moved})

    return loss_fn


@pytest.mark.parametrize("spatial", [(6, 7), *(pytest.param(n, marks=pytest.mark.slow) for n in [(16,), (4, 5, 6)])])
def test_fit_moves_label_maps(tmp_path, spatial):
    label = np.random.default_rng(0).integers(0, 9, (8, *spatial))
    train_data = {"image": label[..., None].astype(np.float32), "label": label}
    model = cnn.conv(1)

    def moved(name, **config):
        config = {"epochs": 1, "batch_size": 4, "checkpoint": {"keep": 0}} | config
        fitted = train.fit(
            model, train_data, loss=label_error, config=config, run=train.Run("t", {}, folder=tmp_path / name)
        )
        return fitted.history[0]["train"]["moved"]

    chain = [["random_crop", 2], ["translate", 1], *(["flip"] if len(spatial) > 1 else [])]
    assert moved("1", augment=chain, label_fill=0) == 0
    assert moved("2", augment=chain, augment_labels=False) > 0.3
    with pytest.raises(ValueError, match=r"translate moves label maps: set label_fill"):
        moved("3", augment=chain)
    with pytest.raises(train.ConfigError, match=r"label_fill must be a number, such as 255, or a list of numbers, got"):
        moved("4", augment=chain, label_fill=["a"])


def test_label_maps_that_do_not_fit_into_32_bits():
    batch = {"image": IMAGES, "label": np.full(IMAGES.shape[:3], 2**32 + 5)}
    with pytest.raises(ValueError, match=r"compose: label\[0, 0, 0, 0\] is 4294967301, which does not fit into int32"):
        augment.compose(augment.flip())(jax.random.key(0), batch)

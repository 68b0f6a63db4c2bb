"""Folders of images and masks: kinds of masks, sizes, orientation, and files that do not fit."""

import functools
import io

import numpy as np
import pytest
from PIL import Image

import jaxcnn as cnn
from jaxcnn import metrics, train
from jaxcnn.data import DataError, segmentation_folder
from tests.test_image_files import flipped, png, turned

CLASSES = ("sky", "road", "car")
COLORS = {(10, 20, 30): 0, (128, 64, 128): 1, (0, 0, 142): 2, (255, 255, 255): 255}
RANDOM = np.random.default_rng(0)
LABEL = RANDOM.choice(np.array([0, 1, 2, 255], np.uint8), (20, 30))
IMAGE = RANDOM.integers(0, 256, (20, 30, 3), np.uint8)


def write(folder, name, image, mode=None, **options):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    (image.convert(mode) if mode else image).save(path, **options)


def palette(label):
    image = Image.fromarray(label).convert("P")
    image.putpalette(np.random.default_rng(1).integers(0, 256, 768).tolist())
    image.putdata(label.ravel().tolist())
    return image


def colored(label):
    table = np.zeros((256, 3), np.uint8)
    for color, number in COLORS.items():
        table[number] = color
    return table[label]


@pytest.fixture
def folder(tmp_path):
    """Two pairs of (20, 30) pixels, one of them in a subfolder."""
    write(tmp_path / "images", "a.png", IMAGE)
    write(tmp_path / "images", "more/b.jpg", IMAGE[::-1])
    write(tmp_path / "masks", "a.png", LABEL)
    write(tmp_path / "masks", "more/b.png", LABEL[::-1])
    return tmp_path


def read(folder, *args, classes=CLASSES, **options):
    return segmentation_folder(folder / "images", folder / "masks", *args, classes=classes, **options)


def test_keeps_the_size_and_all_values(folder):
    (folder / "masks" / ".DS_Store").write_bytes(b"")
    (folder / "images" / "Thumbs.db").write_bytes(b"")
    found = read(folder)
    assert found.classes == CLASSES
    assert (found.images.dtype, found.labels.dtype) == (np.uint8, np.uint8)
    np.testing.assert_array_equal(found.images[0], IMAGE)
    np.testing.assert_array_equal(found.labels, [LABEL, LABEL[::-1]])
    assert read(folder, channels=1).images.shape == (2, 20, 30, 1)


def masks_of_every_kind():
    bits = (LABEL == 1).astype(np.uint8)
    plain = LABEL % 3
    transparent = np.dstack([colored(LABEL), np.full(LABEL.shape, 255, np.uint8)])
    yield "gray", Image.fromarray(LABEL), LABEL, {}
    yield "palette", palette(LABEL), LABEL, {}
    yield "16 bits", Image.fromarray(LABEL.astype(np.uint16)), LABEL, {}
    yield "1 bit", Image.fromarray(255 * bits).convert("1"), bits, {}
    for n in (2, 4):
        yield f"gray of {n} bits", png(n, 0, plain), plain, {}
    yield "color", Image.fromarray(colored(LABEL)), LABEL, {"colors": COLORS}
    yield "opaque color", Image.fromarray(transparent), LABEL, {"colors": COLORS}
    gray = {(0, 0, 0): 2, (1, 1, 1): 0, (2, 2, 2): 1}
    yield "gray as color", Image.fromarray(plain), np.array([2, 0, 1])[plain], {"colors": gray}


@pytest.mark.parametrize(
    ("name", "mask", "expected", "options"), [*masks_of_every_kind()], ids=lambda x: x if type(x) is str else ""
)
def test_every_kind_of_mask(tmp_path, name, mask, expected, options):
    write(tmp_path / "images", "a.jpg", IMAGE)
    (tmp_path / "masks").mkdir()
    if isinstance(mask, bytes):
        (tmp_path / "masks" / "a.png").write_bytes(mask)
    else:
        mask.save(tmp_path / "masks" / "a.png")
    np.testing.assert_array_equal(read(tmp_path, **options).labels, expected[None])


@pytest.mark.parametrize("size", [(10, 10), (5, 20), (40, 60), (33, 17)])
@pytest.mark.parametrize("color", [False, True])
def test_resizing_takes_the_nearest_label_of_the_same_crop(folder, size, color):
    if color:
        for name, label in (("a", LABEL), ("more/b", LABEL[::-1])):
            write(folder / "masks", f"{name}.png", colored(label))
    found = read(folder, size, colors=COLORS if color else None)
    assert found.images.shape == (2, *size, 3)
    scale = min(20 / size[0], 30 / size[1])  # of the largest crop with the ratio of `size`, at the center
    rows, columns = (
        np.floor((full - scale * n) / 2 + scale * (np.arange(n) + 0.5)).astype(int)
        for full, n in zip((20, 30), size, strict=True)
    )
    np.testing.assert_array_equal(found.labels[0], LABEL[rows][:, columns])


def test_images_are_resized_with_antialiasing_in_step_with_masks(tmp_path):
    """Blocks of 8 x 8 pixels: after resizing to half, each block still has its gray value away from its border."""
    blocks = np.kron(RANDOM.integers(0, 3, (5, 6)), np.ones((8, 8), int)).astype(np.uint8)
    noise = 20 * (np.indices(blocks.shape).sum(0) % 2)  # a checkerboard, whose mean over 2 x 2 pixels is 10
    write(tmp_path / "images", "a.png", (60 * blocks + noise).astype(np.uint8))
    write(tmp_path / "masks", "a.png", blocks)
    found = read(tmp_path, (20, 24), channels=1)
    inner = np.isin(np.arange(24) % 4, (1, 2))
    image, label = (x[0][inner[:20]][:, inner] for x in (found.images[..., 0], found.labels))
    np.testing.assert_allclose(image, 60.0 * label + 10, atol=3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, orientation):
    """An image that its EXIF orientation rotates, with an upright mask, and with one that has the same orientation."""
    write(tmp_path / "images", "a.png", colored(LABEL), exif=turned(orientation))
    write(tmp_path / "masks", "a.png", LABEL, exif=turned(orientation))
    found = read(tmp_path)
    np.testing.assert_array_equal(found.images[0], colored(found.labels[0]))
    write(tmp_path / "masks", "a.png", found.labels[0])
    np.testing.assert_array_equal(read(tmp_path).labels, found.labels)
    half = read(tmp_path, (10, 10))
    if orientation > 4:
        write(tmp_path / "masks", "a.png", LABEL)
        with pytest.raises(
            DataError, match=r"image, 20 x 30, found 30 x 20; if the EXIF orientation rotates the image"
        ):
            read(tmp_path)
    assert half.labels.shape == (1, 10, 10)


def encoded(image, kind):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def transparent(label):
    return np.dstack([colored(label), label])


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("b.png", LABEL, {}, r"mask .*b\.png has no partner in .*images; add the file, or pass on_bad_image"),
        ("a.png", LABEL[:, :9], {}, r"a\.png: expected the size of its image, 30 x 20, found 9 x 20$"),
        ("a.png", encoded(LABEL, "JPEG"), {}, "expected a mask in PNG format, found JPEG; JPEG compression changes"),
        ("a.png", encoded(LABEL, "BMP"), {}, "expected a mask in PNG format, found BMP$"),
        ("a.png", encoded(LABEL, "GIF"), {}, r"masks/a\.png: cannot be read as an image"),
        ("a.jpg", LABEL, {}, r"masks: expected one file named a, found a\.jpg and a\.png"),
        ("a.png", b"", {}, r"masks/a\.png: cannot be read as an image"),
        ("a.png", np.where(LABEL == 2, 3, LABEL), {}, r"a\.png: class 3 at \(\d+, \d+\); expected 0 to 2, or 255"),
        ("a.png", LABEL, {"ignore": None}, r"a\.png: class 255 at \(\d+, \d+\); expected 0 to 2$"),
        ("a.png", LABEL.astype(np.uint16) * 257, {}, r"class (257|514|65535) at \(\d+, \d+\); expected 0 to 2"),
        ("a.png", colored(LABEL), {}, "expected palette indices or gray values, found RGB; pass colors for these"),
        (
            "a.png",
            colored(LABEL) // 2,
            {"colors": COLORS},
            r"unknown color \(\d+, \d+, \d+\) at \(0, 0\); expected one",
        ),
        ("a.png", transparent(LABEL), {"colors": COLORS}, "expected a mask without transparency"),
        ("a.png", LABEL.astype(np.uint16), {"colors": COLORS}, "expected a mask in color, found 16-bit gray values"),
        ("a.png", flipped(encoded(LABEL, "PNG"), 50), {}, r"masks/a\.png: .* the PNG is damaged: the checksum"),
        ("a.png", LABEL, {"max_pixels": 599}, "expected at most 599 pixels, found 30 x 20"),
    ],
)
def test_masks_that_do_not_fit(folder, name, content, options, message):
    if isinstance(content, bytes):
        (folder / "masks" / name).write_bytes(content)
    else:
        write(folder / "masks", name, content)
    with pytest.raises(DataError, match=message):
        read(folder, **options)


def test_unknown_color_is_named_with_its_position(folder):
    label = colored(LABEL)
    label[7, 11] = (1, 2, 3)
    write(folder / "masks", "a.png", label)
    write(folder / "masks", "more/b.png", colored(LABEL))
    with pytest.raises(DataError, match=r"^\S*masks/a\.png: unknown color \(1, 2, 3\) at \(7, 11\)"):
        read(folder, colors=COLORS, on_bad_image="skip")


def test_skipping(folder):
    write(folder / "images", "alone.png", IMAGE)
    write(folder / "images", "other.png", IMAGE[:9])
    write(folder / "masks", "other.png", LABEL)
    with pytest.raises(DataError, match=r"image .*alone\.png has no partner"):
        read(folder)
    with (
        pytest.warns(UserWarning, match=r"skipped: image .*alone\.png has no partner"),
        pytest.warns(UserWarning, match=r"skipped 1 of 3 images; first error: .*other\.png: expected the size of its"),
    ):
        found = read(folder, on_bad_image="skip")
    assert found.images.shape == (2, 20, 30, 3)
    assert len(found.labels) == 2


def test_skipping_keeps_the_size_of_the_first_good_image(folder):
    names = "a.png", "more/b.jpg"
    good = [(folder / "images" / name).read_bytes() for name in names]
    for name, content in zip(names, good, strict=True):
        (folder / "images" / name).write_bytes(b"damaged")
        with pytest.warns(UserWarning, match="skipped 1 of 2 images"):
            found = read(folder, on_bad_image="skip")
        assert found.images.shape == (1, 20, 30, 3)
        (folder / "images" / name).write_bytes(content)
    for name in names:
        (folder / "images" / name).write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"b\.jpg: cannot be read"):
        read(folder, on_bad_image="skip")


@pytest.mark.parametrize("mask", [b"junk", encoded(LABEL[:9, :9], "PNG")], ids=["damaged", "another size"])
def test_the_image_of_a_skipped_mask_does_not_decide_the_size(folder, mask):
    write(folder / "images", "0.png", IMAGE[:10, :10])
    (folder / "masks" / "0.png").write_bytes(mask)
    with pytest.warns(UserWarning, match="skipped 1 of 3 images; first error: .*0.png"):
        found = read(folder, on_bad_image="skip")
    np.testing.assert_array_equal(found.labels, [LABEL, LABEL[::-1]])


def test_images_of_several_sizes_need_a_size(folder):
    write(folder / "images", "c.png", IMAGE[:9])
    write(folder / "masks", "c.png", LABEL[:9])
    with pytest.raises(
        DataError, match=r"c\.png: expected the size of the first image, 30 x 20, found 30 x 9; pass size"
    ):
        read(folder)
    assert read(folder, (8, 8)).labels.shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"classes": "sky"}, TypeError, "classes must be a list or tuple of class names, got 'sky'"),
        ({"classes": {"sky"}}, TypeError, "classes must be a list or tuple of class names, got {'sky'}"),
        ({"classes": ()}, ValueError, "classes must be different class names"),
        ({"classes": ("a", "a")}, ValueError, "classes must be different class names"),
        ({"ignore": 1}, ValueError, "ignore must not be one of the 3 classes, got 1"),
        ({"ignore": "x"}, TypeError, "segmentation_folder: ignore must be an int, got 'x'"),
        ({"colors": {(1, 2, 3): 7}}, ValueError, r"color \(1, 2, 3\) has class 7; expected 0 to 2"),
        ({"colors": {(1, 2, 3): None}, "ignore": None}, ValueError, r"color \(1, 2, 3\) has class None"),
        ({"colors": {(1, 2): 0}}, ValueError, r"a color must be three integers from 0 to 255, got \(1, 2\)"),
        ({"colors": {(0.5, 0, 0): 0}}, ValueError, r"three integers from 0 to 255, got \(0\.5, 0, 0\)"),
        ({"colors": {(True, 0, 0): 0}}, ValueError, r"three integers from 0 to 255, got \(True, 0, 0\)"),
        ({"colors": [(0, 0, 0)]}, TypeError, r"colors must be a dict from colors to classes, got \[\(0, 0, 0\)\]"),
        ({"colors": {}}, ValueError, "colors is empty"),
        ({"on_bad_image": "ignore"}, ValueError, "unknown on_bad_image 'ignore'; expected one of: raise, skip"),
        ({"channels": 4}, ValueError, "segmentation_folder: channels must be 1 or 3, got 4"),
        ({"size": 24}, TypeError, r"segmentation_folder: size must be \(height, width\), got 24"),
        ({"max_pixels": None}, TypeError, "segmentation_folder: max_pixels must be a number, got None"),
    ],
)
def test_wrong_arguments(folder, options, error, message):
    with pytest.raises(error, match=message):
        read(folder, **options)


def test_colors_of_numpy_bytes(folder):
    for name, label in (("a", LABEL), ("more/b", LABEL[::-1])):
        write(folder / "masks", f"{name}.png", colored(label))
    colors = {tuple(np.array(color, np.uint8)): number for color, number in COLORS.items()}
    np.testing.assert_array_equal(read(folder, colors=colors).labels, [LABEL, LABEL[::-1]])


def test_folders_without_pairs(folder):
    with pytest.raises(DataError, match="nowhere: cannot be read"):
        segmentation_folder(folder / "images", folder / "nowhere", classes=CLASSES)
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=r"no image has a mask with its file name in .*empty"):
        segmentation_folder(folder / "images", folder / "empty", classes=CLASSES)


def test_more_classes_than_bytes(tmp_path):
    label = RANDOM.integers(0, 300, (6, 6)).astype(np.uint16)
    write(tmp_path / "images", "a.png", IMAGE[:6, :6])
    write(tmp_path / "masks", "a.png", label)
    for size in (None, (6, 6)):
        found = read(tmp_path, size, classes=[str(i) for i in range(300)], ignore=None)
        assert found.labels.dtype == np.int32
        np.testing.assert_array_equal(found.labels[0], label)


@pytest.mark.slow
def test_fit_learns_masks_with_augmentation(tmp_path):
    """The color of a pixel is its class."""
    for i in range(8):
        label = np.kron(RANDOM.integers(0, 3, (4, 4)), np.ones((4, 4), int)).astype(np.uint8)
        write(tmp_path / "images", f"{i}.png", colored(label))
        label[0, 0] = 255
        write(tmp_path / "masks", f"{i}.png", palette(label))
    scenes = read(tmp_path, (16, 16))
    config = {"epochs": 15, "batch_size": 4, "checkpoint": {"keep": 0}, "optimizer": {"learning_rate": 0.1}}
    config |= {"augment": ["flip", ["translate", 2]], "label_fill": [255]}
    run = train.Run("masks", {}, folder=tmp_path / "run")
    loss, measured = functools.partial(cnn.cross_entropy, ignore_label=255), {"iou": metrics.mean_iou(255)}
    fitted = train.fit(cnn.conv(3, 1), scenes, eval_data=scenes, loss=loss, metrics=measured, config=config, run=run)
    assert fitted.history[-1]["test"]["iou"] > 0.95

"""Folders of images: what is in them; and no file, however damaged, gives anything but an image or a DataError."""

import io
import os
import random
import re
import struct
import time
import tracemalloc
import warnings
import zlib

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcnn.data import DataError, image_folder, image_stream
from jaxcnn.data._folder import list_images, reader

SMOOTH = (np.add.outer(np.arange(40), np.arange(60))[..., None] * np.array([1, 2, 0]) % 256).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(("cat", "dog", "eel")):
        for j in range(3):
            write(tmp_path / name / f"{j}.png", encoded(np.full((20, 30, 3), 20 * i + j, np.uint8)))
    return tmp_path


def test_reads_every_image_with_its_class(folder):
    (folder / "cat" / "notes.txt").write_text("no image")
    (folder / "cat" / ".hidden.png").write_bytes(b"")
    (folder / ".git").mkdir()
    write(folder / "dog" / "deeper" / "9.JPG", encoded(np.full((8, 8, 3), 77, np.uint8), "JPEG"))
    pets = image_folder(folder, (16, 24))
    assert pets.images.shape == (10, 16, 24, 3)
    assert pets.images.dtype == np.uint8
    assert pets.classes == ("cat", "dog", "eel")
    np.testing.assert_array_equal(pets.labels, [0, 0, 0, 1, 1, 1, 1, 2, 2, 2])
    assert pets.labels.dtype == np.int32
    np.testing.assert_array_equal(pets.images[:, 0, 0, 0], [0, 1, 2, 20, 21, 22, 77, 40, 41, 42])
    assert image_folder(folder, (8, 8), channels=1).images.shape == (10, 8, 8, 1)


def test_classes_in_a_given_order(folder):
    pets = image_folder(folder, (8, 8), classes=("eel", "dog", "cat", "fox"))
    np.testing.assert_array_equal(pets.labels, [0] * 3 + [1] * 3 + [2] * 3)
    assert image_folder(folder, (8, 8), classes=["eel", "dog", "cat"]).classes == ("eel", "dog", "cat")
    with pytest.raises(DataError, match="unknown class 'dog'; expected one of: cat, eel"):
        image_folder(folder, (8, 8), classes=("cat", "eel"))


@pytest.mark.parametrize("classes", ["ab", {"cat"}, {"cat": 0}, [0, 1]])
def test_classes_are_an_ordered_list(folder, classes):
    """The order of a set changes from process to process, and with it the labels."""
    message = re.escape(f"classes must be a list or tuple of class names, got {classes!r}")
    with pytest.raises(TypeError, match=f"^image_folder: {message}"):
        image_folder(folder, (8, 8), classes=classes)
    with pytest.raises(TypeError, match=f"^image_stream: {message}"):
        image_stream(folder, (8, 8), classes=classes, batch_size=1)


def test_scales_until_it_covers_and_cuts_around_the_middle(tmp_path):
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 10:50] = 200  # what is left after the sides are cut
    write(tmp_path / "a" / "1.png", encoded(image))
    y = image_folder(tmp_path, (20, 20)).images[0]
    assert (y[:, 2:-2] == 200).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_a_image_as_its_camera_says(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    write(tmp_path / "a" / "1.jpg", encoded(SMOOTH, "JPEG", exif=exif, quality=95, subsampling=0))
    turned = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM}
    turned |= {5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE}
    turned |= {8: Image.Transpose.ROTATE_90}
    expected = Image.fromarray(SMOOTH)
    expected = np.asarray(expected.transpose(turned[orientation]) if orientation > 1 else expected)
    y = image_folder(tmp_path, expected.shape[:2]).images[0]
    assert np.abs(y.astype(int) - expected).mean() < 3


def test_every_kind_of_image_becomes_rgb(tmp_path):
    color = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    palette = Image.fromarray(color).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "palette.png")
    Image.fromarray(np.full((8, 8), 0x6400, np.uint16)).save(tmp_path / "16bit.png")
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(tmp_path / "gray.png")
    Image.fromarray(np.dstack([color, np.zeros((8, 8), np.uint8)])).save(tmp_path / "clear.png")
    Image.fromarray(np.full((8, 8), 255, np.uint8)).convert("1").save(tmp_path / "bits.png")
    Image.fromarray(color).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    Image.fromarray(color).save(tmp_path / "web.webp", lossless=True)
    Image.fromarray(color).save(tmp_path / "windows.bmp")
    read = reader((8, 8), 3, 10**6)
    expected = {"palette.png": (200, 100, 50), "16bit.png": (100,) * 3, "gray.png": (100,) * 3, "clear.png": (255,) * 3}
    expected |= {"bits.png": (255,) * 3, "cmyk.jpg": (200, 100, 50)}
    expected |= {"web.webp": (200, 100, 50), "windows.bmp": (200, 100, 50)}
    for name, pixel in expected.items():
        assert np.abs(read(tmp_path / name)[4, 4].astype(int) - pixel).max() <= 3, name


def test_bad_images(folder):
    write(folder / "cat" / "1.png", encoded(SMOOTH)[:60])
    write(folder / "eel" / "2.png", b"")
    with pytest.raises(DataError, match=r"1\.png: cannot be read as an image"):
        image_folder(folder, (8, 8))
    with pytest.warns(UserWarning, match=r"skipped 2 of 9 images; first error: .*1\.png"):
        pets = image_folder(folder, (8, 8), on_bad_image="skip")
    np.testing.assert_array_equal(pets.images[:, 0, 0, 0], [0, 2, 20, 21, 22, 40, 41])
    np.testing.assert_array_equal(pets.labels, [0, 0, 1, 1, 1, 2, 2])
    for path in folder.glob("dog/*.png"):
        path.write_bytes(b"none")
    with (
        pytest.warns(UserWarning, match="skipped 5 of 9 images"),
        pytest.raises(DataError, match=r"no image of dog can be read"),
    ):
        image_folder(folder, (8, 8), on_bad_image="skip")
    for path in folder.rglob("*.png"):
        path.write_bytes(b"none")
    with pytest.raises(DataError, match="none of 9 images can be read"):
        image_folder(folder, (8, 8), on_bad_image="skip")
    with pytest.raises(ValueError, match="unknown on_bad_image 'ignore'; expected one of: raise, skip"):
        image_folder(folder, (8, 8), on_bad_image="ignore")


def test_empty_or_missing_folder(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        image_folder(tmp_path / "nowhere", (8, 8))
    with pytest.raises(DataError, match="expected a folder for each class, found none"):
        image_folder(tmp_path, (8, 8))
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="expected images"):
        image_folder(tmp_path, (8, 8))


def test_links_do_not_lead_out(folder, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.png"
    write(secret, encoded(SMOOTH))
    os.symlink(secret, folder / "cat" / "link.png")
    with pytest.raises(DataError, match=r"link\.png: points outside"):
        list_images(folder)
    (folder / "cat" / "link.png").unlink()
    os.symlink(folder / "dog" / "1.png", folder / "cat" / "link.png")
    with pytest.warns(UserWarning, match="skipped: 1 x link in class cat to an image of class dog"):
        assert len(list_images(folder).paths) == 9


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, body):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(50_000, 50_000), (1, 10**9), (2**31 - 1, 2**31 - 1)])
def test_bomb_is_not_unpacked(tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(*size, zlib.compress(bytes(10**6))))
    read = reader((8, 8), 3, 64_000_000)
    read_once = encoded(SMOOTH)  # pillow loads its formats on first use
    (tmp_path / "good.png").write_bytes(read_once)
    read(tmp_path / "good.png")
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(DataError, match=r"bomb\.png"):
        read(path)
    assert time.process_time() - began < 0.5
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_the_limit_is_ours_to_set(tmp_path):
    write(tmp_path / "a" / "1.png", encoded(SMOOTH))
    assert len(image_folder(tmp_path, (8, 8), max_pixels=2400).images) == 1
    with pytest.raises(DataError, match="expected at most 2,399 pixels, found 60 x 40"):
        image_folder(tmp_path, (8, 8), max_pixels=2399)
    with pytest.raises(TypeError, match="image_folder: max_pixels must be a number, got None"):
        image_folder(tmp_path, (8, 8), max_pixels=None)
    with pytest.raises(ValueError, match="image_folder: max_pixels must be above 0, got 0"):
        image_folder(tmp_path, (8, 8), max_pixels=0)


def test_the_limit_of_pillow_is_named(tmp_path):
    (tmp_path / "large.png").write_bytes(png(15_000, 12_500, b""))
    limit = "more than 178,956,970 pixels, the limit of Pillow, which is twice PIL.Image.MAX_IMAGE_PIXELS"
    with pytest.raises(DataError, match=rf"large\.png: cannot be read as an image: {limit}"):
        reader((8, 8), 3, 400_000_000)(tmp_path / "large.png")


def test_other_formats_are_refused_by_any_name(tmp_path):
    for kind in ("GIF", "TIFF", "PPM", "ICO"):
        path = tmp_path / f"{kind}.png"
        path.write_bytes(encoded(SMOOTH, kind))
        with pytest.raises(DataError, match="cannot be read as an image"):
            reader((8, 8), 3, 10**6)(path)


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_mutations(tmp_path, kind):
    """Each an image of the right form, or a DataError; nothing else, no warning, in bounded CPU time."""
    whole = encoded(SMOOTH, kind)
    rng = random.Random(kind)
    read = reader((8, 8), 3, 10**6)
    path = tmp_path / "mutated.png"
    good = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2000):
            content = bytearray(whole)
            match rng.randrange(4):
                case 0:
                    for _ in range(rng.randint(1, 8)):
                        content[rng.randrange(len(content))] = rng.randrange(256)
                case 1:
                    del content[rng.randrange(len(content)) :]
                case 2:
                    at = rng.randrange(len(content))
                    content[at:at] = rng.randbytes(rng.randint(1, 40))
                case 3:
                    at = rng.randrange(min(64, len(content)))
                    content[at : at + 4] = rng.randbytes(4)
            path.write_bytes(content)
            began = time.process_time()
            try:
                assert read(path).shape == (8, 8, 3)
                good += 1
            except DataError:
                pass
            assert time.process_time() - began < 2
    assert 0 < good < 2000


def take(stream, step, count):
    batches = stream.batches(step)
    return [next(batches) for _ in range(count)]


def test_stream_is_every_image_once_an_epoch_and_a_function_of_the_step(folder):
    stream = image_stream(folder, (8, 8), batch_size=3, seed=1)
    assert stream.steps == 3
    assert stream.image == jax.ShapeDtypeStruct((3, 8, 8, 3), np.uint8)
    batches = take(stream, 0, 6)
    values = [batch["image"][:, 0, 0, 0].tolist() for batch in batches]
    labels = [batch["label"].tolist() for batch in batches]
    everything = [0, 1, 2, 20, 21, 22, 40, 41, 42]
    for epoch in (values[:3], values[3:]):
        assert sorted(value for row in epoch for value in row) == everything
    assert values[:3] != values[3:]
    assert [[v // 20 for v in row] for row in values] == labels
    assert [batch["image"][:, 0, 0, 0].tolist() for batch in take(stream, 4, 2)] == values[4:]
    assert [
        b["image"][:, 0, 0, 0].tolist() for b in take(image_stream(folder, (8, 8), batch_size=3, seed=2), 0, 3)
    ] != (values[:3])


def test_stream_leaves_out_a_partial_batch_but_for_evaluation(folder):
    assert image_stream(folder, (8, 8), batch_size=4).steps == 2
    stream = image_stream(folder, (8, 8), batch_size=4, shuffle=False)
    batches = take(stream, 0, 4)
    assert stream.steps == 3
    values = [batch["image"][:, 0, 0, 0].tolist() for batch in batches]
    assert values == [[0, 1, 2, 20], [21, 22, 40, 41], [42, 42, 42, 42], [0, 1, 2, 20]]
    assert [batch["weight"].tolist() for batch in batches[1:3]] == [[1, 1, 1, 1], [1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        (
            {"batch_size": 10},
            ValueError,
            r"batch_size must be a multiple of 1 \(processes\), from 1 to 9 \(images\), got 10",
        ),
        ({"batch_size": 2.0}, TypeError, "batch_size must be an int"),
        ({"batch_size": 2, "seed": -1}, ValueError, "seed must be at least 0, got -1"),
    ],
)
def test_stream_refuses(folder, options, error, message):
    with pytest.raises(error, match=message):
        image_stream(folder, (8, 8), **options)


def test_folders_of_network_storage_and_dangling_links(tmp_path):
    for name in ("cat/1.png", "cat/@eaDir/1.png/thumb.png", "@eaDir/x.png", "dog/2.png", "#recycle/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(SMOOTH))
    files = list_images(tmp_path)
    assert (files.classes, len(files.paths)) == (("cat", "dog"), 2)
    (tmp_path / "cat" / "0.png").symlink_to("gone.png")
    with pytest.raises(DataError, match=r"0\.png: cannot be read"):
        image_stream(tmp_path, (8, 8), batch_size=1)

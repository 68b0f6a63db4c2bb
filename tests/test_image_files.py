"""Image files of every depth, turn and transparency; folders with links, strays and more pixels than memory holds."""

import io
import os
import pathlib
import re
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxcnn._arguments import short_repr
from jaxcnn.data import DataError, _decode, image_folder, image_stream, read_image, segmentation_folder
from jaxcnn.data._folder import list_images

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# A camera's turn


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_a_turned_jpeg_is_as_sharp_as_one_that_is_not(tmp_path, orientation, kind):
    """Fine stripes, read at a tenth of the size of an oblong image."""
    upright = np.tile((np.arange(1600) // 20 % 2 * 255).astype(np.uint8)[None, :, None], (400, 1, 3))
    stored = Image.fromarray(upright)
    if orientation > 1:  # what the camera has turned back
        back = {6: TURNS[8], 8: TURNS[6]}.get(orientation, TURNS[orientation])
        stored = stored.transpose(back)
    extra = {"save_all": True, "append_images": [Image.new("RGB", (9, 9))]} if kind == "MPO" else {}
    stored.save(tmp_path / "x.jpg", kind, exif=turned(orientation), quality=95, **extra)
    Image.fromarray(upright).save(tmp_path / "upright.jpg", quality=95)
    seen, plain = (read_image(tmp_path / name, (40, 160)).astype(float) for name in ("x.jpg", "upright.jpg"))
    assert np.abs(seen - plain).mean() < 2
    full = np.asarray(ImageOps.fit(Image.fromarray(upright), (160, 40), Image.Resampling.BILINEAR), float)
    assert seen.std() > 0.7 * full.std()  # what is unpacked for (160, 40) is a fifth of it


@pytest.mark.parametrize(("orientation", "size"), [(1, (30, 160)), (6, (160, 30)), (6, (15, 60))])
def test_a_jpeg_is_reduced_as_other_formats_are(tmp_path, orientation, size):
    """Although its decoder can reduce it: waves with periods of 25 and 31 pixels, also where the image is turned."""
    y, x = np.mgrid[:120, :640]
    waves = Image.fromarray((np.sin(y / 4) * np.sin(x / 5) * 120 + 128).astype(np.uint8))
    for name in ("x.jpg", "x.png"):
        waves.save(tmp_path / name, exif=turned(orientation), quality=95)
    jpeg, png = (read_image(tmp_path / name, size, channels=1).astype(float) for name in ("x.jpg", "x.png"))
    assert np.abs(jpeg - png).mean() < 2


@pytest.mark.parametrize(("dtype", "kind"), [(np.uint8, "PNG"), (np.uint16, "PNG"), (np.uint8, "WEBP")])
def test_other_formats_are_turned(tmp_path, dtype, kind):
    image = np.zeros((20, 40), dtype)
    image[:, :20] = np.iinfo(dtype).max // 256 * 240 if dtype == np.uint16 else 240
    Image.fromarray(image).save(
        tmp_path / f"x.{kind.lower()}", exif=turned(6), **({"lossless": True} if kind == "WEBP" else {})
    )
    seen = read_image(tmp_path / f"x.{kind.lower()}", (40, 20), channels=1)
    assert seen[:20].mean() > 230
    assert seen[20:].mean() < 10


@pytest.mark.parametrize("exif", [b"Exif\0\0junkjunkjunk", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_are_ignored(tmp_path, exif):
    Image.new("RGB", (9, 6), "red").save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg", (6, 9)).mean((0, 1)) == pytest.approx([254, 0, 0], abs=2)


@pytest.mark.parametrize(
    ("size", "channels", "error", "message"),
    [
        (8, 3, TypeError, r"size must be \(height, width\), got 8"),
        (None, 3, TypeError, r"size must be \(height, width\), got None"),
        ("ab", 3, TypeError, r"size must be \(height, width\), got 'ab'"),
        ((8,), 3, TypeError, r"size must be \(height, width\), got \(8,\)"),
        ((0, 1), 3, ValueError, "size must be at least 1, got 0"),
        ((-1, 24), 3, ValueError, "size must be at least 1, got -1"),
        ((2.5, 2), 3, TypeError, "size must be an int or one int per dimension, got 2.5"),
        ((8, 8), "3", TypeError, "channels must be an int, got '3'"),
        ((8, 8), 3.0, TypeError, "channels must be an int, got 3.0"),
        ((True, 8), 3, TypeError, "size must be an int or one int per dimension, got True"),
        ((8, 8), True, TypeError, "channels must be an int, got True"),
        ((8, 8), 4, ValueError, "channels must be 1 or 3, got 4"),
    ],
)
def test_size_and_channels_are_checked(tmp_path, size, channels, error, message):
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (9, 6)).save(tmp_path / "cat" / "x.png")
    readers = {
        "read_image": lambda: read_image(tmp_path / "cat" / "x.png", size, channels=channels),
        "image_folder": lambda: image_folder(tmp_path, size, channels=channels),
        "image_stream": lambda: image_stream(tmp_path, size, channels=channels, batch_size=1),
    }
    for name, read in readers.items():
        with pytest.raises(error, match=f"^{name}: {message}"):
            read()


@pytest.mark.parametrize("path", [None, 3, b"pets", np.zeros((4, 4, 3), np.uint8)])
def test_paths_are_checked(path):
    readers = {
        "read_image: path": lambda: read_image(path, (8, 8)),
        "image_folder: path": lambda: image_folder(path, (8, 8)),
        "image_stream: path": lambda: image_stream(path, (8, 8), batch_size=1),
        "segmentation_folder: images": lambda: segmentation_folder(path, "masks", classes=("a",)),
        "segmentation_folder: masks": lambda: segmentation_folder("images", path, classes=("a",)),
    }
    for name, read in readers.items():
        with pytest.raises(
            TypeError, match=rf"^{name} must be a str or an os\.PathLike, got {re.escape(short_repr(path))}"
        ):
            read()


def test_every_changed_bit_of_a_png_is_found(tmp_path):
    """The signature, lengths, pixels and checksums; Pillow itself ignores the checksums of the pixels."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    expected = read_image(tmp_path / "x.png", (40, 40))
    np.testing.assert_array_equal(read_image(io.BytesIO(content), (40, 40)), expected)
    ends = [*range(80), *range(len(content) - 40, len(content))]
    for at in [*ends, *range(80, len(content) - 40, 97)]:
        with pytest.raises(DataError, match="cannot be read as an image"):
            read_image(io.BytesIO(flipped(content, at)), (40, 40))
    for file in (io.BytesIO(flipped(content, 100)), tmp_path / "y.png"):
        (tmp_path / "y.png").write_bytes(flipped(content, 100))
        with pytest.raises(DataError, match="the PNG is damaged: the checksum of a chunk b'IDAT' is wrong"):
            read_image(file, (40, 40))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_the_orientation_is_asked_once(tmp_path, monkeypatch, suffix):
    Image.new("RGB", (9, 6)).save(tmp_path / f"x.{suffix}", exif=turned(6))
    asked = []
    known = _decode.orientation
    monkeypatch.setattr(_decode, "orientation", lambda image: asked.append(image) or known(image))
    assert read_image(tmp_path / f"x.{suffix}", (9, 6)).shape == (9, 6, 3)
    assert len(asked) == 1


# Transparency


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(bits, color, pixels, *chunks):
    """A PNG of these values, (H, W) or (H, W, C), of any depth."""
    height, width = pixels.shape[:2]
    rows = []
    for row in pixels.reshape(height, -1):
        if bits >= 8:
            rows.append(row.astype(f">u{bits // 8}").tobytes())
        else:
            rows.append(np.packbits((row[:, None] >> np.arange(bits)[::-1] & 1).astype(np.uint8)).tobytes())
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def flipped(content, at):
    """The file with one bit changed."""
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def halves(left, right):
    """(8, 8) or (8, 8, C)."""
    return np.concatenate([np.broadcast_to(np.array(value), (8, 4, *np.shape(value))) for value in (left, right)], 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("bits", "clear", "solid"),
    [(1, 1, 0), (1, 0, 1), (2, 1, 2), (4, 5, 10), (8, 100, 50), (16, 0x6432, 0x2010), (16, 0x6432, 0x6433)],
)
def test_the_transparent_value_of_a_gray_png(tmp_path, bits, clear, solid, channels):
    (tmp_path / "x.png").write_bytes(png(bits, 0, halves(clear, solid), chunk(b"tRNS", struct.pack(">H", clear))))
    seen = read_image(tmp_path / "x.png", (8, 8), channels=channels)
    assert (seen[:, :3] == 255).all()
    assert (seen[:, 5:] == (solid >> 8 if bits == 16 else solid * 255 // (2**bits - 1))).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_value_of_a_color_png(tmp_path, bits):
    clear, solid = (np.array(v) * (257 if bits == 16 else 1) for v in ((100, 50, 7), (10, 20, 30)))
    clear[1] += bits == 16  # whose low byte is another
    (tmp_path / "x.png").write_bytes(png(bits, 2, halves(clear, solid), chunk(b"tRNS", struct.pack(">3H", *clear))))
    seen = read_image(tmp_path / "x.png", (8, 8))
    assert (seen[:, :3] == 255).all()
    assert (seen[:, 5:] == (10, 20, 30)).all()


@pytest.mark.parametrize(("bits", "color", "scale"), [(8, 4, 1), (16, 4, 257), (8, 6, 1), (16, 6, 257)])
def test_channels_of_transparency(tmp_path, bits, color, scale):
    gray = (90,) if color == 4 else (90, 90, 90)
    pixels = halves(np.array((*gray, 0)) * scale, np.array((*gray, 255)) * scale)
    pixels[:, -1, -1] = 128 * scale
    (tmp_path / "x.png").write_bytes(png(bits, color, pixels))
    seen = read_image(tmp_path / "x.png", (8, 8))
    assert (seen[:, :3] == 255).all()
    assert (seen[:, 5:7] == 90).all()
    assert np.abs(seen[:, 7].astype(int) - 172).max() <= 1  # half of 90, half of white


@pytest.mark.parametrize("alphas", [b"\x00", b"\xff\x00", b"\x00\xff", b"\x80\xff"])
def test_transparent_colors_of_a_palette(tmp_path, alphas):
    palette = chunk(b"PLTE", bytes([90, 90, 90, 30, 30, 30]))
    (tmp_path / "x.png").write_bytes(png(8, 3, halves(0, 1), palette, chunk(b"tRNS", alphas)))
    seen = read_image(tmp_path / "x.png", (8, 8))
    full = (*alphas, 255)[:2]
    for side, alpha, value in ((seen[:, :3], full[0], 90), (seen[:, 5:], full[1], 30)):
        assert np.abs(side - (value * alpha + 255 * (255 - alpha)) / 255).max() <= 1


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ((200, 0, 0), (0, 0, 200))]
    for name, options in (("x.png", {}), ("x.apng", {}), ("x.webp", {"lossless": True})):
        kind = {"format": "PNG"} if name.endswith("png") else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **kind, **options)
        assert (read_image(tmp_path / name, (8, 8)) == (200, 0, 0)).all()


def test_colors_of_transparent_pixels_do_not_bleed(tmp_path):
    """When an image is made smaller: red that is not seen, beside gray."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, ::2], pixels[:, 1::2] = (255, 0, 0, 0), (60, 60, 60, 255)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    seen = read_image(tmp_path / "x.png", (8, 8)).astype(int)
    assert np.abs(seen - (60 + 255) / 2).max() <= 8
    assert np.ptp(seen, axis=-1).max() <= 1


# Memory


def test_few_pixels_are_decoded_at_a_time(tmp_path, monkeypatch):
    """Of as many threads as there are, images of 30 x 40 in a room for two and a half."""
    (tmp_path / "a").mkdir()
    for i in range(20):
        Image.fromarray(np.full((30, 40, 4), i, np.uint8)).save(tmp_path / "a" / f"{i:02}.png")
    lock, now, most, fit = threading.Lock(), 0, 0, ImageOps.fit

    def slow(*arguments):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.005)
        with lock:
            now -= 1
        return fit(*arguments)

    monkeypatch.setattr(ImageOps, "fit", slow)
    for room, expected in ((3000, 2), (100, 1)):
        monkeypatch.setattr(_decode, "DECODED_PIXELS", room)
        most = 0
        assert len(image_folder(tmp_path, (8, 8)).images) == 20
        assert most == expected


def test_damaged_images_give_their_room_back(tmp_path, monkeypatch):
    monkeypatch.setattr(_decode, "DECODED_PIXELS", 1000)
    (tmp_path / "a").mkdir()
    for i in range(12):
        Image.fromarray(np.full((30, 30, 3), i, np.uint8)).save(tmp_path / "a" / f"{i:02}.png")
        if i % 3:
            content = (tmp_path / "a" / f"{i:02}.png").read_bytes()
            (tmp_path / "a" / f"{i:02}.png").write_bytes(content[:-30])
    with pytest.warns(UserWarning, match="skipped 8 of 12 images"):
        assert len(image_folder(tmp_path, (8, 8), on_bad_image="skip").images) == 4


@pytest.mark.full
def test_memory_of_large_images(tmp_path):
    """Six of 8000 x 8000 with transparency, in a process of their own."""
    import subprocess
    import sys

    (tmp_path / "a").mkdir()
    file = io.BytesIO()
    Image.new("RGBA", (8000, 8000), (9, 9, 9, 100)).save(file, "PNG")
    for i in range(6):
        (tmp_path / "a" / f"{i}.png").write_bytes(file.getvalue())
    program = (
        "import resource, sys; from jaxcnn.data import image_folder; image_folder(sys.argv[1], (32, 32)); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2_500_000  # 6.9 GB if all were decoded at once


# Folders


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for j in range(3):
            Image.fromarray(np.full((8, 8, 3), 20 * i + j, np.uint8)).save(tmp_path / name / f"{j}.png")
    return tmp_path


def test_files_of_systems_are_passed_over(folder):
    for where in (folder, folder / "cat"):
        for name in (".DS_Store", "._1.png", "Thumbs.db", "desktop.ini", ".1.png"):
            (where / name).write_bytes(b"not an image")
        for name in ("__MACOSX", ".ipynb_checkpoints"):
            (where / name).mkdir()
            (where / name / "1.png").write_bytes(b"not an image")
    pets = image_folder(folder, (8, 8))
    assert pets.classes == ("cat", "dog")
    assert len(pets.images) == 6


def test_files_that_are_left_out_are_counted(folder):
    for name in ("a.gif", "b.GIF", "c.tiff", "d", "notes.txt", "labels.csv"):
        (folder / "cat" / name).write_bytes(b"")
    Image.new("RGB", (8, 8)).save(folder / "stray.png")
    with pytest.warns(
        UserWarning, match=r"skipped: 2 x file \.gif, 1 x file \.tiff, 1 x file without a suffix, 1 x image outside"
    ):
        assert len(image_folder(folder, (8, 8)).images) == 6


def test_only_regular_files_are_opened(folder):
    """Reading from a named pipe would wait forever."""
    os.mkfifo(folder / "cat" / "x.png")
    os.symlink(folder / "cat" / "x.png", folder / "cat" / "y.png")
    os.symlink(folder / "cat" / "0.png", folder / "cat" / "z.png")
    with pytest.warns(UserWarning, match=r"skipped: 2 x \.png that is not a regular file, 1 x link to another image"):
        assert len(image_folder(folder, (8, 8)).images) == 6


def test_links_to_images_count_nothing_twice(folder):
    """The file is in the class of the file itself, whose folder may come later."""
    expected = list_images(folder)
    os.symlink(folder / "cat" / "0.png", folder / "cat" / "again.png")
    os.symlink(folder / "cat" / "again.png", folder / "cat" / "more.png")
    os.symlink(folder / "dog" / "0.png", folder / "cat" / "dog.png")
    message = "skipped: 1 x link in class cat to an image of class dog, 2 x link to another image"
    with pytest.warns(UserWarning, match=message):
        found = list_images(folder)
    assert found.paths == expected.paths
    assert found.labels.tolist() == expected.labels.tolist()


def test_images_that_only_links_reach_are_read_once(folder):
    (folder / ".store").mkdir()
    Image.new("RGB", (8, 8)).save(folder / ".store" / "hash.png")
    for name in ("a.png", "b.png"):
        os.symlink(folder / ".store" / "hash.png", folder / "cat" / name)
    with pytest.warns(UserWarning, match="skipped: 1 x link to another image"):
        assert len(list_images(folder).paths) == 7


@pytest.mark.parametrize("path", ["a\0b", "~no-such-user/x"])
def test_paths_that_no_folder_has(path):
    for read in (
        lambda: image_folder(path, (8, 8)),
        lambda: image_folder(pathlib.Path(path), (8, 8)),
        lambda: segmentation_folder(path, path, (8, 8), classes=("a", "b")),
        lambda: read_image(path, (8, 8)),
    ):
        with pytest.raises(DataError, match=r"NUL character|home directory"):
            read()


@pytest.mark.parametrize("suffix", [".gif", ".tiff", ".heic", ""])
@pytest.mark.parametrize("classes", [None, ("cat", "dog", "eel")])
def test_a_class_of_other_files_is_not_silently_empty(folder, suffix, classes):
    (folder / "eel").mkdir()
    (folder / "eel" / f"1{suffix}").write_bytes(b"")
    with pytest.raises(
        DataError, match=rf"expected images .* in eel, found none; skipped: 1 x file {suffix or 'without'}"
    ):
        image_folder(folder, (8, 8), classes=classes)


def test_an_empty_class_is_refused_a_missing_one_is_not(folder):
    assert len(list_images(folder, ("cat", "dog", "eel")).paths) == 6
    (folder / "eel").mkdir()
    with pytest.raises(DataError, match=r"expected images .* in eel, found none$"):
        list_images(folder)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("loop", "."),
        ("cat/again", "cat"),
        ("cat/up", "."),
        ("dog/cats", "cat"),
        ("aaa", "dog"),
        ("cat/self", "cat/self2"),
    ],
)
def test_links_to_folders_count_nothing_twice(folder, link, target):
    if target == "cat/self2":
        (folder / target).mkdir()
        Image.new("RGB", (8, 8)).save(folder / target / "9.png")
    os.symlink(folder / target, folder / link)
    with pytest.warns(UserWarning, match="skipped: 1 x link to a folder that was already read"):
        files = list_images(folder)
    assert files.classes == ("cat", "dog")
    assert len({path.resolve() for path in files.paths}) == len(files.paths) == 6 + (target == "cat/self2")


def test_links_to_folders_elsewhere(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for link in ("eel", "cat/more"):
        os.symlink(elsewhere, folder / link)
        with pytest.raises(DataError, match="points outside"):
            list_images(folder)
        (folder / link).unlink()


def test_a_link_to_nothing_is_a_bad_image(folder):
    os.symlink(folder / "cat" / "none.png", folder / "cat" / "link.png")
    os.symlink(folder / "cat" / "round.png", folder / "cat" / "round.png")
    with pytest.raises(DataError, match=r"link\.png: cannot be read"):
        image_folder(folder, (8, 8))
    with pytest.warns(UserWarning, match="skipped 2 of 8 images"):
        assert len(image_folder(folder, (8, 8), on_bad_image="skip").images) == 6


def test_a_class_is_listed_once(folder):
    with pytest.raises(DataError, match="the classes contain a duplicate"):
        list_images(folder, ("cat", "dog", "cat"))
    for name in ("./cat", "cat/", "."):
        with pytest.raises(DataError, match=f"a class must be the name of a folder, got {name!r}"):
            list_images(folder, ("cat", name, "dog"))

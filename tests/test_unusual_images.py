"""Images of all kinds, and files that are none, through `experiments.predict`, `serve` and `image_folder`."""

import io
import os
import re
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import _program, image_folder, predict
from jaxcnn import data, dense, flatten, serial
from jaxcnn.train import override
from tests.test_image_files import flipped
from tests.test_serve import served

SIZE = (8, 16)  # height and width of the images and of the program: nothing is resized


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def stored(upright, orientation):
    """The pixels in a file whose EXIF orientation turns them upright."""
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    return Image.fromarray(np.ascontiguousarray(turned[orientation])), {"exif": exif}


def unusual():
    """File name -> its bytes and the upright pixels (8, 16, 3)."""
    draw = np.random.default_rng(0)
    color, gray = draw.integers(0, 256, (*SIZE, 3), np.uint8), draw.integers(0, 256, SIZE, np.uint8)
    image, three = Image.fromarray(color), np.repeat(gray[..., None], 3, -1)
    alpha = draw.integers(0, 2, SIZE, np.uint8) * 255
    on_white = np.where(alpha[..., None] == 255, color, 255)
    other = Image.fromarray(255 - color)
    files = {
        "color.png": (encoded(image, "PNG"), color),
        "color.bmp": (encoded(image, "BMP"), color),
        "gray.png": (encoded(Image.fromarray(gray), "PNG"), three),
        "bilevel.png": (encoded(Image.fromarray(alpha).convert("1"), "PNG"), np.repeat(alpha[..., None], 3, -1)),
        "gray alpha.png": (
            encoded(Image.merge("LA", (Image.fromarray(gray), Image.fromarray(alpha))), "PNG"),
            np.where(alpha[..., None] == 255, three, 255),
        ),
        "rgba.png": (encoded(Image.fromarray(np.dstack((color, alpha))), "PNG"), on_white),
        "rgba.webp": (encoded(Image.fromarray(np.dstack((color, alpha))), "WEBP", lossless=True), on_white),
        "16 bit.png": (encoded(Image.fromarray(gray.astype(np.uint16) * 256 + 77), "PNG"), three),
        "animated.png": (encoded(image, "PNG", save_all=True, append_images=[other]), color),
        "animated.webp": (encoded(image, "WEBP", save_all=True, append_images=[other], lossless=True), color),
        "Größe 猫 🐱 $x_{$.png": (encoded(image, "PNG"), color),
        "x" * 200 + ".png": (encoded(image, "PNG"), color),
    }
    palette = Image.fromarray(gray % 4)
    palette.putpalette([10, 20, 30, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    colors = np.array([(255, 255, 255), (200, 0, 0), (0, 200, 0), (0, 0, 200)], np.uint8)
    files["palette.png"] = (encoded(palette, "PNG", transparency=0), colors[gray % 4])
    inks = np.array((100, 30, 200, 50))  # cyan, magenta, yellow, black
    cmyk = Image.new("CMYK", SIZE[::-1], tuple(inks))
    printed = np.broadcast_to((255 - inks[:3]) * (255 - inks[3]) / 255, (*SIZE, 3))
    files["cmyk.jpg"] = (encoded(cmyk, "JPEG", quality=100), printed.round().astype(np.uint8))
    smooth = np.repeat(np.linspace(0, 255, SIZE[1]).astype(np.uint8)[None, :, None], SIZE[0], 0).repeat(3, -1)
    smooth[SIZE[0] // 2 :] //= 2
    for i in range(1, 9):
        turned, options = stored(color, i)
        files[f"turned {i}.png"] = (encoded(turned, "PNG", **options), color)
        turned, options = stored(smooth, i)
        files[f"turned {i}.jpg"] = (encoded(turned, "JPEG", quality=100, **options), smooth)
    return files


def unreadable():
    """File name -> its bytes and the reason in the message."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8))
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    found = "expected JPEG, PNG, WebP or BMP, found "
    return {
        "empty.jpg": (b"", found + "an empty file"),
        "text.jpg": (b"not an image", found + "other or damaged content"),
        "cut.png": (encoded(image, "PNG")[:-100], "truncated"),
        "cut end.png": (encoded(image, "PNG")[:-12], "truncated"),
        "flipped bit.png": (flipped(encoded(image, "PNG"), 60), "damaged: the checksum of a chunk b'IDAT'"),
        "cut.jpg": (encoded(image, "JPEG")[:-50], "truncated"),
        "cut.webp": (encoded(image, "WEBP")[:-50], "could not create decoder"),
        "header only.png": (encoded(image, "PNG")[:20], "Truncated"),
        "photo.heic": (heic, found + "HEIC"),
        "renamed heic.jpg": (heic, found + "HEIC"),
        "photo.avif": (heic.replace(b"ftypheic", b"ftypavif"), found + "AVIF"),
        "clip.mp4": (heic.replace(b"ftypheic", b"ftypisom"), found + "a video"),
        "animated.gif": (encoded(image, "GIF", save_all=True, append_images=[image.rotate(180)]), found + "GIF"),
        "scan.tiff": (encoded(image, "TIFF"), found + "TIFF"),
        "scan.tif": (encoded(image, "TIFF", big_tiff=True), found + "TIFF"),
        "renamed gif.png": (encoded(image, "GIF"), found + "GIF"),
        "page.pdf": (encoded(image, "PDF"), found + "PDF"),
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run, and its network on pixels."""
    folder = tmp_path_factory.mktemp("run")
    model = serial(flatten, dense(3))
    params, state = model.init(jax.random.key(0), np.zeros((1, *SIZE, 3), np.float32))
    images = data.Dataset(np.zeros((1, *SIZE, 3), np.uint8), np.zeros(1, np.int32), ("cat", "dog", "owl"))
    _program.save_program(folder, model, params, state, images)
    return folder, lambda x: np.asarray(jax.nn.softmax(model.apply(params, state, x / np.float32(255), train=False)[0]))


def written(folder, files):
    folder.mkdir(parents=True)
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    return folder


def tolerance(name):
    """Relative, of probabilities. JPEG files do not keep the pixels exactly."""
    return 0.1 if name.endswith(".jpg") else 1e-5


def test_predict(run, tmp_path, capsys):
    good, bad = unusual(), unreadable()
    written(tmp_path / "photos", good | bad)
    for name in (".DS_Store", "Thumbs.db", "._color.png"):
        (tmp_path / "photos" / name).write_bytes(b"not an image")
    written(tmp_path / "photos" / "folder.jpg", {"inside.png": good["color.png"]})
    written(tmp_path / "photos" / "__MACOSX", {"color.png": good["color.png"]})
    os.rename(tmp_path / "photos" / "color.bmp", os.fsencode(tmp_path / "photos") + b"/caf\xe9.bmp")  # Latin-1
    good["caf\\xe9.bmp"] = good.pop("color.bmp")
    names = [*good, "folder.jpg/inside.png"]
    result = predict.main(override(predict.CONFIG, [f"run={run[0]}", f"images={tmp_path / 'photos'}"]))
    assert result.keys() == set(names)
    for name in names:
        (expected,) = run[1](good.get(name, good["color.png"])[1][None])
        found = [result[name][label] for label in ("cat", "dog", "owl")]
        np.testing.assert_allclose(found, expected, rtol=tolerance(name), err_msg=name)
    lines = capsys.readouterr().err.splitlines()
    assert lines.pop() == f"skipped {len(bad)} of {len(names) + len(bad)} files"
    reported = {line.removeprefix("skipped: ").split(": ")[0].split("/")[-1]: line for line in lines}
    assert reported.keys() == bad.keys()
    for name, (_, reason) in bad.items():
        assert re.search(reason, reported[name]), reported[name]


def test_image_folder(tmp_path):
    """Bad images and files of other formats are counted; the others are upright and in 8 bits."""
    good, bad = {name: file for name, file in unusual().items() if not name.endswith(".jpg")}, unreadable()
    written(tmp_path / "cat", good | bad)
    written(tmp_path / "cat" / "folder.jpg", {"inside.png": good["color.png"]})
    written(tmp_path / "dog", {"1.png": good["color.png"], "2.png": good["gray.png"]})
    config = override(image_folder.CONFIG, [f"data.path={tmp_path}", "data.on_bad_image=skip"])
    with pytest.warns(UserWarning, match="skipped") as caught:
        parts = image_folder.read(config, SIZE, 3)[:2]
    messages = [str(warning.message) for warning in caught]
    assert messages[0].endswith(
        "skipped: 1 x file .avif, 1 x file .gif, 1 x file .heic, 1 x file .mp4, 1 x file .pdf, 1 x file .tif, "
        "1 x file .tiff"
    )
    cats = [image.tobytes() for part in parts for image in part.images[part.labels == 0]]
    assert messages[1].startswith(f"skipped 10 of {10 + len(cats) + 2} images; first error: ")
    assert sorted(cats) == sorted(pixels.tobytes() for _, pixels in (*good.values(), good["color.png"]))


def test_serve(run):
    program = _program.load_program(str(run[0]))
    with served(program) as send:
        for name, (content, pixels) in unusual().items():
            status, answer = send(content)
            assert status == 200, (name, answer)
            found = {entry["name"]: entry["probability"] for entry in answer["classes"]}
            (expected,) = run[1](pixels[None])
            np.testing.assert_allclose(
                [found[label] for label in ("cat", "dog", "owl")], expected, rtol=tolerance(name)
            )
        for name, (content, reason) in unreadable().items():
            status, answer = send(content)
            assert status == 400, name
            assert re.search(reason, answer["error"]), answer


@pytest.mark.full
def test_many_files(tmp_path):
    """10,000 files of 100 x 100 for a program of 256 x 256 pixels: their pixels would take 2 GB."""
    params, state = (model := serial(flatten, dense(2))).init(jax.random.key(0), np.zeros((1, 256, 256, 3), np.float32))
    images = data.Dataset(np.zeros((1, 256, 256, 3), np.uint8), np.zeros(1, np.int32), ("cat", "dog"))
    _program.save_program(tmp_path, model, params, state, images)
    content = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)), "JPEG")
    for folder in ("cat", "dog"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for i in range(5000):
            (tmp_path / "photos" / folder / f"{i}.jpg").write_bytes(content)
    report = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    programs = {
        f"from jaxcnn import data; data.image_folder({str(tmp_path / 'photos')!r}, (32, 32))": 0.5e6,
        "from experiments import predict; from jaxcnn.train import override; predict.main("
        f"override(predict.CONFIG, ['run={tmp_path}', 'images={tmp_path / 'photos'}']))": 1e6,
    }
    for program, kilobytes in programs.items():
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-c", f"{program}\n{report}"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        used = int(done.stdout.splitlines()[-1])
        print(f"{time.monotonic() - start:.1f} s, {used / 1e6:.2f} GB")
        assert used < kilobytes

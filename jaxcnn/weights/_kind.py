"""Detection of file formats by content, with instructions to convert those that are not supported."""

import pathlib
import re
import zipfile

_TORCH = """PyTorch pickle with content that is not supported. To convert it where PyTorch is installed:
  import torch, safetensors.torch
  def dicts(tree):
      yield tree
      for value in tree.values():
          if isinstance(value, dict):
              yield from dicts(value)
  tree = torch.load({path!r}, map_location="cpu", weights_only=True)
  tensors = lambda d: {{str(k): v.detach().clone().contiguous() for k, v in d.items() if torch.is_tensor(v)}}
  safetensors.torch.save_file(max(map(tensors, dicts(tree)), key=len), {converted!r})
If torch.load refuses the file, it contains a whole module: save its state_dict() where its code is available"""
_TORCHSCRIPT = """TorchScript program, which is not supported. To convert it:
  import torch, safetensors.torch
  tree = torch.jit.load({path!r}, map_location="cpu").state_dict()
  safetensors.torch.save_file({{k: v.clone().contiguous() for k, v in tree.items()}}, {converted!r})"""
_NPZ = """NumPy archive. To load it for a model:
  import numpy
  weights.from_torch(model, dict(numpy.load({path!r})))"""
_ONNX = """ONNX model, which is not supported. To get its arrays by name:
  import onnx
  {{t.name: onnx.numpy_helper.to_array(t) for t in onnx.load({path!r}).graph.initializer}}"""
_MSGPACK = """msgpack file, as written by Flax, which is not supported. To get its tree of arrays:
  import flax.serialization, pathlib
  flax.serialization.msgpack_restore(pathlib.Path({path!r}).read_bytes())"""
_KERAS = "Keras model, which is not supported. To get its arrays: keras.models.load_model({path!r}).get_weights()"
_HDF5 = """HDF5 file, as written by Keras, which is not supported. To list its arrays (kernels have jaxcnn's layout):
  import h5py
  h5py.File({path!r}).visititems(print)"""
_SHARDS = (
    "index of weights in several files. Load each with safetensors.numpy.load_file, merge the dicts, call from_torch"
)
_ARCHIVE = "{} archive. Extract it first"

_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # the pickle of the magic number, protocol 2
_SIGNATURES = {  # first bytes of a file -> description
    b"\x89HDF\r\n\x1a\n": _HDF5,
    b"\x93NUMPY": "NumPy array. Read it with numpy.load({path!r})",
    b"GGUF": "GGUF file, which is not supported",
    b"version https://git-lfs": "Git LFS pointer, not the file itself. To fetch the file: git lfs pull",
    b"\x89PNG": "PNG image",
    b"\xff\xd8\xff": "JPEG image",
    b"\x1f\x8b": _ARCHIVE.format("gzip"),
    b"BZh": _ARCHIVE.format("bzip2"),
    b"\xfd7zXZ\x00": _ARCHIVE.format("xz"),
    b"7z\xbc\xaf\x27\x1c": _ARCHIVE.format("7z"),
    b"\x28\xb5\x2f\xfd": _ARCHIVE.format("zstd"),
}


def is_safetensors(path: pathlib.Path) -> bool:
    """Return whether a file starts with the header length, a little-endian uint64 below 2^32, and JSON."""
    if path.is_dir():
        return False
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and start[4:8] == bytes(4)


def is_torch(path: pathlib.Path) -> bool:
    """Return whether a file is one of torch.save: a zip archive with data.pkl, or the legacy format's magic number."""
    with path.open("rb") as file:
        start = file.read(len(_LEGACY))
    return (start[:2] == b"PK" and _zip(path, start) == _TORCH) or (start[:1], start[2:]) == (_LEGACY[:1], _LEGACY[2:])


def describe(path: pathlib.Path) -> str:
    """Describe a file or folder that is not safetensors, and how to convert it."""
    if path.is_dir():
        return _folder(path).format(path=str(path))
    converted = path.with_suffix(".safetensors")
    if converted == path:
        converted = path.with_name(f"{path.stem}-converted.safetensors")
    return _file(path).format(path=str(path), converted=str(converted))


def _folder(path: pathlib.Path) -> str:
    names = {entry.name for entry in path.iterdir()}
    if "saved_model.pb" in names:
        return "folder with a TensorFlow SavedModel, which is not supported"
    if names & {"_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt", "_sharding"}:
        return "folder with an Orbax checkpoint. Read it with orbax.checkpoint.StandardCheckpointer().restore({path!r})"
    if any(re.fullmatch(r"\d+", name) for name in names):
        return "folder of checkpoints. Read it with jaxcnn.train.checkpoint.restore, or pass a file"
    return "folder. Pass a safetensors file in it"


def _file(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        start = file.read(4096)
    if not start:
        return "empty file"
    if start.startswith(b"PK"):
        return _zip(path, start)
    for signature, text in _SIGNATURES.items():
        if start.startswith(signature):
            return text
    if start[4:8] == b"TFL3":
        return "TensorFlow Lite model, which is not supported"
    if start[257:262] == b"ustar":
        return _ARCHIVE.format("tar")
    if start[0] == 0x80 and start[1:2] in (b"\x00", b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"):
        return _TORCH
    if re.match(rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml)", start):
        return "web page, probably from a failed download"
    if re.match(rb"\s*\{", start):
        return _SHARDS if b'"weight_map"' in start or path.name.endswith(".index.json") else "JSON file without weights"
    if re.match(rb"(?s)([\x81-\x8f]|\xde..|\xdf....)[\xa1-\xbf\xd9-\xdb]", start):
        return _MSGPACK
    if re.match(rb"\x08[\x01-\x14][\x12\x1a\x22\x2a\x32\x3a\x42]", start):
        return _ONNX
    return {".onnx": _ONNX, ".tflite": "TensorFlow Lite model, which is not supported", ".msgpack": _MSGPACK}.get(
        path.suffix, _TORCH if path.suffix in (".pth", ".pt", ".ckpt", ".pkl", ".bin") else "not a safetensors file"
    )


def _zip(path: pathlib.Path, start: bytes) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "damaged zip archive" + (" of PyTorch. Download it again" if b"data.pkl" in start else "")
    folders = {name.split("/")[1] for name in names if "/" in name}
    if any(name.endswith("constants.pkl") for name in names) and "code" in folders:
        return _TORCHSCRIPT
    if any(name.rsplit("/", 1)[-1] == "data.pkl" for name in names):
        return _TORCH
    if names and all(name.endswith(".npy") for name in names):
        return _NPZ
    if "config.json" in names and any(name.endswith(".weights.h5") for name in names):
        return _KERAS
    return _ARCHIVE.format("zip")

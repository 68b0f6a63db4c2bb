"""Where the file of published weights is: in a folder, in the cache of huggingface_hub or PyTorch, or downloaded."""

import contextlib
import hashlib
import os
import pathlib
import re
from typing import Any, NamedTuple

from jaxcnn._extra import MissingExtraError
from jaxcnn._replace import replace
from jaxcnn._weights_error import WeightsError
from jaxcnn.data._download import fast_enough_chunks

TORCH_URL = "https://download.pytorch.org/models/"
FILE = "model.safetensors"


class Located(NamedTuple):
    """A verified file on this machine."""

    path: pathlib.Path
    url: str
    revision: str | None
    sha256: str
    config: pathlib.Path | None  # the repository's config.json, if it is there


def in_hub(repo: str, root: str | os.PathLike | None, revision: str | None, sha256: str | None) -> Located:
    """The file of a repository of Hugging Face."""
    short = repo.split("/")[-1]
    if revision is None and (path := _in_folders(root, f"{short}.safetensors", f"{short}/{FILE}")):
        config = path.with_name("config.json")
        has_config = path.name == FILE and config.is_file()
        return Located(path, str(path), None, _verified(path, sha256), config if has_config else None)
    hub = _hub()
    url = hub.hf_hub_url(repo, FILE, revision=revision)
    cached = lambda name: hub.try_to_load_from_cache(repo, name, revision=revision)
    found, config = cached(FILE), cached("config.json")
    if not isinstance(found, str):
        try:
            found = hub.hf_hub_download(repo, FILE, revision=revision)
            config = hub.hf_hub_download(repo, "config.json", revision=pathlib.Path(found).parent.name)
        except Exception as error:  # the errors of the client and of its network library share no base class
            raise WeightsError(_unavailable(url, error, f"{short}.safetensors", revision)) from error
    elif config is None:  # an earlier download ended between the two files
        with contextlib.suppress(Exception):  # without a network, the values of the table in this package are used
            config = hub.hf_hub_download(repo, "config.json", revision=pathlib.Path(found).parent.name)
    path = pathlib.Path(found)
    # a snapshot links to a blob, whose name is the SHA-256 that the hub published
    stored = path.resolve().name
    expected = stored if re.fullmatch("[0-9a-f]{64}", stored) else None
    commit = path.parent.name
    digest = _verified(path, sha256, expected)
    config_path = pathlib.Path(config) if isinstance(config, str) else None
    return Located(path, hub.hf_hub_url(repo, FILE, revision=commit), commit, digest, config_path)


def of_torchvision(file: str, root: str | os.PathLike | None, sha256: str | None, max_bytes: int) -> Located:
    """A file of torchvision, whose name ends with the first digits of its SHA-256."""
    name, prefix, url = f"{file}.pth", file.rsplit("-", 1)[-1], f"{TORCH_URL}{file}.pth"
    path = _in_folders(root, name) or _torch_cache() / name
    if not path.is_file():
        try:
            _download(url, path, prefix, max_bytes)
        except (OSError, ImportError) as error:
            raise WeightsError(_unavailable(url, error, name)) from error
    return Located(path, url, None, _verified(path, sha256, prefix), None)


def _in_folders(root: str | os.PathLike | None, *names: str) -> pathlib.Path | None:
    """The first of the files that exists in `root` or in the folder JAXCNN_DATA."""
    if root and not pathlib.Path(root).expanduser().is_dir():
        raise WeightsError(f"root={os.fspath(root)!r} is not a folder")
    folders = [pathlib.Path(folder).expanduser() for folder in (root, os.environ.get("JAXCNN_DATA")) if folder]
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def _torch_cache() -> pathlib.Path:
    """PyTorch's folder of downloaded weights."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return pathlib.Path(os.environ.get("TORCH_HOME", cache / "torch")).expanduser() / "hub" / "checkpoints"


def _download(url: str, path: pathlib.Path, prefix: str, max_bytes: int) -> None:
    """Download a file whose SHA-256 starts with `prefix`. An incomplete or wrong one leaves nothing behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with replace(path) as file:
        for chunk in fast_enough_chunks(url):
            size += len(chunk)
            if size > max_bytes:
                raise OSError(f"expected at most {max_bytes} bytes, found more")
            digest.update(chunk)
            file.write(chunk)
        if not digest.hexdigest().startswith(prefix):
            raise OSError(f"expected a SHA-256 that starts with {prefix}, found {digest.hexdigest()} ({size} bytes)")


def _verified(path: pathlib.Path, *expected: str | None) -> str:
    """The SHA-256 of a file, which must start with each of the `expected` digits."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    for digits in expected:
        if digits and not found.startswith(digits.lower()):
            raise WeightsError(
                f"{path} is damaged or another file: expected the SHA-256 {digits}, found {found}. "
                f"To download it again, delete {path.resolve()}"
            )
    return found


def _unavailable(url: str, error: Exception, name: str, revision: str | None = None) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    without = "" if revision is None else ", without revision, for which folders are not searched"
    return (
        f"{url} is not in the cache and cannot be downloaded. Download it elsewhere, save it as {name} in a folder, "
        f"and pass root=folder or set JAXCNN_DATA to it{without}. The error was: {reason}"
    )


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError("published weights by name need huggingface_hub", "hub") from error
    return huggingface_hub

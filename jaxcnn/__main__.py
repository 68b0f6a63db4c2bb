"""Print the versions, devices, optional packages and folders of this installation: `python -m jaxcnn`."""

import argparse
import importlib.metadata
import pathlib
import platform
import re
from collections.abc import Iterable

import jax

import jaxcnn
from jaxcnn.data._load import base_folders
from jaxcnn.train.checkpoint import versions

_COLLECTIONS = ("all", "dev")  # extras that combine others or are for development


def environment() -> str:
    """The text that `python -m jaxcnn` prints."""
    packages = versions()
    python = packages.pop("python")
    kinds = dict.fromkeys(device.device_kind for device in jax.devices())
    lines = {
        "jaxcnn": f"{jaxcnn.__version__} in {pathlib.Path(jaxcnn.__file__).parent}",
        "Python": f"{python} on {platform.platform()}",
        **packages,
        "backend": f"{jax.default_backend()}, {jax.device_count()} x {', '.join(kinds)}",
        "data": f"{', then '.join(map(str, base_folders(None)))}; the variable JAXCNN_DATA adds a folder",
        "runs": f"{pathlib.Path('runs').absolute()}, unless train.Run gets another folder",
    }
    return "\n".join([*(f"{name:<8} {text}" for name, text in lines.items()), "", *_extra_lines()])


def _extra_lines() -> list[str]:
    try:
        requirements = importlib.metadata.requires("jaxcnn") or []
    except importlib.metadata.PackageNotFoundError:
        return ["optional packages: unknown, because jaxcnn is imported from a folder and not installed"]
    lines = ["optional packages:"]
    for extra, packages in extras(requirements).items():
        found = {package: _installed_version(package) for package in packages}
        text = ", ".join(f"{package} {version or 'missing'}" for package, version in found.items())
        lines.append(f"  {extra:<8} {text}" + ("" if all(found.values()) else f": pip install 'jaxcnn[{extra}]'"))
    return lines


def extras(requirements: Iterable[str]) -> dict[str, list[str]]:
    """extra -> the names of its packages, from the requirements in a package's metadata; without "all" and "dev"."""
    found: dict[str, list[str]] = {}
    for requirement in requirements:
        match = re.match(r"""([\w.-]+).*;.*\bextra == ["']([\w-]+)["']""", requirement)
        if match and match[2] not in _COLLECTIONS:
            found.setdefault(match[2], []).append(match[1])
    return found


def _installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m jaxcnn", description=__doc__).parse_args()
    print(environment())

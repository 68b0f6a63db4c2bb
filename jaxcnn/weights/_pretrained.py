"""Published weights by name: the network, its preprocessing and its class names."""

import fnmatch
import functools
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_integer, short_repr
from jaxcnn._combine import serial
from jaxcnn._layer import Layer, Params, State
from jaxcnn._norm import batch_norm
from jaxcnn._path import expected_one_of, merged
from jaxcnn._weights_error import WeightsError
from jaxcnn.data._normalize import normalize
from jaxcnn.models import MODELS
from jaxcnn.weights._file import load
from jaxcnn.weights._locate import Located, in_hub, of_torchvision
from jaxcnn.weights._preprocess import Preprocess, from_timm

_FOLDER = pathlib.Path(__file__).parent
_BYTES_PER_PARAM = 5  # limit of a download; float32 takes 4, the running statistics of norms less than 1


class Source(NamedTuple):
    """Where weights come from. `top1` is the published accuracy on ImageNet in percent.

    None: the folder of a file has no revision; the library does not state a license or top-1.
    """

    url: str
    revision: str | None  # commit of the repository
    sha256: str
    license: str | None
    top1: float | None


class Pretrained(NamedTuple):
    """A trained network. `preprocess(images)` returns the batch that `model` takes; `classes` names its logits."""

    model: Layer
    params: Params
    state: State
    preprocess: Preprocess
    classes: tuple[str, ...] | None
    source: Source


class Entry(NamedTuple):
    """Weights in the list of `available`."""

    name: str
    params: int
    top1: float | None
    license: str | None
    model: str


class Entries(tuple[Entry, ...]):
    """Entries, printed as a table."""

    def __repr__(self) -> str:
        rows = [("name", "parameters", "top-1", "license")]
        rows += [(e.name, f"{e.params:,}", "-" if e.top1 is None else f"{e.top1:.2f}", e.license or "-") for e in self]
        first, second = (max(len(row[i]) for row in rows) for i in (0, 1))
        return "\n".join(f"{a:{first}}  {b:>{second}}  {c:>5}  {d}" for a, b, c, d in rows)


def pretrained(
    name: str,
    classes: int | None = None,
    root: str | os.PathLike | None = None,
    revision: str | None = None,
    sha256: str | None = None,
) -> Pretrained:
    """name -> (model, params, state, preprocess, classes, source) with weights of timm or torchvision.

    `model` is `serial(normalize=data.normalize(mean, std), network=models.NAME(..))`: it takes uint8 images or floats
    from 0 to 1. The file is looked up in `root`, in JAXCNN_DATA, and in the cache of huggingface_hub or of PyTorch. If
    it is not there, it is downloaded to the cache. On each load, the SHA-256 of the file is compared with
    that of the hub for files in its cache, with the digits in the name of a torchvision file, and with `sha256`. The
    repository's config.json replaces the values of the table in this package. Images have timm's `input_size`; the
    network accepts others, too.

    Args:
        name: "timm/resnet50.a1_in1k", short "resnet50.a1_in1k", or "torchvision/resnet50-11ad3fa6"; see `available`.
        classes: the number of classes of a new, untrained last layer. None keeps the trained one.
        root: a folder to search first, with NAME.safetensors, NAME/model.safetensors or a torchvision file.
        revision: a commit, branch or tag of timm's repository. None is the version in the cache, else the newest one.
            With a revision, `root` and JAXCNN_DATA are not searched.
        sha256: the expected hash of the file, 64 hexadecimal digits.

    Raises:
        WeightsError: for an unknown name, or a file that is damaged, has another hash, or cannot be downloaded. The
            message has the URL and says where to save the file.
        TypeError, ValueError: for a `name` that is not a str, invalid `classes`, a `sha256` without 64 hexadecimal
            digits, or a `revision` of a torchvision file.
        ImportError: if huggingface_hub is not installed and the file is not in a folder.

    Example:
        >>> net = jaxcnn.weights.pretrained("resnet50.a1_in1k")  # doctest: +SKIP
        >>> images = net.preprocess(["cat.jpg"])  # doctest: +SKIP
        >>> logits, _ = net.model.apply(net.params, net.state, images, train=False)  # doctest: +SKIP
        >>> net.classes[logits[0].argmax()]  # doctest: +SKIP

    Source: Wightman, "PyTorch Image Models", 2019, and torchvision (BSD); the weights have their own licenses.
    """
    name, row = _row(name)
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise ValueError(f"sha256 must have 64 hexadecimal digits, got {sha256!r}")
    if classes is not None:
        classes = check_integer("pretrained", "classes", classes)
    provider, short = name.split("/")
    if provider == "torchvision":
        if revision is not None:
            raise ValueError(f"files of torchvision have no revision, got {revision!r}; the name has the hash")
        located = of_torchvision(short, root, sha256, _BYTES_PER_PARAM * row["params"] + 10_000_000)
    else:
        located = in_hub(name, root, revision, sha256)
        row = _configured(row, located)
    options = {option: row[option] for option in ("auxiliary",) if option in row}
    if row["norm"]:
        options["norm"] = batch_norm
    build, network = MODELS[row["model"]], row["model"]
    if classes is None:
        params, state = load(located.path, network, classes=row["classes"], **options)
    else:
        body = load(located.path, network, classes=None, **options)
        x = jnp.zeros((1, *build.input_shape))
        init = build(classes=classes, **options).init
        head = jax.jit(lambda key: _without(init(key, x)[0], body[0]))(jax.random.key(0))  # computes only the head
        params, state = merged(body[0], head), body[1]
    layer = build(classes=classes or row["classes"], **options)
    names = row.get("names") or (tuple(imagenet_classes().values()) if row["classes"] == 1000 else None)
    return Pretrained(
        serial(normalize=normalize(row["mean"], row["std"]), network=layer),
        {"network": params},
        {"network": state} if state else {},
        row["preprocess"] if "preprocess" in row else _preprocess(row),
        names if classes is None else None,
        Source(located.url, located.revision, located.sha256, row["license"], row["top1"]),
    )


def available(pattern: str = "*") -> Entries:
    """List the weights of `pretrained` by name, as tuples (name, params, top1, license, model). It prints as a table.

    params: the number of parameters. top1: the published accuracy on ImageNet in percent, or None. model: the name in
    `jaxcnn.models`.

    Args:
        pattern: a name with wildcards, as in file names.

    Raises:
        ValueError: if no name matches.

    Example:
        >>> jaxcnn.weights.available("torchvision/resnet50-*")
        name                           parameters  top-1  license
        torchvision/resnet50-0676ba61  25,557,032  76.13  -
        torchvision/resnet50-11ad3fa6  25,557,032  80.86  -
    """
    names = fnmatch.filter(_table(), pattern) or fnmatch.filter(_table(), f"timm/{pattern}")
    if not names:
        raise ValueError(f"no weights match {pattern!r}; {expected_one_of(pattern, _candidates(pattern))}")
    return Entries(
        Entry(name, *(_table()[name][key] for key in ("params", "top1", "license", "model"))) for name in names
    )


def imagenet_classes() -> dict[str, str]:
    """The 1,000 classes of ImageNet in the order of the logits: WordNet ID -> name.

    Example:
        >>> names = jaxcnn.weights.imagenet_classes()
        >>> list(names.items())[0], len(names)
        (('n01440764', 'tench'), 1000)

    Source: Russakovsky et al., "ImageNet large scale visual recognition challenge", 2015.
    """
    lines = (_FOLDER / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


@functools.cache
def _table() -> Mapping[str, dict[str, Any]]:
    return json.loads((_FOLDER / "pretrained.json").read_text(encoding="utf-8"))


def _row(name: str) -> tuple[str, dict[str, Any]]:
    """The full name, and its row of the table."""
    if not isinstance(name, str):
        raise TypeError(f"pretrained: name must be a str, such as 'resnet50.a1_in1k', got {short_repr(name)}")
    full = name if "/" in name else f"timm/{name}"
    if full not in _table():
        expected = expected_one_of(full, _candidates(name))
        raise WeightsError(f"unknown weights {name!r}; `available` lists all names; {expected}")
    return full, _table()[full]


def _candidates(name: str) -> list[str]:
    """The names that contain the given text, such as that of a network; all names if none does."""
    return [known for known in _table() if name in known] or list(_table())


def _without(tree: Params, part: Params) -> Params:
    """The leaves of `tree` whose paths are not in `part`."""
    rest = {k: _without(v, part.get(k, {})) if isinstance(v, dict) else v for k, v in tree.items()}
    return {k: v for k, v in rest.items() if (v if isinstance(v, dict) else k not in part)}


def _preprocess(row: dict[str, Any]) -> Preprocess:
    return Preprocess(**{field: row[field] for field in Preprocess._fields})


def _configured(row: dict[str, Any], located: Located) -> dict[str, Any]:
    """The row with the values of the repository's config.json."""
    if located.config is None:
        return row
    try:
        config = json.loads(located.config.read_text(encoding="utf-8"))
        values = config["pretrained_cfg"]
        labels = config.get("label_descriptions") or config.get("label_names") or values.get("label_names")
        if isinstance(labels, dict):
            labels = [labels[key] for key in config["label_names"]]
        classes = config.get("num_classes", values.get("num_classes", row["classes"]))
        if labels and len(labels) != classes:
            raise ValueError(f"{len(labels)} label names for {classes} classes")
        return row | {
            "classes": classes,
            "mean": values["mean"],
            "std": values["std"],
            "license": values.get("license", row["license"]),
            "preprocess": from_timm(values),
            "names": tuple(map(str, labels)) if labels else None,
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise WeightsError(f"{located.config} is not a config of timm: {type(error).__name__} {error}") from error

"""Published weights by name, from a local server with the endpoints of the hub."""

import errno
import hashlib
import http.server
import json
import re
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import count_params, data, models, weights
from jaxcnn.weights import _file, _locate, _pretrained
from jaxcnn.weights._tables import tables

hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
Image = pytest.importorskip("PIL.Image")
NAME = "timm/mobilenetv3_small_100.lamb_in1k"
COMMITS = ("a" * 40, "b" * 40)
CONFIG = {
    "architecture": "mobilenetv3_small_100",
    "num_classes": 5,
    "label_names": ["ant", "bee", "cat", "dog", "elk"],
    "pretrained_cfg": {
        "input_size": [3, 32, 32],
        "interpolation": "bilinear",
        "crop_pct": 0.8,
        "crop_mode": "center",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.5, 0.6, 0.7],
        "license": "mit",
    },
}


def timm_file(path, seed=0, classes=5):
    """Random weights of timm's MobileNet v3 in timm's file format, and the parameters."""
    from safetensors.numpy import save_file

    from jaxcnn import batch_norm
    from jaxcnn.weights._convert import _targets
    from jaxcnn.weights._tables import MOBILENET_V3_SMALL_TIMM as table

    model = models.mobilenet_v3_small(classes=classes, norm=batch_norm)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(seed)
    trees = jax.tree.map(lambda leaf: rng.uniform(0.5, 1, leaf.shape).astype(np.float32), shapes)
    arrays = {}
    for name, target in _targets(trees, table).items():
        leaf = trees[target.leaf[0]]
        for key in target.leaf[1].split("/"):
            leaf = leaf[key]
        arrays[name] = target.layout.apply(np.asarray(leaf))
    save_file(arrays, path, {"format": "pt"})
    return trees


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The content of model.safetensors, and its parameters and state."""
    path = tmp_path_factory.mktemp("timm") / "model.safetensors"
    trees = timm_file(path)
    return path.read_bytes(), trees


class Hub:
    """A server of one repository. `mode` is how it misbehaves."""

    def __init__(self, content):
        self.files = {"model.safetensors": content, "config.json": json.dumps(CONFIG).encode()}
        self.commit, self.mode, self.requests = COMMITS[0], None, []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.cdn = self.url.replace("127.0.0.1", "localhost") + "/cdn"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def handler(hub):
        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.respond(False)

            def do_GET(self):
                self.respond(True)

            def respond(self, with_body):
                hub.requests.append(f"{self.command} {self.path}")
                if match := re.fullmatch(f"/{NAME}/resolve/([^/]+)/(.+)", self.path):
                    revision, file = match.groups()
                    known = revision in ("main", *COMMITS) and file in hub.files
                    return self.file(hub.files[file], file, with_body) if known else self.send("RevisionNotFound")
                if self.path.startswith("/cdn/"):
                    return self.body(hub.files[self.path.removeprefix("/cdn/")], {}, with_body)
                return self.send("EntryNotFound")

            def send(self, code):
                self.send_response(404)
                self.send_header("X-Error-Code", code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def file(self, content, name, with_body):
                sha256 = hashlib.sha256(content).hexdigest()
                headers = {"X-Repo-Commit": hub.commit, "ETag": f'"{sha256[:40]}"'}
                if name != "model.safetensors":
                    return self.body(content, headers, with_body)
                headers |= {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
                self.send_response(302)  # large files are on another server
                for key, value in (headers | {"Location": f"{hub.cdn}/{name}", "Content-Length": "0"}).items():
                    self.send_header(key, value)
                self.end_headers()

            def body(self, content, headers, with_body):
                if hub.mode == "wrong" and len(content) > 10_000:
                    content = content[:-1] + bytes([content[-1] ^ 1])
                self.send_response(200)
                for key, value in (headers | {"Content-Length": str(len(content))}).items():
                    self.send_header(key, value)
                self.end_headers()
                if hub.mode == "truncated" and len(content) > 10_000:
                    content = content[: len(content) // 2]
                    self.close_connection = True
                if hub.mode == "slow":
                    time.sleep(3)
                if with_body:
                    self.wfile.write(content)

        return Handler


@pytest.fixture
def server(files, tmp_path, monkeypatch):
    """A hub, with an empty cache."""
    served = Hub(files[0])
    for name, value in {
        "ENDPOINT": served.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": served.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_DOWNLOAD_TIMEOUT": 1,
        "HF_HUB_ETAG_TIMEOUT": 1,
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("JAXCNN_DATA", raising=False)
    download, cached = hub.hf_hub_download, hub.try_to_load_from_cache
    options = {"cache_dir": tmp_path / "cache"}
    monkeypatch.setattr(
        hub, "hf_hub_download", lambda *a, **k: download(*a, **options, endpoint=served.url, etag_timeout=1, **k)
    )
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *a, **k: cached(*a, **options, **k))
    yield served
    served.server.shutdown()
    served.server.server_close()


def equal(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool((np.asarray(x) == np.asarray(y)).all()), a, b))


def test_cold_then_cached_then_offline(server, files, monkeypatch):
    content, (params, state) = files
    net = weights.pretrained(NAME)
    assert equal(net.params, {"network": params})
    assert equal(net.state, {"network": state})
    assert net.classes == ("ant", "bee", "cat", "dog", "elk")  # config.json replaces the table
    assert net.preprocess[:3] == (32, 40, "bilinear")
    url = f"{server.url}/{NAME}/resolve/{COMMITS[0]}/model.safetensors"
    assert net.source == (url, COMMITS[0], hashlib.sha256(content).hexdigest(), "mit", None)
    assert any("/cdn/" in request for request in server.requests)
    server.requests.clear()
    again = weights.pretrained(NAME.removeprefix("timm/"), sha256=net.source.sha256.upper())
    assert equal(again.params, net.params)
    assert again.source == net.source
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert weights.pretrained(NAME, revision=COMMITS[0]).source == net.source
    assert server.requests == []


def test_config_that_an_interrupted_download_left_out(server, tmp_path):
    weights.pretrained(NAME)
    (config,) = tmp_path.glob("cache/**/config.json")
    config.unlink()
    assert weights.pretrained(NAME).classes == ("ant", "bee", "cat", "dog", "elk")


@pytest.mark.slow
def test_model_starts_with_the_normalization(server):
    net = weights.pretrained(NAME)
    batch = net.preprocess(np.random.default_rng(0).integers(0, 256, (2, 50, 60, 3), np.uint8))
    assert batch.shape == (2, 32, 32, 3)
    assert batch.dtype == np.uint8
    apply = jax.jit(lambda x: net.model.apply(net.params, net.state, x, train=False)[0])
    logits = apply(batch)
    np.testing.assert_allclose(apply((batch / 255).astype(np.float32)), logits, atol=1e-5)
    from jaxcnn import batch_norm

    x = ((batch / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]).astype(np.float32)
    bare = models.mobilenet_v3_small(classes=5, norm=batch_norm)
    expected, _ = bare.apply(net.params["network"], net.state["network"], x, train=False)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_eps_of_timm():
    """The table has the option for exactly the models whose norms differ in timm: `from_torch` would refuse them."""
    rows = {name: row for name, row in _pretrained._table().items() if name.startswith("timm/")}
    differing = {row["model"] for row in rows.values() if row["norm"] == "batch_norm"}
    assert {"mobilenet_v3_large", "mobilenet_v3_small", "efficientnet_b5"} <= differing
    for row in rows.values():
        required = {table.eps for table in tables(row["model"]) if table.library == "timm"} - {None}
        assert required == ({1e-5} if row["model"] in differing else set())
        assert (row["norm"] == "batch_norm") == (row["model"] in differing)


@pytest.mark.slow
def test_new_head(server, files):
    _, (params, _) = files
    net = weights.pretrained(NAME, classes=7)
    assert net.classes is None
    found = net.params["network"]
    assert found["head"]["kernel"].shape[-1] == 7
    assert equal({k: v for k, v in found.items() if k != "head"}, {k: v for k, v in params.items() if k != "head"})
    assert equal(weights.pretrained(NAME, classes=7).params, net.params)


def test_moved_revision(server, files, tmp_path):
    old = weights.pretrained(NAME)
    timm_file(tmp_path / "new.safetensors", seed=1)
    server.files["model.safetensors"], server.commit = (tmp_path / "new.safetensors").read_bytes(), COMMITS[1]
    assert weights.pretrained(NAME).source == old.source  # the cache, without a request
    new = weights.pretrained(NAME, revision=COMMITS[1])
    assert new.source.revision == COMMITS[1]
    assert new.source.sha256 != old.source.sha256
    assert weights.pretrained(NAME, revision=COMMITS[0]).source == old.source
    with pytest.raises(weights.WeightsError, match=r"cannot be downloaded.* without revision"):
        weights.pretrained(NAME, revision="c" * 40)


def test_wrong_hash(server):
    server.mode = "wrong"
    with pytest.raises(weights.WeightsError, match=r"damaged or another file: expected the SHA-256 .* delete .*blobs"):
        weights.pretrained(NAME)


def test_pinned_hash(server):
    with pytest.raises(weights.WeightsError, match=f"expected the SHA-256 {'0' * 64}, found"):
        weights.pretrained(NAME, sha256="0" * 64)


def test_damaged_in_the_cache(server, tmp_path):
    weights.pretrained(NAME)
    (path,) = (tmp_path / "cache").rglob("model.safetensors")
    blob = path.resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(weights.WeightsError, match=re.escape(f"delete {blob}")):
        weights.pretrained(NAME)


@pytest.mark.parametrize("mode", ["truncated", pytest.param("slow", marks=pytest.mark.slow)])
def test_server_fails(server, mode, monkeypatch):
    server.mode = mode
    # the client tries 5 times, with pauses
    monkeypatch.setattr(time, "sleep", lambda seconds, sleep=time.sleep: sleep(seconds if seconds == 3 else 0.01))
    with pytest.raises(
        weights.WeightsError, match=r"resolve/main/model\.safetensors is not in the cache and cannot be"
    ):
        weights.pretrained(NAME)


def test_no_disk_space(server, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(weights.WeightsError, match="No space left on device"):
        weights.pretrained(NAME)


def test_offline_without_the_file(server, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = rf"{server.url}/{NAME}/resolve/main/model\.safetensors .*pass root=folder or set JAXCNN_DATA"
    with pytest.raises(weights.WeightsError, match=message):
        weights.pretrained(NAME)
    assert server.requests == []


@pytest.mark.parametrize("folder", ["root", "JAXCNN_DATA"])
@pytest.mark.parametrize("inner", [True, False])
def test_files_in_folders(files, folder, inner, tmp_path, monkeypatch):
    short = NAME.removeprefix("timm/")
    path = tmp_path / (f"{short}/model.safetensors" if inner else f"{short}.safetensors")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(files[0])
    (path.parent / "config.json").write_text(json.dumps(CONFIG))
    monkeypatch.setenv("JAXCNN_DATA", str(tmp_path) if folder == "JAXCNN_DATA" else "/nowhere")
    monkeypatch.setattr(hub, "hf_hub_url", None)  # nothing asks the client
    options = {"root": tmp_path} if folder == "root" else {}
    if inner:
        net = weights.pretrained(NAME, **options)
        assert net.source[:2] == (str(path), None)
        assert equal(net.params, {"network": files[1][0]})
    else:  # a config.json beside several files belongs to none; the table expects 1,000 classes
        with pytest.raises(weights.WeightsError, match="wrong shape"):
            weights.pretrained(NAME, **options)


def test_config_that_is_damaged(server):
    server.files["config.json"] = b'{"pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": 0}}'
    with pytest.raises(weights.WeightsError, match=r"config\.json is not a config of timm"):
        weights.pretrained(NAME)


# torchvision's files


@pytest.fixture
def torchvision_file(tmp_path, monkeypatch):
    """A name in the table, and the content of its file. It is safetensors, which `load` reads under any name."""
    model = models.squeezenet1_1()
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    params, state = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), shapes)
    weights.save(tmp_path / "content", params, state, model="squeezenet1_1")
    content = (tmp_path / "content").read_bytes()
    name = f"torchvision/squeezenet1_1-{hashlib.sha256(content).hexdigest()[:8]}"
    row = next(row for row in _pretrained._table().values() if row["model"] == "squeezenet1_1")
    monkeypatch.setitem(_pretrained._table(), name, row)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return name, content, params


def test_torchvision(torchvision_file, tmp_path, monkeypatch):
    name, content, params = torchvision_file
    urls = []

    def chunks(url):
        urls.append(url)
        yield content

    monkeypatch.setattr(_locate, "fast_enough_chunks", chunks)
    net = weights.pretrained(name)
    assert urls == [f"https://download.pytorch.org/models/{name.split('/')[1]}.pth"]
    assert equal(net.params, {"network": params})
    assert net.state == {}
    assert net.classes[:2] == ("tench", "goldfish")
    assert net.preprocess == (224, 256, "bilinear", "center")
    assert net.source.sha256 == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "torch/hub/checkpoints" / f"{name.split('/')[1]}.pth").read_bytes() == content
    assert equal(weights.pretrained(name).params, net.params)
    assert len(urls) == 1


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + bytes(20_000_000), lambda c: c[:-1] + b"!"])
def test_torchvision_download_fails(torchvision_file, change, tmp_path, monkeypatch):
    name, content, _ = torchvision_file
    monkeypatch.setattr(_locate, "fast_enough_chunks", lambda url: iter([change(content)]))
    with pytest.raises(weights.WeightsError, match=r"cannot be downloaded.*expected"):
        weights.pretrained(name)
    assert list((tmp_path / "torch/hub/checkpoints").iterdir()) == []


def test_torchvision_file_is_damaged(torchvision_file, tmp_path):
    name, content, _ = torchvision_file
    (tmp_path / f"{name.split('/')[1]}.pth").write_bytes(content[:-1])
    with pytest.raises(weights.WeightsError, match="damaged or another file"):
        weights.pretrained(name, root=tmp_path)


# arguments and the table


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "resnet50.a1_in1"}, ValueError, r"unknown weights 'resnet50.a1_in1'.*did you mean"),
        ({"name": None}, TypeError, r"pretrained: name must be a str, such as 'resnet50\.a1_in1k', got None"),
        ({"name": "resnet18"}, ValueError, r"names; expected one of: timm/resnet18\.[^,]*(, \S*resnet18\S*){6}"),
        ({"name": NAME, "sha256": "abc"}, ValueError, "64 hexadecimal digits, got 'abc'"),
        ({"name": NAME, "classes": 0}, ValueError, "classes"),
        ({"name": "torchvision/resnet50-11ad3fa6", "revision": "main"}, ValueError, "have no revision, got 'main'"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        weights.pretrained(**arguments)


def test_available():
    everything = weights.available()
    assert len(everything) > 200
    assert weights.available("resnet18.*") == weights.available("timm/resnet18.*")
    (entry,) = weights.available("torchvision/resnet18-f37072fd")
    assert entry == ("torchvision/resnet18-f37072fd", 11_689_512, 69.758, None, "resnet18")
    assert repr(weights.available("resnet18.a1_in1k")).splitlines()[1].split()[:2] == [
        "timm/resnet18.a1_in1k",
        "11,689,512",
    ]
    with pytest.raises(ValueError, match="no weights match 'resnet51'"):
        weights.available("resnet51")
    with pytest.raises(ValueError, match=r"no weights match 'resnet18'; expected one of: timm/resnet18\."):
        weights.available("resnet18")


def test_every_row_fits_a_model():
    for name, row in _pretrained._table().items():
        assert not any(re.search(pattern, name) for pattern in _file.LOOKALIKES), name
        assert row["model"] in models.MODELS
        preprocess = _pretrained._preprocess(row)
        assert preprocess.resize >= preprocess.size > 0
        assert data.normalize(row["mean"], row["std"])
        assert name.startswith("timm/") or re.fullmatch(r"torchvision/[\w.-]+-[0-9a-f]{8,10}", name)


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v3_small", "googlenet"])
def test_parameters_of_the_table(model):
    row = next(row for row in _pretrained._table().values() if row["model"] == model)
    options = {"auxiliary": False} if model == "googlenet" else {}
    spec = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params, _ = jax.eval_shape(getattr(models, model)(**options).init, jax.random.key(0), spec)
    assert count_params(params) == row["params"]


def test_classes_of_imagenet():
    names = weights.imagenet_classes()
    assert len(set(names.values())) == len(names) == 1000
    assert all(re.fullmatch(r"n\d{8}", synset) for synset in names)
    assert list(names) == sorted(names)
    assert [names[k] for k in ("n01440764", "n02123045", "n15075141")] == ["tench", "tabby", "toilet tissue"]


# preprocessing


def preprocess(size=8, resize=10, interpolation="bicubic", crop_mode="center"):
    return weights._preprocess.Preprocess(size, resize, interpolation, crop_mode)


SHAPES = [(40, 57), (57, 40), (6, 9), (11, 11), (1, 1), (1, 30), (300, 7), (33, 64), (3, 4)]


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", SHAPES)
def test_preprocess_is_pillow(interpolation, shape, crop_mode):
    array = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    height, width = (int(10 * side / min(shape)) if crop_mode == "center" else 10 for side in shape)
    code = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    left, top = round((width - 8) / 2), round((height - 8) / 2)
    crop = lambda image: np.asarray(image.resize((width, height), code).crop((left, top, left + 8, top + 8)))
    found = preprocess(interpolation=interpolation, crop_mode=crop_mode)([array, array[..., 0]])
    assert found.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(found[0], crop(Image.fromarray(array)))
    np.testing.assert_array_equal(found[1], crop(Image.fromarray(array[..., 0]))[..., None].repeat(3, -1))


def test_border():
    bordered = preprocess(size=12)(np.full((10, 10, 3), 200, np.uint8))[0]
    assert (bordered[1:11, 1:11] == 200).all()
    assert bordered.sum() == 200 * 300


def test_kinds_of_images(tmp_path):
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (20, 30), np.uint8)
    color = Image.fromarray(np.stack([gray] * 3, -1))
    turned = Image.fromarray(np.rot90(np.asarray(color)).copy())
    turned.getexif()[0x0112] = 6  # to be turned clockwise
    color.save(tmp_path / "color.png")
    same = [gray, gray[..., None], color, str(tmp_path / "color.png"), tmp_path / "color.png", Image.fromarray(gray)]
    same += [turned, color.convert("RGBA"), Image.fromarray(gray.astype(np.uint16) * 256)]
    batch = preprocess()(same)
    assert batch.shape == (9, 8, 8, 3)
    assert (batch == batch[:1]).all()
    assert preprocess()(Image.new("CMYK", (20, 20))).min() == 255
    assert preprocess()(Image.new("RGBA", (20, 20))).min() == 255  # transparent is white


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([], ValueError, "got an empty list"),
        (np.zeros((4, 4, 3)), TypeError, "got float64 for image 0"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 2), np.uint8)], ValueError, r"got \(4, 4, 2\) for image 1"),
        ("nowhere.png", data.DataError, "nowhere.png: cannot be read"),
    ],
)
def test_images_that_are_none(images, error, message):
    with pytest.raises(error, match=message):
        preprocess()(images)


def test_damaged_image(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    assert preprocess()(tmp_path / "x.png").shape == (1, 8, 8, 3)
    (tmp_path / "x.png").write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
    with pytest.raises(data.DataError, match="the PNG is damaged"):
        preprocess()(tmp_path / "x.png")

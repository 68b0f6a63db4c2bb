"""A folder of images becomes a program, which `experiments.predict` and `experiments.serve` use."""

import asyncio
import contextlib
import io
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import _program, predict, serve
from jaxcnn import data, dense, flatten, serial, train
from jaxcnn.data import DataError
from jaxcnn.train import ConfigError, override

CLASSES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run, with the model that it contains."""
    folder = tmp_path_factory.mktemp("run")
    model = serial(flatten, dense(3))
    params, state = model.init(jax.random.key(0), np.zeros((1, 6, 4, 3), np.float32))
    images = data.Dataset(np.zeros((1, 6, 4, 3), np.uint8), np.zeros(1, np.int32), CLASSES)
    _program.save_program(folder, model, params, state, images)
    return folder, lambda x: np.asarray(jax.nn.softmax(model.apply(params, state, x / np.float32(255), train=False)[0]))


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def random_images(count):
    return np.random.default_rng(0).integers(0, 256, (count, 6, 4, 3), np.uint8)


def test_predict_uses_the_program_of_the_run(run, tmp_path, capsys):
    folder, probabilities = run
    pixels = random_images(2)
    for i, image in enumerate(pixels):
        (tmp_path / f"{i}.png").write_bytes(png(image))
    (tmp_path / ".DS_Store").write_text("")
    (tmp_path / "bad.jpg").write_text("not an image")
    result = predict.main(override(predict.CONFIG, [f"run={folder}", f"images={tmp_path}", "top=2"]))
    for i, expected in enumerate(probabilities(pixels)):
        order = np.argsort(-expected)[:2]
        assert list(result[f"{i}.png"]) == [CLASSES[at] for at in order]
        np.testing.assert_allclose(list(result[f"{i}.png"].values()), expected[order], rtol=1e-5)
    assert "bad.jpg: cannot be read" in capsys.readouterr().err
    with Image.open(folder / "predictions.png") as sheet:
        assert sheet.width > 100


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["run=nowhere", "images=x"], r"run=nowhere contains no model\.stablehlo"),
        (["run=nowhere"], r"run=nowhere needs images=\.\."),
        (["run=nowhere", "images=x", "classes=3"], "classes=3 has no effect with run=FOLDER"),
    ],
)
def test_wrong_settings_of_predict(settings, message):
    with pytest.raises(ConfigError, match=message):
        predict.main(override(predict.CONFIG, settings))


def test_a_damaged_program(tmp_path):
    (tmp_path / "model.stablehlo").write_bytes(b"\x01\x02")
    with pytest.raises(ConfigError, match=r"model\.stablehlo: cannot be read as an exported classifier"):
        _program.load_program(str(tmp_path))


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as each:
            each.bind(("::1", 0))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def served(program, *settings):
    """Yield a function that sends a request and returns (status, answer)."""
    uvicorn = pytest.importorskip("uvicorn")
    app = serve.application(program, override(serve.CONFIG, list(settings)))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]

    def send(content=None, method=None):
        request = urllib.request.Request(f"http://127.0.0.1:{port}", content, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    try:
        yield send
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


def test_server_answers_many_requests(run):
    folder, probabilities = run
    program = _program.load_program(str(folder))
    sizes = []

    def noted(images):
        sizes.append(images.shape)
        return program.predict(images)

    pixels = random_images(30)
    with served(program._replace(predict=noted), "batch=4") as send, ThreadPoolExecutor(10) as pool:
        assert send() == (200, {"classes": list(CLASSES), "size": [6, 4]})
        assert send(method="HEAD") == (200, None)
        answers = list(pool.map(send, map(png, pixels)))
    for (status, answer), expected in zip(answers, probabilities(pixels), strict=True):
        assert status == 200
        found = {entry["name"]: entry["probability"] for entry in answer["classes"]}
        assert list(found) == [CLASSES[at] for at in np.argsort(-expected)]
        np.testing.assert_allclose([found[name] for name in CLASSES], expected, rtol=1e-5)
    assert set(sizes) == {(4, 6, 4, 3)}  # one compilation


def test_waiting_images_fill_batches():
    sizes = []

    def predict(images):
        means = images.mean((1, 2, 3))
        sizes.append(np.count_nonzero(means))
        return means

    async def answers():
        batcher = serve.Batcher(predict, 4, 10)
        waiting = [asyncio.create_task(batcher(np.full((2, 2, 1), value, np.uint8))) for value in range(1, 11)]
        await asyncio.sleep(0)  # all of them are in the queue before the first batch
        worker = asyncio.create_task(batcher.run())
        results = await asyncio.gather(*waiting)
        worker.cancel()
        return results

    assert asyncio.run(answers()) == [*range(1, 11)]
    assert sizes == [4, 4, 2]


def test_server_refuses_bad_requests_and_goes_on(run):
    program = _program.load_program(str(run[0]))
    good = png(random_images(1)[0])
    with served(program, "max_megabytes=1") as send:
        assert send(b"not an image") == (
            400,
            {
                "error": "image: cannot be read as an image: expected JPEG, PNG, WebP or BMP, found other or damaged "
                "content"
            },
        )
        assert send(bytes(1_000_001)) == (413, {"error": "the image is larger than 1 MB"})
        assert send(good)[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_address_is_printed(run, monkeypatch, capsys, host):
    uvicorn = pytest.importorskip("uvicorn")
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    ports = []
    monkeypatch.setattr(
        uvicorn.Server, "run", lambda self, sockets: ports.extend(each.getsockname()[1] for each in sockets)
    )
    serve.main(override(serve.CONFIG, [f"run={run[0]}", "port=0", f"host={host}"]))
    assert ports[0] > 0
    address = host if "." in host else f"[{host}]"
    assert f"http://{address}:{ports[0]} on" in capsys.readouterr().out


def test_an_address_that_the_system_refuses(run):
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for settings in (
            [f"port={port}"],
            ["host=192.0.2.1", "port=0"],
            ["host=a..b", "port=0"],
            ["host=a\0", "port=0"],
        ):
            with pytest.raises(ConfigError, match="cannot listen on host="):
                serve.main(override(serve.CONFIG, [f"run={run[0]}", *settings]))
    train.require(serve.CONFIG | {"port": 65535}, serve.LIMITS)
    with pytest.raises(ConfigError, match="port"):
        train.require(serve.CONFIG | {"port": 65536}, serve.LIMITS)


def test_server_limits_time_and_waiting_requests(run):
    program = _program.load_program(str(run[0]))
    release = threading.Event()

    def slow(images):
        release.wait(20)
        return program.predict(images)

    good = png(random_images(1)[0])
    with (
        served(program._replace(predict=slow), "timeout=0.5", "batch=1", "waiting=1") as send,
        ThreadPoolExecutor(6) as pool,
    ):
        statuses = [status for status, _ in pool.map(send, [good] * 6)]
        assert set(statuses) == {503, 504}
        release.set()
        deadline = time.monotonic() + 10
        while send(good)[0] != 200:
            assert time.monotonic() < deadline


def test_an_error_of_the_program_reaches_its_requests_only():
    def fails_once(images, calls=[]):  # noqa: B006
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no memory")
        return images.sum((1, 2, 3))[:, None]

    async def check():
        batcher = serve.Batcher(fails_once, 2, 10)
        task = asyncio.create_task(batcher.run())
        with pytest.raises(RuntimeError, match="no memory"):
            await batcher(np.ones((2, 2, 1)))
        assert await batcher(np.ones((2, 2, 1))) == 4
        task.cancel()

    asyncio.run(check())


def test_read_image_of_an_open_file():
    pixels = random_images(1)[0]
    np.testing.assert_array_equal(data.read_image(io.BytesIO(png(pixels)), (6, 4)), pixels)
    with pytest.raises(DataError, match="cannot be read as an image"):
        data.read_image(io.BytesIO(b""), (6, 4))

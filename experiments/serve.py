"""Classify images over HTTP with a trained network: POST an image, get JSON with the most likely classes.

    python -m experiments.serve run=runs/image_folder-..     a run of `experiments.image_folder`
    curl --data-binary @cat.jpg http://127.0.0.1:8000        {"classes": [{"name": "cat", "probability": 0.98}, ..]}
    curl http://127.0.0.1:8000                               {"classes": ["cat", "dog"], "size": [32, 32]}

The program `model.stablehlo` of the run is compiled once, for batches of `batch` images. Requests that wait while a
batch is computed go into the next batch. The server only listens on this machine unless `host` is changed.
Needs pip install '.[serve]'.
"""

import asyncio
import contextlib
import io
import socket

import jax
import numpy as np

from experiments._program import load_program
from jaxcnn import data, train

CONFIG = {
    "run": "",
    "host": "127.0.0.1",
    "port": 8000,  # 0: one that the system chooses
    "batch": 8,  # images per batch
    "waiting": 64,  # maximum number of waiting requests; more are refused with status 503
    "max_megabytes": 20,  # per image; larger ones are refused with status 413
    "timeout": 10.0,  # seconds per request, then status 504
    "top": 5,
}
LIMITS = {
    "port": (0, 65536),
    "batch": (1, 4096),
    "waiting": (1, 10**6),
    "max_megabytes": (1, 10**4),
    "timeout": (0, 3600),
    "top": (1, 10**6),
}


class Batcher:
    """Computes waiting images in batches of a fixed size, so that the program is compiled once.

    predict: images (batch, height, width, channels) -> probabilities (batch, classes)
    """

    def __init__(self, predict, batch, waiting):
        self._predict, self._batch = predict, batch
        self._queue = asyncio.Queue(waiting)

    async def __call__(self, image):
        """The probabilities of one image. Raises asyncio.QueueFull if too many images are waiting."""
        answer = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((image, answer))
        return await answer

    async def run(self):
        """Answer requests until cancelled."""
        while True:
            waiting = [await self._queue.get()]
            while len(waiting) < self._batch and not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            waiting = [(image, answer) for image, answer in waiting if not answer.done()]  # others gave up
            if not waiting:
                continue
            images = np.zeros((self._batch, *waiting[0][0].shape), waiting[0][0].dtype)
            images[: len(waiting)] = [image for image, _ in waiting]
            try:
                rows = await asyncio.to_thread(self._predict, images)
            except Exception as error:  # every request of the batch gets the error, and the server goes on
                rows = [error] * len(waiting)
            for (_, answer), row in zip(waiting, rows, strict=False):
                if not answer.done():
                    answer.set_exception(row) if isinstance(row, Exception) else answer.set_result(row)


def application(program, config):
    """The web application (ASGI) for a program from `load_program`."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    batcher = Batcher(program.predict, config["batch"], config["waiting"])
    limit = config["max_megabytes"] * 10**6

    async def body(request):
        """The bytes of the request, or None if they are too many."""
        received = bytearray()
        async for chunk in request.stream():
            received += chunk
            if len(received) > limit:
                return None
        return bytes(received)

    async def classify(request):
        content = await body(request)
        if content is None:
            return JSONResponse({"error": f"the image is larger than {config['max_megabytes']} MB"}, 413)
        try:
            image = await asyncio.to_thread(program.read, io.BytesIO(content))
        except data.DataError as error:
            return JSONResponse({"error": str(error)}, 400)
        try:
            return JSONResponse({"classes": program.top(await batcher(image), config["top"])})
        except asyncio.QueueFull:
            return JSONResponse({"error": "too many requests are waiting; try again"}, 503)

    async def answer(request):
        if request.method in ("GET", "HEAD"):
            return JSONResponse({"classes": program.classes, "size": program.size})
        try:
            async with asyncio.timeout(config["timeout"]):
                return await classify(request)
        except TimeoutError:
            return JSONResponse({"error": f"no answer within {config['timeout']} s"}, 504)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        task = asyncio.create_task(batcher.run())
        yield
        task.cancel()

    return Starlette(routes=[Route("/", answer, methods=["GET", "POST"])], lifespan=lifespan)


def listening_socket(host, port):
    """A socket on which clients can connect. Raises ConfigError if the system refuses the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        *_, address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)
    except (OSError, ValueError) as error:  # ValueError for a name that no host can have
        raise train.ConfigError(f"cannot listen on host={host} port={port}: {error}") from error


def main(config):
    train.require(config, LIMITS)
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise train.ConfigError("serving needs starlette and uvicorn: pip install '.[serve]'") from error
    if not config["run"]:
        raise train.ConfigError("serve needs run=FOLDER, the run of an experiment such as image_folder")
    program = load_program(config["run"])
    host = config["host"]
    with listening_socket(host, config["port"]) as listener:
        program.predict(np.zeros((config["batch"], *program.size, program.channels), np.uint8))  # compiles
        address = f"[{host}]" if ":" in host else host
        port = listener.getsockname()[1]  # the system chooses one for port=0
        print(f"http://{address}:{port} on {jax.default_backend()}: {', '.join(program.classes)}", flush=True)
        # uvicorn's own logging would close the handlers of other packages.
        options = uvicorn.Config(application(program, config), log_level="warning", log_config=None)
        uvicorn.Server(options).run(sockets=[listener])


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)

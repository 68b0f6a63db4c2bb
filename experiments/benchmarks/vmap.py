"""Many networks in one program by `vmap`, against separate calls: jaxcnn, Flax, Equinox and PyTorch.

    python -m experiments.benchmarks.vmap                             all networks, all frameworks
    python -m experiments.benchmarks.vmap resnet20 --peers torch      one network, only jaxcnn and PyTorch

K models with different parameters and batches of 32 images do one of these:

    train       gradients in training mode, each model with its own batch, and a plain SGD update
    infer       logits in evaluation mode, all models with the same images
    examples    gradients of one model in evaluation mode, one for each of the 32 images (K = 1)

Each framework runs the work as one program for K models (`vmap`) and as K calls of the program for one model (`loop`).
For `examples`, the gradient of the mean loss (`batch`) replaces the loop. Results are checked to be equal before they
are timed. Times are milliseconds; the columns `/ loop` are the time of `vmap` divided by that of `loop` or `batch`.

jaxcnn is compiled with `jaxcnn.jit`, Flax and Equinox with `jax.jit`. The arrays of an Equinox module are separated
from its other parts, which takes less time per call than `eqx.filter_jit`. PyTorch runs eagerly, channels first, with
`torch.func.vmap` and `torch.func.stack_module_state`. It is not compiled: `torch.compile` accepts these functions, but
compiles each network for minutes, and again for each K. `torch.func.vmap` rejects the in-place update of the running
statistics of batch norm. For `train` they are removed by `torch.func.replace_all_batch_norm_modules_`, in the loop they
are updated. It has no batching rule for batch norm in evaluation mode, and warns that it loops there.

A call is left out if it would take more than 10 s, estimated from the next smaller K. All calls are left out if the
models need more than 8 GB, estimated from the training step of one model in jaxcnn.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxcnn
from experiments.benchmarks import _measure, _networks

BATCH = 32
NETWORKS = {name: _networks.NETWORKS[name]._replace(batch=BATCH) for name in ("lenet5", "resnet20", "mobilenet")}
MODELS = (1, 2, 8, 32)
WORK = {"train": MODELS, "infer": MODELS, "examples": (1,)}
SECONDS, BYTES = 10, 8e9
# Each call starts from the same parameters. With this learning rate the updated parameters show the gradients.
LEARNING_RATE = 1e4


class Contender(NamedTuple):
    """A kind of work in a framework. Both functions block until their results are ready.

    `vmap` returns arrays with a leading dimension for the models or examples; `loop` returns a list with the arrays of
    each model, or with the gradients of the mean loss.
    """

    parameters: int  # of one model
    vmap: Callable[[], Any]
    loop: Callable[[], Any]


def _batches(net: _networks.Network, kind: str, models: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (K, N, H, W, C) and labels (K, N) for training, otherwise (N, H, W, C) and (N,)."""
    if kind != "train":
        return _networks.random_batch(net)
    images, labels = zip(*(_networks.random_batch(net, seed) for seed in range(models)), strict=True)
    return np.stack(images), np.stack(labels)


def _jax(model: _networks.Model, jit: Callable, net: _networks.Network, kind: str, models: int) -> Contender:
    def loss(params, state, image, label):
        logits, state = model.apply(params, state, image, train=kind == "train")
        return _networks.mean_loss(logits, label), state

    gradient = jax.grad(loss, has_aux=True)

    def train(params, state, image, label):
        change, state = gradient(params, state, image, label)
        return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, change), state

    def infer(params, state, image, label):
        return model.apply(params, state, image, train=False)[0]

    def examples(params, state, image, label):
        return gradient(params, state, image, label)[0]

    images, labels = _batches(net, kind, models)
    if model.channels_first:
        images = np.moveaxis(images, -1, -3)
    batch = jnp.asarray(images), jnp.asarray(labels)
    variables = jax.jit(jax.vmap(model.init))(jax.random.split(jax.random.key(0), models))
    take = lambda tree, i: jax.tree.map(lambda x: x[i], tree)
    if kind == "train":
        function, axes, args = train, 0, (*variables, *batch)
        loop_args = [take(args, i) for i in range(models)]
    elif kind == "infer":
        function, axes, args = infer, (0, 0, None, None), (*variables, *batch)
        loop_args = [(*take(variables, i), *batch) for i in range(models)]
    else:
        one = take(variables, 0)
        function, axes, args = examples, (None, None, 0, 0), (*one, *(x[:, None] for x in batch))
        loop_args = [(*one, *batch)]
    vmapped, single = jit(jax.vmap(function, axes)), jit(function)
    return Contender(
        _networks.parameter_count(variables[0]) // models,
        lambda: jax.block_until_ready(vmapped(*args)),
        lambda: jax.block_until_ready([single(*args) for args in loop_args]),
    )


def _torch(net: _networks.Network, kind: str, models: int) -> Contender:
    import torch
    from torch import func

    torch.manual_seed(0)
    device = _networks.torch_device()
    images, labels = (torch.from_numpy(array).to(device) for array in _batches(net, kind, models))
    images = images.movedim(-1, -3).contiguous()
    modules = [_networks.torch_module(net).to(device).train(kind == "train") for _ in range(models)]
    count = sum(param.numel() for param in modules[0].parameters())
    stackable = copy.deepcopy(modules)
    if kind == "train":
        for module in stackable:
            func.replace_all_batch_norm_modules_(module)
    params, buffers = func.stack_module_state(stackable)
    module = copy.deepcopy(stackable[0]).to("meta")
    loss_of = torch.nn.functional.cross_entropy

    def logits(params, buffers, image):
        return func.functional_call(module, (params, buffers), (image,))

    def loss(params, buffers, image, label):
        return loss_of(logits(params, buffers, image), label)

    def updated(params, gradients):
        return [torch.add(p, g, alpha=-LEARNING_RATE) for p, g in zip(params, gradients, strict=True)]

    def backward(module, image, label):
        loss_of(module(image), label).backward()
        gradients = [param.grad for param in module.parameters()]
        module.zero_grad()
        return gradients

    @torch.no_grad()
    def vmap_of(work):
        if work == "infer":
            return func.vmap(logits, (0, 0, None))(params, buffers, images)
        if work == "train":
            gradients = func.vmap(func.grad(loss))(params, buffers, images, labels)
            return updated(params.values(), gradients.values())
        one = ({name: array[0] for name, array in arrays.items()} for arrays in (params, buffers))
        gradients = func.vmap(func.grad(loss), (None, None, 0, 0))(*one, images[:, None], labels[:, None])
        return list(gradients.values())

    def loop_of(work):
        if work == "infer":
            with torch.inference_mode():
                return [module(images) for module in modules]
        if work == "examples":
            return [backward(modules[0], images, labels)]
        results = []
        for module, image, label in zip(modules, images, labels, strict=True):
            gradients = backward(module, image, label)
            with torch.no_grad():
                results.append(updated(module.parameters(), gradients))
        return results

    def blocking(function):
        def call():
            result = function(kind)
            if device == "cuda":
                torch.cuda.synchronize()
            return result

        return call

    return Contender(count, blocking(vmap_of), blocking(loop_of))


_JAX = {"jaxcnn": _networks.jaxcnn_model, "flax": _networks.flax_model, "equinox": _networks.equinox_model}
FRAMEWORKS = (*_JAX, "torch")


def create(framework: str, net: _networks.Network, kind: str, models: int) -> Contender:
    if framework == "torch":
        return _torch(net, kind, models)
    return _jax(_JAX[framework](net), jaxcnn.jit if framework == "jaxcnn" else jax.jit, net, kind, models)


def check(contenders: dict[str, Contender], kind: str) -> None:
    """Raise an error unless all models have the same size and `vmap` and `loop` have the same results."""
    counts = {name: contender.parameters for name, contender in contenders.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"the contenders have different parameter counts: {counts}")
    for name, contender in contenders.items():
        found = _arrays(contender.vmap())
        if kind == "examples":
            found = [array.mean(0, keepdims=True) for array in found]
        expected = [np.stack(arrays) for arrays in zip(*map(_arrays, contender.loop()), strict=True)]
        for a, b in zip(found, expected, strict=True):
            # Not the largest error: rounding moves single inputs of ReLU across zero, which changes single gradients.
            error, size = np.linalg.norm(a - b), np.linalg.norm(b)
            if not error <= 0.03 * size:  # also if not finite
                raise ValueError(f"{name}, {kind}: vmap and loop differ by {error / size:.2g} of the norm")


def _arrays(results: Any) -> list[np.ndarray]:
    """The arrays of JAX or PyTorch in a nested structure."""
    to_host = lambda leaf: leaf if isinstance(leaf, jax.Array) else leaf.detach().cpu()
    return [np.asarray(to_host(leaf)) for leaf in jax.tree.leaves(results)]


def training_memory(net: _networks.Network) -> int:
    """Bytes of the intermediate results of a training step of one model in jaxcnn."""
    training = _networks.jaxcnn_training(net)
    compiled = training.step.lower(jax.eval_shape(training.create), training.batch).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def measure(
    net: _networks.Network, kind: str, models: int, frameworks: Sequence[str], *, turns: int, limits: dict[str, int]
) -> dict[str, Any]:
    """The parameters of one model, the seconds of each call, and the time of `vmap` divided by that of the loop.

    `limits` maps calls to the largest number of models for which they are measured.
    """
    contenders = {framework: create(framework, net, kind, models) for framework in frameworks}
    loop = "batch" if kind == "examples" else "loop"
    calls = {f"{framework} vmap": contender.vmap for framework, contender in contenders.items()}
    calls |= {f"{framework} {loop}": contender.loop for framework, contender in contenders.items()}
    calls = {name: call for name, call in calls.items() if models <= limits.get(name, models)}
    both = {name: contenders[name] for name in frameworks if {f"{name} vmap", f"{name} {loop}"} <= {*calls}}
    check(both, kind)
    timings, turn_times = _measure.compare(calls, turns=turns)
    return {
        "models": models,
        "kind": kind,
        "parameters": contenders["jaxcnn"].parameters,
        "seconds": {name: timing._asdict() | {"turns": turn_times[name]} for name, timing in timings.items()},
        "ratio": {name: _measure.ratio(turn_times, f"{name} vmap", [f"{name} {loop}"]) for name in both},
    }


def measure_network(name: str, frameworks: Sequence[str], turns: int, table: _measure.Table) -> list[dict[str, Any]]:
    """The rows of a network. Prints each row as soon as it is measured."""
    net, rows = NETWORKS[name], []
    largest = BYTES // training_memory(net)
    for kind, counts in WORK.items():
        limits: dict[str, int] = {}
        for models in counts:
            if models > largest:
                print(f"skipping {kind} of {models} {name}: more than {BYTES / 1e9:.0f} GB")
                continue
            row = measure(net, kind, models, frameworks, turns=turns, limits=limits)
            medians = {call: timing["median"] for call, timing in row["seconds"].items()}
            limits |= {call: int(SECONDS * models / median) for call, median in medians.items()}
            rows.append({"net": name, "batch": net.batch} | row)
            columns = [(medians.get(f"{peer} vmap"), row["ratio"].get(peer)) for peer in FRAMEWORKS]
            cells = [cell for time, ratio in columns for cell in (time and 1e3 * time, ratio)]
            table.row(name, kind, models, *cells)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="net", help=f"any of: {', '.join(NETWORKS)}; default: all")
    parser.add_argument("--peers", default=",".join(FRAMEWORKS), help="comma-separated; default: %(default)s")
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    jaxcnn.train.reuse_memory()
    peers = _measure.select_names(dict.fromkeys(("jaxcnn", *options.peers.split(","))), FRAMEWORKS)
    frameworks = _networks.installed_frameworks(peers)
    nets = _measure.select_names(options.names, NETWORKS)
    table = _table()
    for name in nets:
        rows = measure_network(name, frameworks, options.turns, table)
        if options.peers == parser.get_default("peers"):  # after each network, so that an interruption loses little
            print(_measure.save("vmap", [*_measure.other_rows("vmap", "net", [name]), *rows]))


def _table() -> _measure.Table:
    columns = [column for framework in FRAMEWORKS for column in (framework, "/ loop")]
    return _measure.Table(("net", 10), ("kind", 9), "models", *columns)


if __name__ == "__main__":
    main()

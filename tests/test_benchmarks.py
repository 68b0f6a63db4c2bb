"""The benchmarks compare what is the same: operations with `lax`, networks with the sizes that they are known for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import _measure, _networks, nets, ops, sweep

PARAMETERS = {
    "lenet5": 61_706,
    "small": 50_186,
    "resnet20": 272_474,
    "mobilenet": 136_778,
    "convnext": 559_626,
    "vgg": 2_197_706,
    "resnet18": 11_181_642,
}


@pytest.mark.parametrize("case", ops.CASES, ids=lambda case: case.name)
@pytest.mark.usefixtures("quick_compilation")
def test_operation_equals_lax(case):
    case = case._replace(batch=2, spatial=tuple(min(n, 9) for n in case.spatial))
    args = ops.inputs(case)

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradients(function, *args):
        y, back = jax.vjp(function, *args)
        return y, *back(jnp.sin(jnp.arange(y.size)).reshape(y.shape))

    results = (value_and_gradients(function, *args) for function in (ops.ours(case), ops.plain(case)))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max())


def test_networks_have_their_parameters():
    sizes = {}
    for name, net in _networks.NETWORKS.items():
        model, _, batch = _networks.jaxcnn_parts(net._replace(batch=1))
        params, _ = jax.eval_shape(model.init, jax.random.key(0), batch["image"])
        sizes[name] = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert sizes == PARAMETERS


def test_random_operations_are_of_all_kinds_and_bounded():
    rng = np.random.default_rng(0)
    drawn = [sweep.draw(rng) for _ in range(200)]
    kinds = {case.name.split(" (")[0] for case in drawn}
    assert kinds == {"conv", "depthwise", "grouped", "transposed", "max pool", "mean pool", "batch norm"}
    assert all(1e4 <= np.prod((case.batch, *case.spatial, case.channels)) <= 8e6 for case in drawn)
    assert len(set(drawn)) > 190


def test_ratio_is_against_the_fastest():
    taken = {"ours": [2.0, 2.0, 9.0], "slow": [8.0, 8.0, 8.0], "fast": [1.0, 1.0, 1.0]}
    assert _measure.ratio(taken, "ours", ["slow", "fast"]) == 2


def test_a_network_is_measured(capsys):
    table = _measure.Table(("net", 9), ("kind", 6), "jaxcnn", "torch", ("best of torch", 27), *nets.NUMBERS)
    tiny = _networks.NETWORKS["lenet5"]._replace(batch=2)
    built = _networks.build(tiny, ["jaxcnn", "stax"])
    calls = {name: contender.train for name, contender in built.items()}
    timings, taken = _measure.compare(calls, turns=1, seconds=0.001)
    assert all(timing.median > 0 for timing in timings.values())
    nets._show(table, {"net": "lenet5", "kind": "train"}, taken, 1e3)
    assert len(capsys.readouterr().out.splitlines()) == 2

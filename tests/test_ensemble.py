"""Ensembles and Monte Carlo dropout against Python loops over the networks."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn as cnn
from jaxcnn import data, explain, train

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([0, 2, 1, 1, 2, 0])
BATCH = {"image": X, "label": LABELS}
NET = cnn.serial(hidden=cnn.dense(5), norm=cnn.batch_norm(), act=jnp.tanh, drop=cnn.dropout(0.5), head=cnn.dense(3))
N = 3
ENSEMBLE = cnn.ensemble(NET, N)


def member(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def softmax(y):
    e = np.exp(np.asarray(y, np.float64))
    return e / e.sum(-1, keepdims=True)


def assert_close(a, b, tolerance=1e-5):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance), a, b)


@pytest.fixture(scope="module")
def stacked():
    return ENSEMBLE.init(KEY, X)


def test_members_have_their_own_initial_parameters(stacked):
    for i in range(N):
        assert_close(member(stacked, i), NET.init(jax.random.fold_in(KEY, i), X))


def test_evaluation_is_the_mean_probability(stacked):
    outputs = [NET.apply(*member(stacked, i), X, train=False)[0] for i in range(N)]
    y, state = ENSEMBLE.apply(*stacked, X, train=False)
    np.testing.assert_allclose(np.exp(y), np.mean([softmax(y) for y in outputs], 0), 1e-5)
    assert_close(state, stacked[1], 0)
    separate, _ = cnn.ensemble(NET, N, combine=None).apply(*stacked, X, train=False)
    np.testing.assert_allclose(separate, np.stack(outputs), 1e-5, 1e-5)
    mean, _ = cnn.ensemble(NET, N, combine=lambda ys: ys.mean(0)).apply(*stacked, X, train=False)
    np.testing.assert_allclose(mean, np.mean(outputs, 0), 1e-5, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
def test_ensemble_of_a_convolutional_network(train):
    net = cnn.serial(
        cnn.conv(4), cnn.batch_norm(), jnp.tanh, cnn.depthwise_conv(stride=2), cnn.max_pool(2), cnn.flatten
    )
    x = jnp.asarray(RNG.normal(size=(3, 8, 8, 2)), jnp.float32)
    model = cnn.ensemble(net, N, combine=None)
    params, state = model.init(KEY, x)
    ys, after = model.apply(params, state, x, train=train)
    for i, (own_params, own_state) in enumerate(cnn.split_members(params, state)):
        expected = net.apply(own_params, own_state, x, train=train)
        assert_close((ys[i], member(after, i)), expected, 1e-4)


def test_members_have_their_own_dropout_and_statistics(stacked):
    y, state = ENSEMBLE.apply(*stacked, X, train=True, key=KEY)
    for i in range(N):
        expected = NET.apply(*member(stacked, i), X, train=True, key=jax.random.fold_in(KEY, i))
        assert_close((y[i], member(state, i)), expected)


def test_ensemble_of_separately_trained_networks():
    members = [NET.init(jax.random.key(seed), X) for seed in (10, 11, 12)]
    params, state = cnn.stack_members(members)
    assert_close(cnn.split_members(params, state), members, 0)
    y, _ = ENSEMBLE.apply(params, state, X, train=False)
    np.testing.assert_allclose(
        np.exp(y), np.mean([softmax(NET.apply(*m, X, train=False)[0]) for m in members], 0), 1e-5
    )


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_mean_probabilities_of_large_logits(shift):
    logits = np.array([[[0.0, 100.0]], [[100.0, 0.0]]], np.float32) + np.float32(shift)
    y, _ = cnn.ensemble(lambda x: x, 2).apply({}, {}, logits[0], train=False)
    np.testing.assert_allclose(y, [[-100, 0]], 1e-5)
    two = cnn.ensemble(cnn.stateless(lambda key, x: {"bias": jnp.zeros(2)}, lambda p, x: x + p["bias"]), 2)
    y, _ = two.apply({"bias": jnp.array([[0.0, 0.0], [100.0, -100.0]])}, {}, logits[0], train=False)
    np.testing.assert_allclose(y, [[-np.log(2)] * 2], 1e-5)


def test_ensemble_of_another_size(stacked):
    with pytest.raises(ValueError, match=r"ensemble: head/bias has shape \(3, 3\), but n=4 needs \(4, \.\.\.\)"):
        cnn.ensemble(cnn.serial(head=cnn.dense(3)), 4).apply(
            {"head": stacked[0]["head"]}, {}, np.ones((1, 5), np.float32), train=False
        )


@pytest.mark.parametrize("make", [cnn.ensemble, cnn.monte_carlo])
def test_combine_must_be_a_function(make):
    for combine in ("mean", cnn.dense(2)):
        with pytest.raises(TypeError, match=f"{make.__name__}: combine must be a function of the stacked outputs"):
            make(NET, 2, combine=combine)
    with pytest.raises(ValueError, match=f"{make.__name__}: n must be at least 1, got 0"):
        make(NET, 0)


def test_paths_and_penalties_of_an_ensemble(stacked):
    params, _ = stacked
    assert cnn.paths(params) == cnn.paths(NET.init(KEY, X)[0])
    penalty = cnn.orthogonal(1.0, "head/kernel")
    members = cnn.split_members(*stacked)
    expected = sum(penalty(p) for p, _ in members)
    np.testing.assert_allclose(penalty(params), expected, 1e-5)
    np.testing.assert_allclose(penalty(cnn.stack_members(members)[0]), expected, 1e-5)
    by_hand = [np.square((w := np.asarray(params["head"]["kernel"][i])).T @ w - np.eye(3)).sum() for i in range(N)]
    np.testing.assert_allclose(expected, sum(by_hand), 1e-4)


def test_members_of_different_networks():
    one, two = ({"head": {"kernel": np.zeros((4, width))}} for width in (2, 3))
    with pytest.raises(ValueError, match=r"networks 0 and 1 differ: head/kernel is \(4, 2\) and \(4, 3\)"):
        cnn.stack_members([(one, {}), (two, {})])
    with pytest.raises(ValueError, match=r"networks 0 and 2 differ: norm/mean is missing and \(2,\)"):
        cnn.stack_members([(one, {}), (one, {}), (one, {"norm": {"mean": np.zeros(2)}})])
    with pytest.raises(ValueError, match="stack_members needs the params and state of at least one network, got none"):
        cnn.stack_members([])
    with pytest.raises(
        ValueError, match=r"split_members needs arrays with one leading dimension, .* \[\(2,\), \(4,\)\]"
    ):
        cnn.split_members(one, {"mean": np.zeros(2)})


def test_capture_and_summary_of_an_ensemble(stacked):
    (y, activations), _ = cnn.capture(ENSEMBLE, "act").apply(*stacked, X, train=False)
    for i in range(N):
        (_, own), _ = cnn.capture(NET, "act").apply(*member(stacked, i), X, train=False)
        np.testing.assert_allclose(activations["act"][i], own["act"], 1e-5, 1e-5)
    np.testing.assert_allclose(y, ENSEMBLE.apply(*stacked, X, train=False)[0])
    assert str(cnn.explain.summary(ENSEMBLE, X)).count("hidden") == 1
    assert str(cnn.explain.summary(cnn.monte_carlo(NET, 2), X)).count("hidden") == 1


# Training


def test_gradients_of_members_are_those_of_single_networks(stacked):
    """Value, gradient, state and metrics; with weights, and a padded example."""
    batch = BATCH | {"weight": np.array([1, 2, 0, 1, 0.5, 1], np.float32)}
    ensemble_loss = cnn.per_member(cnn.cross_entropy)(ENSEMBLE)
    (loss, (state, metrics)), gradient = jax.value_and_grad(ensemble_loss, has_aux=True)(
        *stacked, batch, train=True, key=KEY
    )
    values, own_metrics = [], []
    for i in range(N):
        grad_fn = jax.value_and_grad(cnn.cross_entropy(NET), has_aux=True)
        (value, (own, named)), expected = grad_fn(
            *member(stacked, i), batch, train=True, key=jax.random.fold_in(KEY, i)
        )
        assert_close((member(gradient, i), member(state, i)), (expected, own))
        values.append(value)
        own_metrics.append(named)
    np.testing.assert_allclose(loss, sum(values), 1e-5)
    assert_close(metrics, jax.tree.map(lambda *v: np.mean(v), *own_metrics))


def test_evaluation_of_per_member_is_the_loss_of_the_ensemble(stacked):
    args = (*stacked, BATCH)
    assert_close(
        cnn.per_member(cnn.cross_entropy)(ENSEMBLE)(*args, train=False), cnn.cross_entropy(ENSEMBLE)(*args, train=False)
    )


@pytest.mark.sample(2)
@pytest.mark.parametrize("weighted", [False, True])
def test_member_weights_are_example_weights(stacked, weighted):
    counts = RNG.multinomial(6, np.full(6, 1 / 6), N).T
    batch = BATCH | ({"weight": np.array([1, 2, 0, 1, 0.5, 1], np.float32)} if weighted else {})
    loss = functools.partial(cnn.cross_entropy, label_smoothing=0.1)
    total, _ = cnn.per_member(loss)(ENSEMBLE)(*stacked, batch | {"member_weight": counts}, train=True, key=KEY)
    y, _ = ENSEMBLE.apply(*stacked, X * (batch.get("weight", np.ones(6)) != 0)[:, None], train=True, key=KEY)
    own = loss(cnn.as_layer(cnn.identity))
    weight = lambda i: (counts[:, i] * batch.get("weight", 1)).astype(np.float32)
    expected = sum(own({}, {}, {"image": y[i], "label": LABELS, "weight": weight(i)}, train=True)[0] for i in range(N))
    np.testing.assert_allclose(total, expected, 1e-5)
    with pytest.raises(ValueError, match=r'"member_weight" must have shape \(6, 3\), .* got \(3, 6\)'):
        cnn.per_member(loss)(ENSEMBLE)(*stacked, batch | {"member_weight": counts.T}, train=True, key=KEY)


@pytest.mark.slow
def test_other_losses_per_member(stacked):
    loss = cnn.weighted_sum((1.0, cnn.cross_entropy), (0.5, cnn.focal))
    total, _ = cnn.per_member(loss)(ENSEMBLE)(*stacked, BATCH, train=True, key=KEY)
    single = [loss(NET)(*member(stacked, i), BATCH, train=True, key=jax.random.fold_in(KEY, i))[0] for i in range(N)]
    np.testing.assert_allclose(total, sum(single), 1e-5)


@pytest.mark.sample(2)
@pytest.mark.parametrize("optimizer", [optax.adam(0.1), optax.sgd(0.1, momentum=0.9)], ids=["adam", "sgd"])
def test_training_equals_separate_runs(optimizer):
    hidden = cnn.dense(5, bias=False)  # Adam would amplify the rounding errors of a bias that batch norm cancels
    net = cnn.serial(hidden=hidden, norm=cnn.batch_norm(), act=jnp.tanh, head=cnn.dense(3))
    model = cnn.ensemble(net, N)
    penalized = lambda loss_fn: cnn.regularized(loss_fn, cnn.l2(0.01))
    run = train.TrainState.create(model, optimizer, KEY, X)
    singles = [
        jax.tree.map(jnp.copy, run._replace(params=params, state=state, opt_state=optimizer.init(params)))
        for params, state in cnn.split_members(run.params, run.state)
    ]
    step = train.make_step(penalized(cnn.per_member(cnn.cross_entropy)(model)), optimizer)
    step_single = train.make_step(penalized(cnn.cross_entropy(net)), optimizer)
    for _ in range(3):
        run, _ = step(run, BATCH)
    for i, single in enumerate(singles):
        for _ in range(3):
            single, _ = step_single(single, BATCH)
        assert_close((member(run.params, i), member(run.state, i)), (single.params, single.state), 1e-4)


def test_members_that_see_the_data_in_different_orders(tmp_path):
    """With equal initial parameters, the members of one `fit` stay equal. The runs of a sweep differ by the order."""
    net = cnn.dense(3, kernel_init=jax.nn.initializers.zeros)
    config = {"epochs": 1, "batch_size": 2, "optimizer": {"name": "sgd", "learning_rate": 0.5}}
    options = lambda name: {"config": config, "run": train.Run("test", {}, folder=tmp_path / name)}
    same = train.fit(cnn.ensemble(net, N), BATCH, loss=cnn.per_member(cnn.cross_entropy), **options("same"))
    runs = train.sweep(net, BATCH, over={"seed": range(N)}, **options("sweep")).runs
    params, state = cnn.stack_members([(run.params, run.state) for run in runs])

    examples, singles = data.source(BATCH, 2), []
    for seed in range(N):  # SGD by hand
        p = {"kernel": np.zeros((4, 3)), "bias": np.zeros(3)}
        create = train.TrainState.create(net, optax.sgd(1.0), jax.random.key(seed), X)
        order = np.asarray(examples.order(create.key, 0)).reshape(3, 2)
        for step, rows in enumerate(order):
            error = softmax(X[rows] @ p["kernel"] + p["bias"]) - np.eye(3)[LABELS[rows]]
            rate = 0.5 * (1 + np.cos(np.pi * step / 3)) / 2
            p = {"kernel": p["kernel"] - rate * X[rows].T @ error / 2, "bias": p["bias"] - rate * error.mean(0)}
        singles.append(p)
    assert_close(cnn.split_members(params, state), [(p, {}) for p in singles], 1e-4)
    kernels, equal = params["kernel"], same.params["kernel"]
    for i, j in itertools.combinations(range(N), 2):
        np.testing.assert_allclose(equal[i], equal[j], 1e-6)
        assert np.abs(kernels[i] - kernels[j]).max() > 0.01
    y, _ = cnn.ensemble(net, N).apply(params, state, X, train=False)
    np.testing.assert_allclose(np.exp(y), np.mean([softmax(X @ p["kernel"] + p["bias"]) for p in singles], 0), 1e-4)


@pytest.mark.slow
def test_fit_an_ensemble(tmp_path):
    """Members differ, bootstrap weights reach the loss, metrics and weights are those of the ensemble."""
    digits = cnn.data.load("mnist_small", "test")
    images, labels = digits.images[:400], digits.labels[:400]
    weight = np.random.default_rng(0).multinomial(400, np.full(400, 1 / 400), N).T
    data = {"image": images, "label": labels, "member_weight": weight}
    model = cnn.ensemble(cnn.serial(pool=cnn.max_pool(4), flat=cnn.flatten, head=cnn.dense(10)), N)
    config = {"epochs": 6, "batch_size": 50, "optimizer": {"learning_rate": 0.05}, "report": False}
    result = train.fit(
        model,
        data,
        eval_data=(images, labels),
        loss=cnn.per_member(cnn.cross_entropy),
        metrics={"top3": cnn.metrics.top_k(3)},
        config=config,
        run=train.Run("test", {}, folder=tmp_path),
    )
    assert result.history[-1]["test"]["accuracy"] > 0.7
    assert result.history[-1]["train"]["loss"] < result.history[0]["train"]["loss"] / 2
    kernels = result.params["head"]["kernel"]
    assert all(np.abs(kernels[i] - kernels[j]).max() > 0.1 for i in range(N) for j in range(i))
    cnn.weights.save(tmp_path / "ensemble.safetensors", result.params, result.state)
    params, state = cnn.weights.load(tmp_path / "ensemble.safetensors")
    y, _ = model.apply(params, state, images[:5] / np.float32(255), train=False)
    assert y.shape == (5, 10)


# Monte Carlo dropout

SAMPLED = cnn.monte_carlo(NET, 5, combine=None)


def by_hand(params, state, x, masks):
    """The network in NumPy, in evaluation mode, with the dropout masks (n, 5)."""
    p, s = jax.tree.map(np.asarray, (params, state))
    h = x @ p["hidden"]["kernel"] + p["hidden"]["bias"]
    h = (h - s["norm"]["mean"]) / np.sqrt(s["norm"]["var"] + 1e-5) * p["norm"]["scale"] + p["norm"]["bias"]
    return np.stack([(np.tanh(h) * mask * 2) @ p["head"]["kernel"] + p["head"]["bias"] for mask in masks])


def test_monte_carlo_equals_passes_by_hand():
    """One mask of each pass for all examples; batch norm in evaluation mode with other statistics than the batch."""
    params, state = NET.init(KEY, X)
    state = {"norm": {"mean": jnp.arange(5.0), "var": jnp.full(5, 2.0)}}
    ys, after = SAMPLED.apply(params, state, X, train=False)
    assert_close(after, state, 0)
    masks = []
    for i in range(5):
        key = jax.random.fold_in(jax.random.key(0), i)
        ones = cnn.serial(drop=cnn.dropout(0.5)).apply({}, {}, jnp.ones((1, 5)), train=True, key=key)[0][0]
        masks.append(np.asarray(ones) / 2)
    assert 0 < np.mean(masks) < 1
    assert len({tuple(mask) for mask in masks}) > 1
    expected = by_hand(params, state, X, masks)
    np.testing.assert_allclose(ys, expected, 1e-5, 1e-5)
    moments, _ = cnn.monte_carlo(NET, 5, combine=lambda ys: jnp.stack([ys.mean(0), ys.var(0)])).apply(
        params, state, X, train=False
    )
    np.testing.assert_allclose(moments, [expected.mean(0), expected.var(0)], 1e-4, 1e-5)
    y, _ = cnn.monte_carlo(NET, 5).apply(params, state, X, train=False)
    np.testing.assert_allclose(np.exp(y), softmax(expected).mean(0), 1e-5)


def test_monte_carlo_without_random_layers_warns():
    """Such as dropout inside a layer that does not pass on the request."""
    x = jnp.ones((2, 3))

    def around(layer):
        apply = lambda params, state, x, **options: layer.apply(params, {}, x, **options)
        return cnn.Layer(layer.init, apply)

    for model in (cnn.identity, around(cnn.dropout(0.5)), cnn.dropout(0.0)):
        with pytest.warns(UserWarning, match="monte_carlo: no layer is random, so all networks are equal"):
            cnn.monte_carlo(model, 3).apply({}, {}, x, train=False)


def test_monte_carlo_in_training_is_the_layer():
    params, state = NET.init(KEY, X)
    args = functools.partial(dict, train=True, key=KEY)
    assert_close(SAMPLED.apply(params, state, X, **args()), NET.apply(params, state, X, **args()), 0)
    assert_close(SAMPLED.init(KEY, X), (params, state), 0)


@pytest.mark.parametrize("layer", [cnn.ensemble(cnn.dense(3), 2, combine=None), jnp.sum], ids=["members", "scalar"])
def test_monte_carlo_of_outputs_without_a_batch(layer):
    """The members are the first dimension of the output of an ensemble."""
    layer = cnn.as_layer(layer)
    params, state = layer.init(KEY, X)
    with pytest.raises(ValueError, match=r"monte_carlo .* shape \(1, \.\.\), got \((2, 1, 3)?\); .*combine"):
        cnn.monte_carlo(layer, 3).apply(params, state, X, train=False)


@pytest.mark.slow
def test_another_seed_draws_other_networks():
    params, state = NET.init(KEY, X)
    sample = lambda **options: cnn.monte_carlo(NET, 2, combine=None, **options).apply(params, state, X, train=False)[0]
    assert (sample(seed=1) != sample()).any()
    np.testing.assert_array_equal(sample(seed=0), sample())


RANDOM = {
    "dropout": cnn.dropout(0.5),
    "spatial_dropout": cnn.spatial_dropout(0.5),
    "drop_block": cnn.drop_block(0.5, 2),
    "gaussian_dropout": cnn.gaussian_dropout(0.5),
    "gaussian_noise": cnn.gaussian_noise(0.5),
    "alpha_dropout": cnn.alpha_dropout(0.5),
    "with_dropout": cnn.with_dropout(jnp.sin, 0.5),
    "nested": cnn.with_dropout(cnn.serial(cnn.dropout(0.5)), 1e-6),
    "with_spatial_dropout": cnn.with_spatial_dropout(jnp.sin, 0.5),
    "drop_path": cnn.residual(cnn.drop_path(jnp.sin, 0.5)),
    "drop_connect": cnn.drop_connect(cnn.dense(4), 0.5),
    "repeat": cnn.repeat(cnn.dropout(0.5), 2),
    "cast": cnn.cast(cnn.dropout(0.5), jnp.bfloat16),
    "remat": cnn.remat(cnn.dropout(0.5)),
    "spectral_norm": cnn.spectral_norm(cnn.serial(cnn.dense(4), cnn.dropout(0.5))),
    "weight_norm": cnn.weight_norm(cnn.serial(cnn.dense(4), cnn.dropout(0.5))),
    "with_tta": train.with_tta(cnn.dropout(0.5), "flip"),
    "ensemble": cnn.ensemble(cnn.dropout(0.5), 2, combine=lambda ys: ys.mean(0)),
}


@pytest.mark.sample(9)
@pytest.mark.parametrize("name", RANDOM)
def test_every_random_layer_is_sampled(name):
    layer, x = RANDOM[name], jnp.asarray(RNG.normal(size=(2, 4, 4, 4)), jnp.float32)
    params, state = layer.init(KEY, x)
    ys, _ = cnn.monte_carlo(cnn.serial(inner=layer), 6, combine=None).apply(
        {"inner": params} if params else {}, {"inner": state} if state else {}, x, train=False
    )
    assert (ys.std(0) > 0).any()


def test_what_is_frozen_is_not_sampled():
    layer = cnn.serial(cnn.freeze(cnn.serial(cnn.dropout(0.5), cnn.with_dropout(jnp.sin, 0.5))))
    x = jnp.ones((2, 4))
    with pytest.warns(UserWarning, match="no layer is random"):
        ys, _ = cnn.monte_carlo(layer, 4, combine=None).apply({}, {}, x, train=False)
    np.testing.assert_allclose(ys, np.full((4, 2, 4), np.sin(1)), 1e-6)


def test_capture_of_a_monte_carlo_layer_says_that_it_has_no_activations():
    model = cnn.monte_carlo(cnn.serial(drop=cnn.dropout(0.5)), 2)
    with pytest.raises(ValueError, match="'drop' does not match the whole path of any layer of the model"):
        cnn.capture(model, "drop").apply({}, {}, X, train=False)


@pytest.mark.filterwarnings("ignore:monte_carlo. no layer is random")
@pytest.mark.parametrize("make", [cnn.ensemble, cnn.monte_carlo])
def test_gradient_where_all_members_exclude_a_class(make):
    """That of one network whose logits are the same."""
    excluded = jnp.array([0, 0, -jnp.inf])
    shift = cnn.stateless(lambda key, x: {"bias": jnp.zeros(3)}, lambda params, x: x + params["bias"])
    net = cnn.serial(shift, lambda x: x + excluded)
    x, batch = jnp.array([[1.0, 2.0, 3.0]]), {"label": np.array([0])}
    gradients = []
    for model in (net, make(net, 2)):
        loss_fn = cnn.cross_entropy(model)
        args = model.init(KEY, x)
        gradients.append(jax.grad(lambda x, f=loss_fn, a=args: f(*a, batch | {"image": x}, train=False)[0])(x))
    np.testing.assert_allclose(gradients[1], gradients[0], 1e-5)
    np.testing.assert_allclose(gradients[0], [[-1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-1)), 0]], 1e-5)


def test_member_weights_above_32_bits(stacked):
    counts = RNG.multinomial(6, np.full(6, 1 / 6), N).T
    loss = lambda weight: cnn.per_member(cnn.cross_entropy)(ENSEMBLE)(
        *stacked, BATCH | {"member_weight": weight}, train=True, key=KEY
    )
    np.testing.assert_allclose(loss(2**32 * counts)[0], loss(counts)[0], 1e-5)


def test_per_member_of_a_single_network():
    loss_fn = cnn.per_member(cnn.cross_entropy)(cnn.dense(3))
    with pytest.raises(
        ValueError, match=r"per_member needs an ensemble, .* \(n, N, \.\.\): use ensemble\(net, n\).*\(6, 3\)"
    ):
        loss_fn(*cnn.dense(3).init(KEY, X), BATCH, train=True)


@pytest.mark.parametrize("members", [{"a": 1}, [cnn.dense(2)], cnn.dense(2).init(KEY, X), [({}, {}, {})], [({}, None)]])
def test_members_that_are_not_pairs(members):
    with pytest.raises(TypeError, match=r"stack_members needs pairs \(params, state\), as init returns, got"):
        cnn.stack_members(members)


def test_summary_counts_all_networks_of_monte_carlo():
    net = cnn.serial(conv=cnn.conv(4, 1), drop=cnn.dropout(0.5), pool=cnn.global_avg_pool, head=cnn.dense(3))
    x = jax.ShapeDtypeStruct((1, 3, 3, 4), jnp.float32)
    assert explain.summary(cnn.serial(cnn.monte_carlo(net, 6)), x).multiply_adds == 6 * (9 * 4 * 4 + 4 * 3)

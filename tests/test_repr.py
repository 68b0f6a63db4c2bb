"""What a reader of the prompt sees: the call that made a layer, sizes instead of arrays, tables."""

import functools
import html.parser
import operator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn as cnn
from jaxcnn import data, explain, models, train
from tests import layers


def scaled(factor):
    def init(key, x):
        return {"scale": jnp.full(1, factor)}, {}

    def apply(params, state, x, *, train, key=None):
        return x * params["scale"], state

    return cnn.Layer(init, apply)


def act(x):
    return x


CALLS = [
    (cnn.conv(3), "conv(3)"),
    (cnn.conv(6, 5, padding="SAME", stride=2), "conv(6, 5, stride=2)"),
    (cnn.conv(6, padding="VALID", bias=True), "conv(6, padding='VALID')"),
    (cnn.max_pool((2, 3), ceil_mode=True), "max_pool((2, 3), ceil_mode=True)"),
    (cnn.dense(3, kernel_init=jax.nn.initializers.he_normal()), "dense(3, kernel_init=variance_scaling.init)"),
    (cnn.batch_norm(), "batch_norm()"),
    (cnn.layer_norm(eps=float("1e-05")), "layer_norm()"),  # equal to the default, not the same object
    (cnn.local_response_norm(3), "local_response_norm(3)"),
    (cnn.squeeze_excite(gate=jax.nn.hard_sigmoid), "squeeze_excite(gate=hard_sigmoid)"),
    (cnn.with_dropout(cnn.conv(8), 0.5), "with_dropout(conv(8), 0.5)"),
    (cnn.with_dropout(cnn.conv(8), 0), "conv(8)"),
    (cnn.drop_connect(cnn.dense(2), 0.1, where="kernel"), "drop_connect(dense(2), 0.1, where='kernel')"),
    (cnn.repeat(cnn.residual(cnn.conv(4)), 3), "repeat(residual(conv(4)), 3)"),
    (cnn.cast(cnn.freeze(cnn.dense(2)), jnp.bfloat16), "cast(freeze(dense(2)), bfloat16)"),
    (cnn.ensemble(cnn.dense(2), 3), "ensemble(dense(2), 3)"),
    (cnn.monte_carlo(cnn.dropout(0.5), 9, combine=None, seed=1), "monte_carlo(dropout(0.5), 9, combine=None, seed=1)"),
    (cnn.serial(jnp.sin, act=jax.nn.relu), "serial(sin, act=relu)"),
    (cnn.parallel(operator.add, cnn.conv(2), b=cnn.flatten), "parallel(add, conv(2), b=flatten)"),
    (cnn.as_layer(act), "as_layer(act)"),
    (cnn.as_layer(functools.partial(jnp.clip, max=1)), "as_layer(partial(clip, max=1))"),
    (cnn.capture(cnn.serial(a=jnp.sin), "a"), "capture(serial(a=sin), 'a')"),
    (data.normalize([0.5], [0.25]), "normalize([0.5], [0.25])"),
    (train.with_tta(cnn.flatten, "flip"), "with_tta(flatten, 'flip')"),
    (scaled(2.0), "Layer(init=scaled.init, apply=scaled.apply)"),
    (cnn.serial(scaled(2.0)), "serial(Layer(init=scaled.init, apply=scaled.apply))"),
    (models.resnet18(classes=10), "resnet18(classes=10)"),
    (models.resnet(depths=(1, 1), norm=cnn.layer_norm), "resnet(depths=(1, 1), norm=layer_norm)"),
    (models.lenet5(), "lenet5()"),
    (cnn.serial(models.vgg11_bn(None), cnn.dense(3)), "serial(vgg11_bn(None), dense(3))"),
]


@pytest.mark.parametrize(("layer", "text"), CALLS, ids=[text for _, text in CALLS])
def test_layer(layer, text):
    assert repr(layer) == str(layer) == text


@pytest.mark.parametrize("case", layers.CASES, ids=lambda case: case.name)
def test_no_layer_shows_an_address(case):
    assert " at 0x" not in repr(case.layer)
    assert not repr(case.layer).startswith("Layer(init=stateless")


def test_large_network_takes_a_line_for_each_part():
    block = cnn.serial(conv=cnn.conv(8, bias=False), norm=cnn.batch_norm(), act=jax.nn.relu)
    net = cnn.serial(stem=cnn.conv(8), block1=cnn.residual(block), block2=cnn.repeat(block, 2), head=cnn.dense(10))
    assert repr(net) == (
        "serial(\n"
        "    stem=conv(8),\n"
        "    block1=residual(serial(conv=conv(8, bias=False), norm=batch_norm(), act=relu)),\n"
        "    block2=repeat(serial(conv=conv(8, bias=False), norm=batch_norm(), act=relu), 2),\n"
        "    head=dense(10),\n"
        ")"
    )
    deep = functools.reduce(
        lambda layer, i: cnn.serial(**{f"level{i}": layer, "norm": cnn.batch_norm()}), range(9), net
    )
    lines = repr(deep).splitlines()
    assert max(map(len, lines)) <= 100
    assert "".join(line.strip() for line in lines).replace(",)", ")").count("serial(") == repr(deep).count("serial(")
    assert eval(repr(deep), vars(cnn) | {"relu": jax.nn.relu})._call == deep._call  # the text is the code


def test_layer_is_still_a_pair():
    layer = cnn.conv(3)
    init, apply = layer
    assert isinstance(layer, tuple)
    assert layer == cnn.Layer(init, apply) == (init, apply)
    assert hash(layer) == hash((init, apply))
    assert layer._fields == ("init", "apply")
    changed = layer._replace(apply=scaled(1.0).apply)
    assert isinstance(changed, cnn.Layer)
    assert repr(changed).startswith("Layer(init=")
    with pytest.raises(TypeError, match=r"call it, as in conv\(...\)"):
        cnn.serial(cnn.conv)


def test_a_layer_does_not_hold_its_data():
    """A network is often kept for longer than what it was made from."""
    import gc
    import weakref

    images = np.zeros((2, 3, 3, 1), np.uint8)
    known = weakref.ref(images)
    layer = data.normalize(data.Dataset(images, np.zeros(2, np.int32), ("a",)))
    del images
    gc.collect()
    assert known() is None
    assert "Dataset(images=<uint8 of shape (2, 3, 3, 1)>" in repr(layer)


def test_train_state():
    state = train.TrainState.create(models.lenet5(), optax.adam(1e-3), jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    text = repr(state)
    assert text.startswith("TrainState(step=0, params=<61,706 values in 10 arrays, 0.247 MB>, state=<0 values in 0")
    assert "opt_state=<123,413 values in 21 arrays" in text
    assert len(text) < 300
    assert len(repr(jax.eval_shape(lambda: state))) < 300
    assert "step=int32 of shape (2,)" in repr(jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), state))
    jax.jit(lambda state: repr(state) and state.step)(state)
    assert len(repr(jax.tree.map(lambda leaf: None, state))) < 300
    state.step.delete()
    assert len(repr(state)) < 300
    assert len(jax.tree.leaves(state)) == 10 + 21 + 2


def test_dataset():
    digits = data.load("mnist_small", "test")
    assert repr(digits) == (
        "Dataset(images=<uint8 of shape (2000, 28, 28, 1)>, labels=<int32 of shape (2000,)>, "
        "classes=<10 classes: ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')>)"
    )
    many = data.Dataset(digits.images, digits.labels, tuple(f"class {i}" for i in range(1000)))
    assert len(repr(many)) < 300
    images, labels, _ = digits
    assert isinstance(digits, tuple)
    assert len(images) == len(labels)


def test_stream():
    image = jax.ShapeDtypeStruct((4, 8, 8, 3), np.uint8)
    stream = data.Stream(lambda step: iter(()), 10, image, tuple(f"class {i}" for i in range(1000)))
    assert repr(stream).startswith(
        "Stream(10 batches of images=<uint8 of shape (4, 8, 8, 3)>, classes=<1000 classes: ("
    )
    assert len(repr(stream)) < 300


class Cells(html.parser.HTMLParser):
    def __init__(self, source):
        super().__init__()
        self.rows, self.tags = [], []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, text):
        if "tr" in self.tags and self.tags[-1] in ("td", "th"):
            self.rows[-1].append(text)


@pytest.mark.parametrize("table", [explain.summary, explain.receptive_field])
def test_tables_of_a_network(table):
    name = "<img src=x onerror=alert(1)>"
    net = cnn.serial(**{name: cnn.conv(2), "block": cnn.serial(conv=cnn.conv(3))})
    found = table(net, jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32))
    assert repr(found) == str(found)
    source = found._repr_html_()
    cells = Cells(source)
    assert set(cells.tags) <= {"table", "thead", "tbody", "tr", "th", "td", "p"}
    flat = [cell.strip() for row in cells.rows for cell in row]
    assert name in flat
    assert "conv" in flat
    for word in ("(1, 8, 8, 2)", "(1, 8, 8, 3)"):
        assert word in flat
        assert word in str(found)


def test_models_are_functions():
    assert not hasattr(models, "resnet51")
    assert "__getattr__" not in vars(models)
    assert {*models.MODELS} < {*models.__all__}
    for name, build in models.MODELS.items():
        assert getattr(models, name) is build
        assert (build.__name__, build.__module__.split(".")[:2]) == (name, ["jaxcnn", "models"])
        assert build.__doc__.startswith("(N, ")
        assert len(build.input_shape) in (2, 3, 4)
        assert repr(build(classes=None)) == f"{name}(classes=None)"


@pytest.mark.parametrize(("name", "near"), [("resnet19", "'resnet18'"), ("efficientnet-b0", "'efficientnet_b0'")])
def test_unknown_model(name, near):
    with pytest.raises(KeyError, match=f"unknown model '{name}'; did you mean .*{near}"):
        models.MODELS[name]
    assert name not in models.MODELS
    assert models.MODELS.get(name) is None


def test_unknown_model_like_none():
    with pytest.raises(KeyError, match="sorted\\(MODELS\\) lists all"):
        models.MODELS["?"]

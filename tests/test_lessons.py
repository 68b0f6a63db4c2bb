"""The lessons in a real browser: their numbers equal those of jaxcnn, and everything can be operated."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lessons import __main__ as lessons
from experiments.lessons import _content
from jaxcnn import avg_pool, capture, conv, data, dense, explain, max_pool, models
from tests.browser import SCHEMES, WIDTHS, chromium, opened

pytestmark = pytest.mark.slow

SHORT = {
    "lenet": {"seed": 0, "epochs": 2},
    "overfitting": lessons.CONFIG["overfitting"] | {"images": 50, "epochs": 2, "l1": [0.0, 0.1], "l2": [0.0]},
}


@pytest.fixture(scope="module")
def values():
    return _content.content(SHORT)


@pytest.fixture(scope="module")
def path(values, tmp_path_factory):
    path = tmp_path_factory.mktemp("lessons") / "lessons.html"
    path.write_text(lessons.page(values), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser():
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def page(browser, path):
    """One page for all tests that only read, or set what they need."""
    with opened(browser, path) as found:
        yield found.page


def tensor(array):
    return {"shape": array.shape, "data": np.ravel(array).tolist()}


def array(found):
    return np.array(found["data"], np.float32).reshape(found["shape"])


def call(page, expression, **tensors):
    """Evaluate an expression with these tensors; its result is a tensor."""
    names = ", ".join(tensors)
    made = f"({{{names}}}) => {{ const y = {expression}; return {{shape: y.shape, data: Array.from(y.data)}}; }}"
    return array(page.evaluate(made, {name: tensor(np.asarray(value, np.float32)) for name, value in tensors.items()}))


def of_jaxcnn(layer, params, x):
    return np.asarray(layer.apply(params, {}, jnp.asarray(x, jnp.float32)[None], train=False)[0][0])


def test_page_is_small_and_self_contained(path):
    html = path.read_text(encoding="utf-8")
    assert len(html.encode()) < 1.5e6
    assert re.findall(r"https?://[^\"'\s)]+", html) == ["http://www.w3.org/2000/svg"]  # a name, not a request
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#x27;", "'")
    assert "default-src 'none'" in policy
    assert len(re.findall(r"script-src 'sha256-[^']+'(?:;|$)", policy)) == 1


def test_default_settings_fit_on_the_page(values):
    """The curves of all runs are small next to the weights of LeNet-5."""
    of_one_run = len(json.dumps(values["overfitting"]["runs"][0])) * 25 / 2
    settings = lessons.CONFIG["overfitting"]
    runs = len(settings["l1"]) * len(settings["l2"]) * len(settings["dropout_rates"])
    assert len(json.dumps(values)) + runs * of_one_run < 1.4e6


@pytest.mark.parametrize("seed", range(20))
def test_conv_equals_jaxcnn(page, seed):
    rng = np.random.default_rng(seed)
    groups = int(rng.choice([1, 1, 2, 3]))
    channels, filters = groups * int(rng.integers(1, 4)), groups * int(rng.integers(1, 4))
    size = int(rng.integers(1, 5))
    options = {"stride": int(rng.integers(1, 4)), "dilation": int(rng.integers(1, 3)), "groups": groups}
    options["padding"] = rng.choice(["SAME", "VALID", "2"]).item()
    options["padding"] = 2 if options["padding"] == "2" else options["padding"]
    x = rng.normal(size=(int(rng.integers(9, 14)), int(rng.integers(9, 14)), channels))
    kernel, bias = rng.normal(size=(size, size, channels // groups, filters)), rng.normal(size=filters)
    found = call(page, f"conv(x, kernel, bias, {json.dumps(options)})", x=x, kernel=kernel, bias=bias)
    params = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    np.testing.assert_allclose(found, of_jaxcnn(conv(filters, size, **options), params, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_pooling_equals_jaxcnn(page, size):
    x = np.random.default_rng(size).normal(size=(7, 9, 3))
    for name, layer in (("maxPool", max_pool(size)), ("avgPool", avg_pool(size))):
        found = call(page, f"{name}(x, {size})", x=x)
        np.testing.assert_allclose(found, of_jaxcnn(layer, {}, x), rtol=1e-5, atol=1e-6)


def test_dense_relu_and_softmax_equal_jaxcnn(page):
    rng = np.random.default_rng(0)
    x, kernel, bias = rng.normal(size=12), rng.normal(size=(12, 5)), rng.normal(size=5)
    params = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    y = of_jaxcnn(dense(5), params, x)
    np.testing.assert_allclose(call(page, "dense(x, kernel, bias)", x=x, kernel=kernel, bias=bias), y, rtol=1e-5)
    np.testing.assert_allclose(call(page, "relu(x)", x=x), np.maximum(x, 0), rtol=1e-6)
    for z in (y, y + 1000):
        found = call(page, "({shape: [5], data: softmax(Array.from(z.data))})", z=z)
        np.testing.assert_allclose(found, jax.nn.softmax(jnp.asarray(z)), rtol=1e-5)


def test_gradients_equal_those_of_jax(page):
    rng = np.random.default_rng(1)
    x, kernel, dy = rng.normal(size=(9, 8, 1)), rng.normal(size=(3, 3, 1, 1)), rng.normal(size=(7, 6, 1))
    layer = conv(1, padding="VALID", bias=False)

    def forward(kernel):
        return layer.apply({"kernel": kernel}, {}, jnp.asarray(x, jnp.float32)[None], train=False)[0][0]

    wanted = jax.vjp(forward, jnp.asarray(kernel, jnp.float32))[1](jnp.asarray(dy, jnp.float32))[0]
    found = call(page, "kernelGradient(x, dy)", x=x, dy=dy)
    np.testing.assert_allclose(found, wanted[..., 0], rtol=1e-5, atol=1e-5)

    x, dy = rng.integers(0, 2, (8, 6, 2)), rng.normal(size=(4, 3, 2))  # with several largest values in a window
    pool = lambda x: max_pool(2).apply({}, {}, x[None], train=False)[0][0]
    wanted = jax.vjp(pool, jnp.asarray(x, jnp.float32))[1](jnp.asarray(dy, jnp.float32))[0]
    np.testing.assert_allclose(call(page, "maxPoolGradient(dy, x, 2)", x=x, dy=dy), wanted, rtol=1e-6)


@pytest.fixture(scope="module")
def lenet(page, values):
    """LeNet-5 with the weights of the page."""
    model = models.lenet5()
    params = {}
    for name in values["lenet"]:
        layer, leaf = name.split("/")
        params.setdefault(layer, {})[leaf] = call(page, f"WEIGHTS['{name}']")
    return model, params


@pytest.mark.parametrize("label", range(0, 10, 3))
def test_lenet_and_grad_cam_equal_jaxcnn(page, lenet, label):
    model, params = lenet
    images, labels = data.load("mnist_small", "test")[:2]
    image = np.float32(images[labels == label][1]) / 255
    wanted, _ = model.apply(params, {}, jnp.asarray(image)[None], train=False)
    np.testing.assert_allclose(call(page, "lenet(image).head", image=image), wanted[0], rtol=1e-5, atol=1e-5)
    cam = explain.grad_cam(model, params, {}, jnp.asarray(image)[None], "relu2", label=label)[0]
    found = call(page, f"gradCam(lenet(image), {label})", image=image)
    np.testing.assert_allclose(found[..., 0], cam, rtol=1e-4, atol=1e-5 * float(cam.max()))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [320, *WIDTHS, 2560])
def test_page_at_each_width(browser, path, width, scheme):
    with opened(browser, path, width=width, scheme=scheme) as found:
        found.check()
        if width in WIDTHS:
            assert found.accessibility() == []


def set_value(page, section, name, value):
    """Set a control as a user does, with the event that follows."""
    page.eval_on_selector(
        f"#{section} form [name={name}]",
        "(control, value) => { if (control.type === 'checkbox') control.checked = value; else control.value = value;"
        " control.dispatchEvent(new Event('input', {bubbles: true})); }",
        value,
    )


def part(page, section, name):
    """The text of a part of a lesson, with the hyphen as minus sign."""
    return page.text_content(f"#{section} [data-part={name}]").replace("\N{MINUS SIGN}", "-")


def test_boxes(page):
    box = np.ones(5)
    output = np.convolve(np.pad(box, 8), box)
    for position in (4, 9, 12, 15, 20):
        set_value(page, "boxes", "position", position)
        assert part(page, "boxes", "formula").endswith(f"= {output[position]:g}")
    set_value(page, "boxes", "kernel", "ramp")
    set_value(page, "boxes", "position", 10)
    ramp = np.arange(1, 6) / 5
    assert part(page, "boxes", "formula").endswith(f"= {np.correlate(np.pad(box, 8), ramp, 'full')[10]:g}")
    set_value(page, "boxes", "flip", True)
    assert part(page, "boxes", "formula").endswith(f"= {np.convolve(np.pad(box, 8), ramp)[10]:g}")


def test_kernel_can_be_edited_and_pointed_at(page):
    set_value(page, "kernel", "image", "numbers")
    set_value(page, "kernel", "preset", "identity")
    assert part(page, "kernel", "formula") == "y[0, 0] = 1 + 0 (bias) = 1"
    page.fill("[aria-label='kernel, row 1, column 1']", "3")
    page.fill("#kernel [name=bias]", "-1")
    assert part(page, "kernel", "formula") == "y[0, 0] = 3 + (-1) (bias) = 2"
    page.fill("[aria-label='image, row 1, column 1']", "5")
    assert part(page, "kernel", "formula") == "y[0, 0] = 15 + (-1) (bias) = 14"
    box = page.locator("#kernel [data-part=output] canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + box["height"] - 3)
    assert part(page, "kernel", "formula").startswith("y[2, 2] =")


def test_color_photo_has_three_planes(page):
    set_value(page, "kernel", "image", "photo")
    set_value(page, "kernel", "preset", "color")
    assert page.locator("#kernel [data-part=sums] li").count() == 3
    assert part(page, "kernel", "sums").startswith("red:")
    photo = np.float32(_content.photo()) / 255
    row, column = 20, 31
    set_value(page, "kernel", "row", row)
    set_value(page, "kernel", "column", column)
    set_value(page, "kernel", "bias", 0)
    wanted = photo[row + 1, column + 1, 0] - photo[row + 1, column + 1, 2]
    shown = float(part(page, "kernel", "formula").rpartition("= ")[2])
    assert abs(shown - wanted) < 0.0051


def test_sizes_and_counts(page):
    examples = page.eval_on_selector("#sizes [name=example]", "select => [...select.options].map((o) => o.value)")
    for example in examples:
        settings = json.loads(example)
        set_value(page, "sizes", "example", example)
        n, k, groups = settings["n"], settings["k"], settings["groups"]
        layer = conv(
            settings["filters"], k, stride=settings["s"], padding=settings["p"], dilation=settings["d"], groups=groups
        )
        x = jax.ShapeDtypeStruct((1, n, n, settings["channels"]), jnp.float32)
        params, state = jax.eval_shape(layer.init, jax.random.key(0), x)
        y, _ = jax.eval_shape(lambda p, s, x, layer=layer: layer.apply(p, s, x, train=False), params, state, x)
        assert part(page, "sizes", "formula").endswith(" \N{MULTIPLICATION SIGN} ".join(map(str, y.shape[1:])))
        assert f"have {params['kernel'].size:,}, " in part(page, "sizes", "weights").replace("has ", "have ")
    set_value(page, "sizes", "example", examples[2])
    assert "= 75 weights" in part(page, "sizes", "weights")
    assert "needs 3,000,000: 400 times" in part(page, "sizes", "weights")


def test_pooling_tolerates_a_shift(page):
    set_value(page, "pooling", "size", "7")
    set_value(page, "pooling", "right", 1)
    features, pooled = (float(found) for found in re.findall(r"by ([\d.]+)%", part(page, "pooling", "change")))
    assert 0 < pooled < features
    set_value(page, "pooling", "right", 0)
    assert re.findall(r"by ([\d.]+)%", part(page, "pooling", "change")) == ["0", "0"]


def test_softmax_and_loss(page):
    for n, value in enumerate((1, 2, -1)):
        set_value(page, "softmax", f"z{n}", value)
    set_value(page, "softmax", "label", 1)
    loss = float(part(page, "softmax", "formula").rpartition("= ")[2])
    assert abs(loss - (np.log(np.exp([1, 2, -1]).sum()) - 2)) < 1e-3


def test_gradient_descent_learns_the_edge_detector(page):
    page.click("#descent [data-action=restart]")
    for _ in range(20):
        page.click("#descent [data-action=many]")
    cells = page.locator("#descent [data-part=kernel] td").all_text_contents()
    np.testing.assert_allclose(
        [float(cell.replace("\N{MINUS SIGN}", "-")) for cell in cells], [1, 0, -1] * 3, atol=0.05
    )
    set_value(page, "descent", "rate", 1)
    page.click("#descent [data-action=many]")
    assert "diverges" in part(page, "descent", "loss")


def test_batch_norm_removes_scale_and_shift(page):
    set_value(page, "norm", "center", 4)
    set_value(page, "norm", "width", 3)
    passed = re.search(r"inputs and ([\d.]+)%", part(page, "norm", "active"))[1]
    set_value(page, "norm", "center", -4)
    set_value(page, "norm", "width", 0.2)
    assert re.search(r"passes ([\d.]+)% of the inputs", part(page, "norm", "active"))[1] == "0"
    assert re.search(r"inputs and ([\d.]+)%", part(page, "norm", "active"))[1] == passed


def test_overfitting_shows_the_recorded_runs(page, values):
    recorded = values["overfitting"]
    for l1 in (0, 1):
        for rate in (0, 3):
            set_value(page, "overfitting", "l1", l1)
            set_value(page, "overfitting", "dropout", rate)
            run = recorded["runs"][l1 * 4 + rate]
            assert f"test loss is {run['test'][-1]:.2f}".rstrip("0") in part(page, "overfitting", "result")
    page.click("#overfitting [data-action=masks][value='50']")
    assert "The mean over 51 masks" in part(page, "overfitting", "dropped")


def draw(page, *points):
    box = page.locator("#lenet [data-part=board] canvas").bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*at[0])
    page.mouse.down()
    for point in at[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()


def test_draw_a_seven(page):
    page.locator("#lenet [data-part=board]").scroll_into_view_if_needed()
    page.click("#lenet [data-action=clear]")
    draw(page, (0.25, 0.2), (0.75, 0.2), (0.45, 0.85))
    assert page.get_attribute("#lenet [data-part=answer]", "data-digit") == "7"
    page.click("#lenet [data-action=clear]")
    assert part(page, "lenet", "answer") == "Draw a digit."


def test_draw_a_one_with_the_keyboard(page):
    page.click("#lenet [data-action=clear]")
    page.focus("#lenet [data-part=board]")
    for key in ["ArrowUp"] * 9 + [" "] + ["ArrowDown"] * 18 + [" "]:
        page.keyboard.press(key)
    assert page.get_attribute("#lenet [data-part=answer]", "data-digit") == "1"
    assert part(page, "lenet", "pen") == "pen up, row 23, column 14"
    page.click("#lenet [data-action=clear]")


def test_zoom_to_one_value(page, lenet):
    model, params = lenet
    set_value(page, "lenet", "digit", "4")
    image = call(page, "({shape: [28, 28, 1], data: decode(DATA.digits[4].image).data.map((value) => value / 255)})")
    page.click("#lenet [aria-label='conv2, channel 3']")
    set_value(page, "lenet", "row", 4)
    set_value(page, "lenet", "column", 6)
    (_, found), _ = capture(model, "conv2").apply(params, {}, jnp.asarray(image)[None], train=False)
    wanted = float(found["conv2"][0, 4, 6, 3])
    assert part(page, "lenet", "value").startswith("conv2[4, 6, 3] = ")
    assert abs(float(part(page, "lenet", "value").rpartition("= ")[2]) - wanted) < 6e-4
    *sums, bias, shown = re.findall(r"-?\d[\d.]*(?=\)? \+|\)? \(bias|$)", part(page, "lenet", "value"))
    assert len(sums) == page.locator("#lenet [data-part=lines] li").count() == 6
    assert abs(sum(map(float, [*sums, bias])) - float(shown)) < 6e-3
    for layer in ("dense1", "relu3", "head", "pool1", "relu1", "conv1"):
        set_value(page, "lenet", "layer", layer)
        assert part(page, "lenet", "value").startswith(f"{layer}[")


def test_networks(page, values):
    assert len(values["networks"]) >= 12
    for n, network in enumerate(values["networks"]):
        set_value(page, "networks", "network", n)
        assert f"{network['params']:,}" in part(page, "networks", "facts")
    resnet = next(network for network in values["networks"] if network["model"] == "resnet50")
    assert resnet["params"] == 25_557_032


def test_sliders_are_read_as_shown(page):
    """Screen readers read the name of a network or the learning rate, not the position of its slider."""
    set_value(page, "networks", "network", 1)
    assert page.get_attribute("#networks [name=network]", "aria-valuetext") == "2012: AlexNet"
    set_value(page, "descent", "rate", -1)
    assert page.get_attribute("#descent [name=rate]", "aria-valuetext") == "0.1"
    set_value(page, "norm", "center", -2.5)
    assert page.get_attribute("#norm [name=center]", "aria-valuetext") == "\N{MINUS SIGN}2.5"
    assert page.get_by_role("slider", name="mean of x", exact=True).count() == 1  # its value is not part of its name


def test_questions_answer(page):
    assert page.locator("#boxes .answer span").is_hidden()
    page.check("[name=boxes-question][value=box]")
    assert page.text_content("#boxes .answer").startswith("Not quite.")
    assert page.locator("#boxes .answer span").is_visible()
    page.check("[name=boxes-question][value=triangle]")
    assert page.text_content("#boxes .answer").startswith("Right.")


def test_nothing_went_wrong(browser, path):
    """All controls at both ends, without errors on the console."""
    with opened(browser, path) as found:
        found.page.evaluate(
            """() => {
              const set = (control, value) => {
                control.value = value;
                control.dispatchEvent(new Event("input", {bubbles: true}));
              };
              for (const range of document.querySelectorAll("form input[type=range]")) {
                for (const end of [range.min, range.max]) set(range, end);
              }
              for (const select of document.querySelectorAll("form select")) {
                for (const option of [...select.options]) set(select, option.value);
              }
            }"""
        )
        found.check()

"""Each concept's sentence, asserted on its numbers; and the page with all figures."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import jax
import numpy as np
import pytest

from experiments.concepts import __main__ as concepts
from experiments.concepts import (
    _figure,
    augmentation,
    batch_norm,
    color_channels,
    convolution_of_boxes,
    corner_pixels,
    dropout_averages,
    edge_detection,
    feature_maps,
    gradient_descent,
    label_smoothing,
    learned_filters,
    overfitting,
    pooling,
    receptive_fields,
    relu,
    shared_weights,
    sliding_kernel,
    softmax_and_loss,
    stride_and_padding,
    translation,
)
from jaxcnn import train
from jaxcnn._extra import MissingExtraError
from tests.test_experiments import ROOT

pytestmark = pytest.mark.slow

SHORT = {"seed": 0, "epochs": 1}


def test_convolution_of_boxes_is_a_triangle():
    found = convolution_of_boxes.measure()
    np.testing.assert_array_equal(found["triangle"], [1, 2, 3, 4, 5, 4, 3, 2, 1])
    assert found["lengths"] == {"VALID": 11, "SAME": 15, "full": 19}
    np.testing.assert_array_equal(found["cross-correlation"], [0, 0, 3, 2, 1, 0, 0])
    np.testing.assert_array_equal(found["convolution"], np.convolve(found["impulse"], [1, 2, 3], "same"))


@pytest.mark.parametrize(("padding", "mode"), [("VALID", "valid"), ("SAME", "same"), (4, "full")])
def test_slide_is_numpys_correlation(padding, mode):
    rng = np.random.default_rng(0)
    signal, kernel = rng.normal(size=12), rng.normal(size=5)
    y = convolution_of_boxes.slide(signal, kernel, padding)
    np.testing.assert_allclose(y, np.correlate(signal, kernel, mode), rtol=1e-5, atol=1e-6)


def test_sliding_kernel_adds_up_nine_products():
    found = sliding_kernel.measure()
    assert found["products"].shape == (3, 3, 3, 3)
    np.testing.assert_array_equal(found["products"].sum((2, 3)), found["output"])
    np.testing.assert_array_equal(found["output"], [[5, 1, 2], [1, 2, 4], [2, 3, 2]])
    np.testing.assert_array_equal(sliding_kernel.IMAGE[:3, :3], sliding_kernel.KERNEL)  # where the output is largest


def test_edges_are_found_where_they_are_and_nowhere_else():
    answers = edge_detection.responses(edge_detection.HALF)
    # The image turns dark between columns 2 and 3: only the windows from columns 1 and 2 on see both sides.
    np.testing.assert_array_equal(answers["vertical edges"], [[0, 30, 30, 0]] * 4)
    np.testing.assert_array_equal(answers["Sobel, vertical"], [[0, 40, 40, 0]] * 4)
    np.testing.assert_array_equal(answers["horizontal edges"], np.zeros((4, 4)))
    np.testing.assert_array_equal(answers["Sobel, horizontal"], np.zeros((4, 4)))
    turned = edge_detection.responses(edge_detection.HALF.T)
    np.testing.assert_array_equal(turned["horizontal edges"], answers["vertical edges"].T)
    np.testing.assert_array_equal(turned["vertical edges"], np.zeros((4, 4)))


def test_kernels_that_sum_to_zero_are_blind_to_brightness_and_those_that_sum_to_one_keep_it():
    plain = edge_detection.responses(np.full((5, 5), 7.0))
    blind = {name for name, answer in plain.items() if np.allclose(answer, 0, atol=1e-5)}
    keeping = {name for name, answer in plain.items() if np.allclose(answer, 7, atol=1e-5)}
    assert keeping == {"blur", "sharpen"}
    assert blind == set(edge_detection.KERNELS) - keeping
    sharp = edge_detection.responses(edge_detection.HALF)["sharpen"][0]
    np.testing.assert_array_equal(sharp, [10, 20, -10, 0])  # the step is three times as high


def test_edges_of_a_digit():
    found = edge_detection.measure()
    answer, digit = found["of digit"]["vertical edges"], found["digit"]
    empty = np.lib.stride_tricks.sliding_window_view(digit, (3, 3)).max((2, 3)) == 0
    assert 0.3 < empty.mean() < 0.8
    assert not answer[empty].any()
    assert (np.abs(answer[~empty]) > 0.2).mean() > 0.5
    assert abs(answer.sum()) < 1e-3  # each dark side has a light one, as the border is empty


def test_weights():
    found = shared_weights.measure()
    assert found["filter"] == 75
    assert found["filter and bias"] == 76
    assert found["100 filters"] == 7_500
    assert found["100 dense units"] == 3_000_000
    assert found["connections"] == 75 / 30_000
    larger = shared_weights.weights(shared_weights.conv(1, 5), (200, 300, 3), "kernel")
    assert larger == 75


def test_convolution_is_a_sparse_matrix_of_nine_weights():
    rng = np.random.default_rng(0)
    image, kernel = rng.normal(size=(6, 6)), np.arange(1.0, 10.0).reshape(3, 3)
    matrix = shared_weights.measure()["matrix"]
    assert matrix.shape == (16, 36)
    assert ((matrix != 0).sum(1) == 9).all()
    assert set(np.unique(matrix)) == set(range(10))
    by_hand = [(image[i : i + 3, j : j + 3] * kernel).sum() for i in range(4) for j in range(4)]
    np.testing.assert_allclose(matrix @ image.ravel(), by_hand, rtol=1e-5)


@pytest.mark.parametrize("n", [5, 7, 12])
def test_stride_and_padding(n):
    for (k, s, p), out in stride_and_padding.measure(n).items():
        assert out == stride_and_padding.formula(n, k, s, p)
        # The last window fits, and another would not.
        assert (out - 1) * s + k <= n + 2 * p < out * s + k


def test_corner_pixels():
    results = corner_pixels.measure()
    found = {name: count for name, (count, _) in results.items()}
    assert [side for _, side in results.values()] == [4, 6, 8]
    one = np.array([1, 2, 3, 3, 2, 1])
    np.testing.assert_array_equal(found["VALID"], np.outer(one, one))
    two = np.array([2, 3, 3, 3, 3, 2])
    np.testing.assert_array_equal(found["SAME"], np.outer(two, two))
    np.testing.assert_array_equal(found["full"], np.full((6, 6), 9))


def test_pooling():
    found = pooling.measure()
    windows = pooling.MAP.reshape(2, 2, 2, 2).swapaxes(1, 2)
    np.testing.assert_array_equal(found["max"]["output"], windows.max((2, 3)))
    np.testing.assert_array_equal(found["average"]["output"], windows.mean((2, 3)))
    np.testing.assert_array_equal(found["global max"]["output"], [[8]])
    np.testing.assert_array_equal(found["global average"]["output"], [[2.5]])
    chosen = found["max"]["gradient"]
    np.testing.assert_array_equal(np.sort((pooling.MAP * chosen)[chosen > 0]), [2, 3, 7, 8])
    assert chosen.sum() == 4
    np.testing.assert_array_equal(found["average"]["gradient"], np.full((4, 4), 1 / 4))
    np.testing.assert_array_equal(found["global average"]["gradient"], np.full((4, 4), 1 / 16))
    np.testing.assert_array_equal(np.argwhere(found["global max"]["gradient"]), [[2, 2]])


def test_shifted():
    image = np.zeros((1, 9, 9, 1))
    image[0, 4, 4] = 1
    for down, right in ((0, 0), (4, 0), (-3, 0), (0, 2), (0, -4)):
        ((_, row, column, _),) = np.argwhere(translation.shifted(image, down, right))
        assert (row, column) == (4 + down, 4 + right)
    assert not translation.shifted(image[:, :5], 1, 0).any()  # what leaves does not come in at the other end


def test_features_of_random_filters_change_less_after_a_pool():
    images, labels = (values[:100] for values in translation.digits("test"))
    changes = {}
    for name, model in translation.NETWORKS.items():
        params, state = model.init(jax.random.key(0), images)
        found = translation.tolerance(model, params, state, images, labels)
        assert found["change"][0] == 0
        assert all(0 <= accuracy < 0.5 for accuracy in found["accuracy"])
        changes[name] = found["change"]
    for stride, pool, whole in zip(*(change[1:] for change in changes.values()), strict=True):
        assert stride > 1.1 * pool > 2 * whole > 0


@pytest.mark.full
def test_pooling_tolerates_translation():
    found = translation.measure(**SHORT)
    stride, pool, whole = (found[name] for name in ("stride 2", "max pooling", "global max pooling"))
    assert stride["change"][0] == pool["change"][0] == whole["change"][0] == 0
    for distance in (1, 2, 3, 4):
        assert stride["change"][distance] > 1.05 * pool["change"][distance] > 2 * whole["change"][distance]
    lost = [line["accuracy"][0] - line["accuracy"][3] for line in (stride, pool, whole)]
    assert lost[0] > lost[1] + 0.03
    assert lost[1] > 0.1 > lost[2]


def test_the_two_networks_differ_in_pooling_alone():
    assert (
        shared_weights.weights(translation.NETWORKS["stride 2"], (28, 28, 1))
        == shared_weights.weights(translation.NETWORKS["max pooling"], (28, 28, 1))
        == 11_274
    )


def test_receptive_fields_grow_with_depth():
    found = receptive_fields.measure()
    for depth in receptive_fields.DEPTHS:
        assert found["3 x 3", depth]["width"] == 2 * depth + 1
        assert found["3 x 3, stride 2", depth]["width"] == 2 ** (depth + 1) - 1
        assert found["3 x 3, pool 2", depth]["width"] == 3 * 2**depth - 2
    for result in found.values():
        assert result["explain"] == result["width"]
    ways = found["3 x 3", 2]["derivative"]
    np.testing.assert_array_equal(ways[ways > 0].reshape(5, 5), np.outer([1, 2, 3, 2, 1], [1, 2, 3, 2, 1]))


@pytest.mark.full
def test_overfitting_and_its_remedies():
    found = overfitting.measure(overfitting.CONFIG["images"], overfitting.CONFIG["train"])
    nothing, l1, l2, dropout = found.values()
    assert nothing["train"]["accuracy"] > 0.98
    assert nothing["test"]["accuracy"] < 0.9
    assert nothing["test"]["loss"] > 5 * nothing["train"]["loss"]
    assert l1["near zero"] > 3 * nothing["near zero"]
    assert l1["near zero"] > 2 * l2["near zero"]
    assert l2["size"] < 0.9 * nothing["size"]
    assert dropout["size"] > 0.95 * nothing["size"]
    for remedy in (l1, l2, dropout):
        assert remedy["gap"] == remedy["test"]["loss"] - remedy["train"]["loss"]
        assert remedy["gap"] < 0.9 * nothing["gap"]


def test_dropout_averages_all_networks_of_a_linear_layer():
    found = dropout_averages.linear_layer()
    assert found["thinned"].shape == (256, 4)
    np.testing.assert_allclose(found["mean logits"], found["logits"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["geometric mean"], found["evaluation"], rtol=1e-4)
    assert np.abs(found["mean"] - found["evaluation"]).max() > 0.01
    assert found["difference"][-1] < 0.1 < found["difference"][0]


def test_evaluation_is_as_right_as_the_mean_of_many_networks():
    found = dropout_averages.deep_network(**SHORT)
    assert abs(found["evaluation"] - found["accuracy"][-1]) < 0.02
    assert found["evaluation"] > found["accuracy"][0] + 0.1
    assert found["difference"][-1] < found["difference"][0] / 3


def test_learned_filters():
    found = learned_filters.measure(**SHORT)
    assert abs(found["correlation"]["before"]) < 0.3
    assert found["correlation"]["added"] > found["correlation"]["before"] + 0.3
    assert found["accuracy"]["before"] < 0.3
    assert found["accuracy"]["after"] > 0.85


def test_neighbor_correlation():
    rng = np.random.default_rng(0)
    assert abs(learned_filters.neighbor_correlation(rng.normal(size=(200, 5, 5)))) < 0.05
    ramps = np.broadcast_to(np.arange(5.0), (3, 5, 5))
    assert learned_filters.neighbor_correlation(ramps) > 0.8
    assert learned_filters.neighbor_correlation(np.indices((5, 5)).sum(0, keepdims=True) % 2) < -0.99  # a chessboard


def test_feature_maps():
    found = feature_maps.measure(**SHORT)
    shapes = [result["maps"].shape for result in found.values()]
    assert shapes == [(28, 28, 1), (28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16), (84,)]
    assert [result["field"] for result in found.values()] == [1, 5, 6, 14, 16, 28]
    right = {name: result["accuracy"] for name, result in found.items()}
    assert right["relu4"] > right["relu2"] + 0.02 > right["pixels"] + 0.04


def test_nearest_mean():
    seen = np.arange(10.0)[:, None]
    np.testing.assert_array_equal(feature_maps.nearest_mean(seen, np.arange(10), np.array([[3.2], [8.9]])), [3, 9])


def windows_3x3(image):
    """All 3 x 3 windows of an image (H, W, C): (H - 2, W - 2, C, 3, 3)."""
    return np.lib.stride_tricks.sliding_window_view(image, (3, 3), (0, 1))


def test_a_filter_adds_the_sums_of_its_planes():
    found = color_channels.measure()
    for name, kernel in color_channels.FILTERS.items():
        sums = np.einsum("ijcuv,uvc->ijc", windows_3x3(color_channels.IMAGE), kernel)
        np.testing.assert_array_equal(found[name]["sums"], sums)
        np.testing.assert_array_equal(found[name]["output"], sums.sum(-1))
    np.testing.assert_array_equal(found["equal planes"]["sums"][1, 1], [3, -3, 0])
    np.testing.assert_array_equal(found["equal planes"]["output"], np.zeros((3, 3)))
    np.testing.assert_array_equal(found["red against green"]["output"], [[0, 6, 6]] * 3)


@pytest.fixture(scope="module")
def of_rings():
    return relu.measure()


def test_layers_without_a_nonlinearity_are_one_layer(of_rings):
    without, with_relu = of_rings.values()
    assert without["difference"] < 1e-6
    assert without["accuracy"] < 0.75
    assert with_relu["difference"] > 0.1
    assert with_relu["accuracy"] == 1


def test_the_boundary_is_a_line_without_relu_and_closed_with_it(of_rings):
    without, with_relu = (result["classes"] for result in of_rings.values())
    second_differences = np.diff(np.float32(without).sum(1), 2)  # along a line, the count changes linearly
    assert np.abs(second_differences[(without.min(1) < without.max(1))[1:-1]]).max() <= 1
    border = np.concatenate([with_relu[0], with_relu[-1], with_relu[:, 0], with_relu[:, -1]])
    assert (border == 1).all()
    assert with_relu[40, 40] == 0


def test_collapsed_layers_are_the_product_of_their_matrices():
    rng = np.random.default_rng(0)
    A, B, C = (rng.normal(size=shape) for shape in ((2, 4), (4, 3), (3, 2)))
    a, b, c, x = (rng.normal(size=n) for n in (4, 3, 2, 2))
    params = {str(i): {"kernel": kernel, "bias": bias} for i, (kernel, bias) in enumerate(((A, a), (B, b), (C, c)))}
    one = relu.collapsed(params)
    np.testing.assert_allclose(x @ one["kernel"] + one["bias"], ((x @ A + a) @ B + b) @ C + c, rtol=1e-5)


def test_softmax_loss_and_gradient():
    found = softmax_and_loss.measure()
    z = np.array([2.0, 1.0, -1.0])  # by hand from the features and weights
    np.testing.assert_allclose(found["logits"], z)
    p = np.exp(z) / np.exp(z).sum()
    for name in ("probabilities", "of shifted logits"):
        np.testing.assert_allclose(found[name], p, rtol=1e-5)
    np.testing.assert_allclose(found["loss"], -np.log(p[1]), rtol=1e-6)
    expected = p - [0, 1, 0]
    np.testing.assert_allclose(found["gradient"], expected, atol=1e-6)
    np.testing.assert_allclose(found["gradient of weights"], np.outer([2, 1, 0, 1], expected), atol=1e-6)
    loss_at = lambda logits: np.log(np.exp(logits).sum()) - logits[1]
    central = [(loss_at(z + h) - loss_at(z - h)) / 2e-5 for h in 1e-5 * np.eye(3)]
    np.testing.assert_allclose(found["gradient"], central, atol=1e-6)
    after = np.exp(z - expected)
    np.testing.assert_allclose(found["after a step"], after / after.sum(), rtol=1e-5)
    assert max(softmax_and_loss.differences(found)) < 1e-6


def test_gradient_descent_diverges_above_the_limit():
    found = gradient_descent.measure()
    images = gradient_descent.digits("test")[0][: gradient_descent.IMAGES]
    patches = np.concatenate([windows_3x3(image).reshape(-1, 9) for image in images]).astype(np.float64)
    hessian = 2 / len(patches) * patches.T @ patches
    eigenvalues, vectors = np.linalg.eigh(hessian)
    np.testing.assert_allclose(found["limit"], 2 / eigenvalues[-1], rtol=1e-3)
    # The loss is a sum over eigenvectors, each of which shrinks or grows by a factor in each step.
    error = vectors.T @ (found["filters"][0] - gradient_descent.TARGET).ravel()
    for factor, losses in found["losses"].items():
        factors = 1 - factor * found["limit"] * eigenvalues
        for step in (0, 1, 10, 60):
            expected = (eigenvalues / 2 * (factors**step * error) ** 2).sum()
            np.testing.assert_allclose(losses[step], expected, rtol=2e-2)
    half, below, above = found["losses"].values()
    assert half[60] < 0.05 * half[0]
    assert below[60] < half[60]
    assert above[60] > 100 * above[0]
    assert np.abs(found["filters"][gradient_descent.STEPS] - gradient_descent.TARGET).max() < 0.01


def test_batch_norm():
    found = batch_norm.measure()
    before = found["before"].astype(np.float64)
    mean, var = before.mean(0), before.var(0)
    assert np.abs(mean).max() > 0.1  # there is something to normalize
    assert np.abs(np.sqrt(var) - 1).max() > 0.2
    np.testing.assert_allclose(found["after"], (before - mean) / np.sqrt(var + 1e-5), atol=1e-4)
    np.testing.assert_allclose(found["after"].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(found["after"].std(0), 1, atol=1e-3)
    assert 0 < found["change"] < 2e-3
    statistics = found["running mean"][-1], found["running std"][-1]
    np.testing.assert_allclose(statistics[0], mean, atol=0.1)
    np.testing.assert_allclose(statistics[1], np.sqrt(var), atol=0.1)
    expected = (before[0] - statistics[0]) / np.sqrt(statistics[1] ** 2 + 1e-5)
    np.testing.assert_allclose(found["evaluation"], expected, rtol=1e-3)
    assert (found["training"].std(0) > 0.02).all()
    np.testing.assert_allclose(found["training"].mean(0), found["after"][0], atol=0.1)


def test_running_statistics_are_an_average_of_those_of_the_batches():
    found = batch_norm.measure()
    rng, mean, var = np.random.default_rng(0), 0, 1
    for step in range(batch_norm.BATCHES):
        others = rng.choice(np.arange(1, len(found["before"])), batch_norm.BATCH - 1, replace=False)
        batch = found["before"][np.append(0, others)]
        mean, var = 0.9 * mean + 0.1 * batch.mean(0), 0.9 * var + 0.1 * batch.var(0)
        np.testing.assert_allclose(found["running mean"][step], mean, atol=1e-5)
        np.testing.assert_allclose(found["running std"][step], np.sqrt(var), atol=1e-5)


def test_margins():
    logits = np.array([[4.0, 1, 3] + [0] * 7, [1.0] * 10])
    np.testing.assert_allclose(label_smoothing.margins(logits, np.array([0, 3])), [4 - 4 / 9, 0])
    # The best logits give the smoothed label.
    p = np.exp([label_smoothing.best_margin(0.1), *[0] * 9])
    np.testing.assert_allclose(p / p.sum(), [0.91, *[0.01] * 9])


@pytest.mark.full
def test_a_little_label_smoothing_calibrates_and_more_does_harm():
    config = label_smoothing.CONFIG
    found = label_smoothing.measure(config["images"], config["smoothing"], config["train"])
    plain, little, much = found.values()
    assert plain["margins"].mean() > 2 * little["margins"].mean()
    for smoothing in (0.02, 0.1):
        best = np.log((1 - 0.9 * smoothing) / (0.1 * smoothing))
        assert abs(found[smoothing]["margins"].mean() - best) < 1
    assert plain["confidence"] > plain["accuracy"] + 0.05
    assert much["confidence"] < much["accuracy"] - 0.05
    assert little["calibration error"] < 0.5 * min(plain["calibration error"], much["calibration error"])
    assert max(little["loss"], much["loss"]) < plain["loss"]
    labels = label_smoothing.batch_of_digits("test")["label"]
    for result in found.values():
        confidence, correct = result["probs"].max(-1), result["probs"].argmax(-1) == labels
        at = np.ceil(confidence * label_smoothing.BINS) - 1
        gaps = [abs((correct[at == b] * 1.0).sum() - confidence[at == b].sum()) for b in range(label_smoothing.BINS)]
        np.testing.assert_allclose(result["calibration error"], sum(gaps) / len(labels), rtol=1e-4)


def test_variants_are_moved_digits():
    originals, variants = augmentation.sheet()
    for original, copies in zip(originals, variants, strict=True):
        assert len({copy.tobytes() for copy in copies}) == augmentation.COPIES
        for copy in copies:
            centers = [
                np.array([(np.indices(x.shape)[axis] * x).sum() / x.sum() for axis in (0, 1)]) for x in (original, copy)
            ]
            assert np.abs(centers[0] - centers[1]).max() < augmentation.PIXELS + 1.5
            assert 0.8 < copy.sum() / original.sum() < 1.2


@pytest.mark.full
def test_augmentation_replaces_digits():
    config = augmentation.CONFIG
    few, augmented, more = augmentation.measure(config["images"], config["train"]).values()
    assert few["steps"][-1] == augmented["steps"][-1] == more["steps"][-1] == 240
    assert more["test"]["loss"] < augmented["test"]["loss"] < 0.5 * few["test"]["loss"]
    assert few["test"]["loss"] > 1.2 * min(few["losses"])
    assert augmented["test"]["accuracy"] > few["test"]["accuracy"] + 0.05
    assert few["train"]["loss"] < augmented["train"]["loss"]


class Page(HTMLParser):
    """What is in a page, and whether its elements are closed in the order in which they were opened."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


SHORTENED = (augmentation, label_smoothing, learned_filters, feature_maps)
QUICK = (*(each for each in concepts.CONCEPTS if not hasattr(each, "CONFIG")), *SHORTENED)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of all concepts but those that train long, and its folder."""
    folder = tmp_path_factory.mktemp("concepts")
    with pytest.MonkeyPatch.context() as patch:
        for concept in SHORTENED:
            patch.setattr(concept, "CONFIG", concept.CONFIG | {"train": SHORT})
        path = concepts.write_concepts(train.Run("concepts", {}, folder=folder), QUICK)
    assert path == folder / "index.html"
    return folder, Page(path.read_text())


def test_page_has_a_section_for_each_concept(page):
    folder, page = page
    names = [concept.__name__.rpartition(".")[2] for concept in QUICK]
    assert [heading["id"] for heading in page.all("h2")] == names
    assert [link["href"] for link in page.all("a")] == [*(f"#{name}" for name in names), "lessons.html"]
    assert {path.name for path in folder.glob("*.svg")} == {f"{name}.svg" for name in names}
    for concept, name in zip(QUICK, names, strict=True):
        sentence, _, *paragraphs = concept.__doc__.replace("`", "").split("\n\n")
        assert all(paragraph.strip() in page.text for paragraph in (sentence, *paragraphs))
        assert f"$ python -m experiments.concepts.{name}\n" in page.text
    assert "3,000,000 weights" in page.text  # a number, as it is printed


def test_page_needs_nothing_from_elsewhere(page):
    _, page = page
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; img-src data:;")
    images = page.all("img")
    assert len(images) == len(QUICK)
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in images)
    assert all(len(image["alt"]) > 80 for image in images)
    assert len({image["alt"] for image in images}) == len(images)
    assert not page.all("script") + page.all("link")


def test_figures_are_small_and_follow_the_colors_of_the_page(page):
    folder, _ = page
    for path in folder.glob("*.svg"):
        svg = path.read_text()
        assert len(svg) < 80_000, path.name
        assert "prefers-color-scheme:dark" in svg
        assert "var(--ink)" in svg
        assert svg.count(_figure.INK) == 1  # where the variable is defined
        ElementTree.fromstring(svg)  # it is well-formed


def test_text_of_figures_is_readable_on_a_phone(page):
    """A page of 360 pixels leaves 328 for a figure."""
    folder, page = page
    for path in folder.glob("*.svg"):
        svg = path.read_text()
        width = float(ElementTree.fromstring(svg).get("viewBox").split()[2])
        sizes = [float(size) for size in re.findall(r"font[^;\"]*?([\d.]+)px", svg)]
        assert len(sizes) >= 3, path.name
        assert min(sizes) * 328 / width > 9, path.name
    # Their sizes reserve the space of the image; the style sheet scales it.
    assert {image["width"] for image in page.all("img")} == {f"{72 * _figure.FIGURE_WIDTH:.0f}"}


@pytest.mark.parametrize("concept", concepts.CONCEPTS, ids=lambda concept: concept.__name__.rpartition(".")[2])
def test_each_file_starts_with_its_sentence_and_its_command(concept):
    sentence, command, *explained = concept.__doc__.split("\n\n")
    assert re.fullmatch(r"[A-Z].*\.", sentence)
    assert command == f"    python -m {concept.__name__}"
    assert explained


def test_command(tmp_path):
    command = [sys.executable, "-m", corner_pixels.__name__, f"out={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("VALID: corner 1, border 3, middle 9; 6 x 6 pixels, 4 x 4 outputs\n")
    assert done.stdout.endswith(f"{tmp_path}/corner_pixels.svg\n")


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"jaxcnn\[plot\]"):
        corner_pixels.main({})
    with pytest.raises(MissingExtraError, match=r"jaxcnn\[plot\]"):
        concepts.main({"out": str(tmp_path / "new")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["overfitting", "translation", "__main__"])
def test_commands_without_matplotlib_fail_at_once(tmp_path, module):
    """One line, status 2, nothing computed, nothing written."""
    code = (
        "import runpy, sys; sys.modules['matplotlib.figure'] = None; "
        f"sys.argv = ['concepts', 'out=new']; runpy.run_module('experiments.concepts.{module}', run_name='__main__')"
    )
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"error: figures need matplotlib: pip install 'jaxcnn\[plot\]'\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_the_gap_is_printed(capsys, monkeypatch):
    """What the sentence claims can be read off: losses, the gap between them, and what is left of it."""
    result = {"accuracy": 0.8}
    part = {"weights": np.zeros(3), "near zero": 0.5, "size": 0.1}
    found = {
        name: part | {"train": result | {"loss": 0.1}, "test": result | {"loss": 0.1 + gap}, "gap": gap}
        for name, gap in {"nothing": 0.8, "L1": 0.4, "L2": 0.2, "dropout": 0.9}.items()
    }
    monkeypatch.setattr(overfitting, "measure", lambda *arguments: found)
    monkeypatch.setattr(overfitting, "draw", lambda found: None)
    overfitting.main(overfitting.CONFIG)
    assert "gap relative to the unregularized network: L1 50%, L2 25%, dropout 112%" in capsys.readouterr().out


@pytest.mark.full
def test_all(tmp_path):
    page = Page(concepts.main(concepts.CONFIG | {"out": str(tmp_path)}).read_text())
    assert len(page.all("img")) == len(page.all("h2")) == 20

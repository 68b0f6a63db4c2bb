"""The figures: what they show, in which form, and that they are the same each time."""

import builtins
import io
import re
import subprocess
import sys

import jax.numpy as jnp
import matplotlib.image
import matplotlib.text
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from jaxcnn import explain
from jaxcnn._extra import MissingExtraError


def draw(*shape):
    return np.random.default_rng([*shape]).normal(size=shape).astype(np.float32)


CLASSES = ["aeroplane", "automobile", "bird"]
MATRIX = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 4]])
HISTORY = [
    {"epoch": 1, "train": {"accuracy": 0.5, "loss": 2.0}, "test": {"loss": 2.5, "accuracy": 0.4}},
    {"epoch": 2, "train": {"loss": None, "accuracy": 0.7}, "test": {"loss": 1.5, "accuracy": 0.6}},
    {"epoch": 3, "train": {"loss": 0.5, "accuracy": 0.9}},
]
MISTAKES = explain.worst_mistakes(draw(20, 3), np.arange(20) % 3, 7)
FIGURES = {
    "filters": lambda: explain.plot_filters(draw(6, 5, 5, 1)),
    "filters, many": lambda: explain.plot_filters(draw(70, 3, 3, 1)),
    "filters, color": lambda: explain.plot_filters(draw(20, 7, 7, 3)),
    "filters, channels": lambda: explain.plot_filters(draw(40, 3, 5, 6)),
    "feature maps": lambda: explain.plot_feature_maps({"conv": draw(2, 8, 8, 20), "head": draw(2, 10)}, 1),
    "images": lambda: explain.plot_images(draw(11, 8, 8, 3)),
    "images, one": lambda: explain.plot_images(draw(1, 8, 8, 1), ["first"]),
    "saliency": lambda: explain.plot_saliency(draw(3, 8, 8, 1), draw(3, 8, 8, 1), CLASSES),
    "saliency, color": lambda: explain.plot_saliency(draw(1, 8, 8, 3), draw(1, 8, 8, 3)),
    "saliency, nothing": lambda: explain.plot_saliency(np.zeros((1, 8, 8, 1)), np.zeros((1, 8, 8, 1))),
    "grad_cam": lambda: explain.plot_grad_cam(draw(3, 8, 8, 3), jnp.abs(draw(3, 4, 4)), CLASSES),
    "confusion": lambda: explain.plot_confusion_matrix(MATRIX, CLASSES),
    "confusion, many": lambda: explain.plot_confusion_matrix(np.eye(60, dtype=int)),
    "mistakes": lambda: explain.plot_mistakes(draw(20, 8, 8, 1), MISTAKES, CLASSES),
    "mistakes, none": lambda: explain.plot_mistakes(draw(3, 8, 8, 1), explain.worst_mistakes(jnp.eye(3), [0, 1, 2], 9)),
    "curves": lambda: explain.plot_curves(HISTORY),
}


def png(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def test_notebooks_show_the_figure():
    """Without pyplot, as the image that is saved, at 90 pixels per inch."""
    figure = explain.plot_curves(HISTORY)
    data, shape = figure._repr_png_()
    assert data == png(figure)
    assert shape == {"width": round(90 * figure.get_figwidth())}


def contrast(a, b):
    """The ratio of WCAG 2."""
    lights = []
    for color in (a, b):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
        lights.append(np.dot([0.2126, 0.7152, 0.0722], linear) + 0.05)
    return max(lights) / min(lights)


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", FIGURES)
def test_figure(name):
    """The same bytes each time; no background; text of a readable size and color, none cut off or on another."""
    figure = FIGURES[name]()
    drawn = png(figure)
    assert drawn == png(FIGURES[name]())
    pixels = matplotlib.image.imread(io.BytesIO(drawn))
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge[:, 3] == 0).all(), "something reaches the edge"
    cells = figure.axes[0].texts  # on a background of their own
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_text() and text.get_visible() and text not in cells:
            assert text.get_fontsize() >= 8
            assert min(contrast(text.get_color(), page) for page in ("#ffffff", "#121212")) > 4, text.get_text()
    titles = [text for ax in figure.axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label) if text.get_text()]
    boxes = [text.get_window_extent() for text in titles]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def images(figure):
    return [np.ma.filled(image.get_array(), np.nan) for ax in figure.axes for image in ax.images]


def test_filters_are_colored_around_zero():
    kernels = draw(6, 5, 5, 1) + 1
    figure = explain.plot_filters(kernels)
    [image] = figure.axes[0].images
    most = np.abs(kernels).max()
    assert image.get_clim() == pytest.approx((-most, most))
    np.testing.assert_allclose(image.cmap(0.5)[:3], to_rgb("#eeeeee"), atol=0.01)
    (shown,) = images(figure)
    np.testing.assert_allclose(shown[:, 6:11], kernels[1, ..., 0])
    assert np.isnan(shown[:, 5]).all()


def test_filters_in_color_are_around_gray():
    kernels = draw(10, 5, 5, 3)
    (shown,) = images(explain.plot_filters(kernels))
    assert shown.shape == (11, 8 * 6 - 1, 4)
    np.testing.assert_allclose(shown[6:, 6:11, :3], 0.5 + 0.5 * kernels[9] / np.abs(kernels).max(), rtol=1e-6)
    np.testing.assert_array_equal(shown[6:, 11:, 3], 0)  # 8 in the first row, 2 in the second


def test_filters_with_more_channels_are_a_matrix():
    kernels = draw(4, 3, 3, 6)
    (shown,) = images(explain.plot_filters(kernels))
    assert shown.shape == (6 * 4 - 1, 4 * 4 - 1)
    np.testing.assert_allclose(shown[20:23, 8:11], kernels[2, ..., 5])


def test_feature_maps_are_rows_of_channels():
    maps = {"conv": draw(2, 8, 8, 20), "head": draw(2, 10)}
    figure = explain.plot_feature_maps(maps, 1, channels=4)
    conv, head = images(figure)
    assert conv.shape == (8, 4 * 9 - 1)
    np.testing.assert_allclose(conv[:, 27:], maps["conv"][1, ..., 3])
    np.testing.assert_allclose(head[0], maps["head"][1])
    assert [ax.get_title("left").split(" ")[0] for ax in figure.axes] == ["conv", "head"]


def test_images_are_spread_from_black_to_white():
    first, last = images(explain.plot_images(np.array([[[[2.0], [3.0], [6.0]]], [[[0.0], [1.0], [1.0]]]])))
    assert first[0, :, 0].tolist() == [0, 0.25, 1]
    assert last[0, :, 0].tolist() == [0, 1, 1]


def test_saliency_is_transparent_at_zero_and_tells_the_signs_apart():
    attributions = np.zeros((1, 2, 2, 2), np.float32)
    attributions[0, 0, 0] = [3, 1]
    attributions[0, 1, 1] = [-1, -1]
    with pytest.raises(ValueError, match="1 or 3 channels"):
        explain.plot_saliency(draw(1, 2, 2, 2), attributions)
    attributions = attributions.sum(-1, keepdims=True)
    figure = explain.plot_saliency(draw(1, 2, 2, 1), attributions)
    background, below, overlay = images(figure)
    np.testing.assert_allclose(overlay, [[1, 0], [0, -0.5]])
    assert (background.min(), background.max()) == (0, 1)
    assert below.min() > 0.3
    image = figure.axes[1].images[1]
    against, nothing, for_it = image.to_rgba(np.array([-1.0, 0.0, 1.0]))
    np.testing.assert_allclose(against, (*to_rgb("#0072b2"), 1))
    np.testing.assert_allclose(for_it, (*to_rgb("#d55e00"), 1))
    assert nothing[3] < 0.01


def test_grad_cam_is_brought_to_the_size_of_the_image():
    maps = np.abs(draw(2, 4, 4))
    *_, overlay = images(explain.plot_grad_cam(draw(2, 8, 8, 1), maps))
    assert overlay.shape == (8, 8)
    assert overlay.max() == 1
    assert np.unravel_index(overlay.argmax(), (8, 8)) != (0, 0)
    largest = np.array(np.unravel_index(maps[1].argmax(), (4, 4)))
    np.testing.assert_array_equal(np.array(np.unravel_index(overlay.argmax(), (8, 8))) // 2, largest)


def test_confusion_matrix_has_counts_and_shares_of_rows():
    figure = explain.plot_confusion_matrix(MATRIX, CLASSES)
    ax = figure.axes[0]
    (shares,) = images(figure)[:1]
    np.testing.assert_allclose(shares, MATRIX / MATRIX.sum(1, keepdims=True))
    assert [text.get_text() for text in ax.texts] == ["8", "2", "", "1", "9", "", "", "", "4"]
    assert [text.get_position() for text in ax.texts][1] == (1, 0)
    assert [label.get_text() for label in ax.get_xticklabels()] == CLASSES
    assert ax.get_title() == "accuracy 87.50% on 24 examples"
    for text, share in zip(ax.texts, shares.flat, strict=True):
        assert contrast(text.get_color(), ax.images[0].to_rgba(share)[:3]) > 4


def test_mistakes_have_their_classes_and_probabilities():
    figure = FIGURES["mistakes"]()
    assert figure.get_suptitle() == "7 mistakes with predicted probabilities"
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert len(titles) == 7
    label, predicted = CLASSES[MISTAKES.label[2]], CLASSES[MISTAKES.predicted[2]]
    ours, theirs = MISTAKES.label_probability[2], MISTAKES.predicted_probability[2]
    assert titles[2] == f"true: {label}, {ours:.1%}\npredicted: {predicted}, {theirs:.1%}"
    np.testing.assert_allclose(np.ptp(figure.axes[2].images[0].get_array()), 1)
    assert figure.axes[2].get_xlabel() == f"example {MISTAKES.index[2]}"


def test_curves_of_metrics_that_only_the_evaluation_has():
    history = [{"epoch": 1, "train": {"loss": 1.0}, "test": {"loss": 2.0, "mean_iou": 0.5, "matrix": [[1, 2]]}}]
    axes = explain.plot_curves(history).axes
    assert [ax.get_title() for ax in axes] == ["loss", "mean_iou"]
    assert [len(ax.lines) for ax in axes] == [2, 1]


def test_curves_are_those_of_the_records():
    loss, accuracy = explain.plot_curves(HISTORY).axes
    assert [(ax.get_title(), ax.get_xlabel()) for ax in (loss, accuracy)] == [("loss", "epoch"), ("accuracy", "epoch")]
    training, test = loss.lines
    np.testing.assert_array_equal(training.get_ydata(), [2, np.nan, 0.5])
    np.testing.assert_array_equal(test.get_xydata(), [[1, 2.5], [2, 1.5]])
    assert [line.get_label() for line in accuracy.lines] == ["train", "test"]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["train", "test"]


def test_no_global_state():
    code = """
import sys, numpy as np
from jaxcnn import explain
assert "matplotlib" not in sys.modules
explain.plot_filters(np.ones((2, 3, 3, 1)))
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", FIGURES)
def test_without_matplotlib(name, monkeypatch):
    imported = builtins.__import__

    def without(module, *args, **kwargs):
        if module.startswith("matplotlib"):
            raise ModuleNotFoundError(module)
        return imported(module, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"matplotlib: pip install 'jaxcnn\[plot\]'"):
        FIGURES[name]()


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (
            lambda: explain.plot_filters(draw(4, 3, 1)),
            r"plot_filters needs \(features, H, W, C\) or one filter \(H, W\), got shape \(4, 3, 1\)",
        ),
        (lambda: explain.plot_feature_maps({"a": draw(2, 5, 3)}), r"plot_feature_maps needs .*'a' is \(2, 5, 3\)"),
        (lambda: explain.plot_filters(draw(0, 3, 3, 1)), r"got shape \(0, 3, 3, 1\)"),
        (lambda: explain.plot_feature_maps({"a": draw(2, 5)}, 5), r"example must be from 0 to 1, got 5"),
        (lambda: explain.plot_feature_maps({"a": draw(2, 5)}, channels=0), r"channels must be at least 1, got 0"),
        (lambda: explain.plot_images(draw(3, 8, 8, 1), ["a", "b"]), r"plot_images: titles must be .* 3, got 2"),
        (lambda: explain.plot_saliency(draw(0, 8, 8, 1), draw(0, 8, 8, 1)), r"plot_saliency needs \(N, H, W, C\)"),
        (lambda: explain.plot_grad_cam(draw(0, 8, 8, 1), draw(0, 4, 4)), r"plot_grad_cam needs \(N, H, W, C\)"),
        (
            lambda: explain.plot_saliency(draw(1, 8, 8, 1), draw(1, 8, 8, 1), ["a", "b"]),
            r"plot_saliency: titles must be one text per image, 1, got 2",
        ),
        (lambda: explain.plot_mistakes(draw(2, 8, 8, 1), MISTAKES), r"refer to images\[\d+\], but there are 2 images"),
        (lambda: explain.plot_mistakes(draw(20, 8, 8), MISTAKES), r"plot_mistakes needs images \(N, H, W, C\)"),
        (lambda: explain.plot_mistakes(draw(20, 8, 8, 1), MISTAKES, ["a"]), r"classes\[2\], but there are 1 classes"),
        (lambda: explain.plot_confusion_matrix([[-4, 1], [0, 1]]), r"matrix\[0, 0\] is -4; counts must be finite"),
        (lambda: explain.plot_confusion_matrix([[1, 0], [np.nan, 1]]), r"matrix\[1, 0\] is nan; counts must be finite"),
        (lambda: explain.plot_confusion_matrix(np.zeros((0, 0))), r"needs \(classes, classes\), got shape \(0, 0\)"),
        (lambda: explain.plot_feature_maps({}), r"at least one layer, got none"),
        (lambda: explain.plot_images(draw(8, 8, 1)), r"plot_images needs \(N, H, W, C\), got shape \(8, 8, 1\)"),
        (lambda: explain.plot_images(draw(0, 8, 8, 1)), r"got shape \(0, 8, 8, 1\)"),
        (lambda: explain.plot_saliency(draw(2, 8, 8, 1), draw(2, 8, 8)), r"attributions \(2, 8, 8\) .*\(2, 8, 8, 1\)"),
        (lambda: explain.plot_grad_cam(draw(2, 8, 8, 1), draw(8, 8)), r"maps must be \(N, H, W\) .*got shape \(8, 8\)"),
        (lambda: explain.plot_grad_cam(draw(2, 8, 8, 2), draw(2, 4, 4)), r"1 or 3 channels.*\(8, 8, 2\)"),
        (lambda: explain.plot_confusion_matrix(np.ones((2, 3))), r"needs \(classes, classes\), got shape \(2, 3\)"),
        (lambda: explain.plot_confusion_matrix(MATRIX, ["a"]), r"3 classes, got 1 names"),
        (lambda: explain.plot_curves([]), r"at least one epoch"),
    ],
)
def test_bad_input(mistake, message):
    with pytest.raises(ValueError, match=message):
        mistake()


def test_values_that_are_not_finite_leave_the_rest_visible():
    x = np.ones((1, 8, 8, 2))
    x[0, 0, 0] = 0.5, np.nan
    figure = explain.plot_feature_maps({"conv": x})
    assert "from 0.5 to 1" in figure.axes[0].get_title(loc="left")
    image = np.linspace(0, 1, 64).reshape(1, 8, 8, 1)
    image[0, 3, 3] = np.nan
    drawn = explain.plot_images(image).axes[0].images[0].get_array()
    assert drawn[3, 3, 3] == 0  # transparent
    assert drawn[[0, 7], [0, 7]].tolist() == [[0, 0, 0, 1], [1, 1, 1, 1]]


def test_class_names_of_a_confusion_matrix():
    names = ["$10-$20", "$^$", "white wolf, Arctic wolf, Canis lupus tundrarum"]
    figure = explain.plot_confusion_matrix(MATRIX, names)
    figure.savefig(io.BytesIO())
    shown = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert shown[:2] == ["$10-$20", "$^$"]
    assert re.fullmatch(r"white wolf,.*\.\..*tundrarum", shown[2])


LONG = [f"white wolf, Arctic wolf, Canis lupus {kind} {'M' * 9}" for kind in ("tundrarum", "arctos", "labradorius")]


@pytest.mark.parametrize(
    "figure",
    [
        lambda: explain.plot_mistakes(draw(20, 8, 8, 1), MISTAKES, LONG),
        lambda: explain.plot_images(draw(3, 8, 8, 1), LONG),
        lambda: explain.plot_saliency(draw(3, 8, 8, 1), draw(3, 8, 8, 1), LONG),
        lambda: explain.plot_grad_cam(draw(3, 8, 8, 1), np.ones((3, 4, 4)), LONG),
    ],
)
def test_long_titles_are_shortened_in_the_middle(figure):
    figure = figure()
    png(figure)
    titles = [ax.title for ax in figure.axes if ax.get_title()]
    boxes = [title.get_window_extent() for title in titles]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)
    assert all("wh" in title.get_text() and ".." in title.get_text() and "M" in title.get_text() for title in titles)


def test_titles_of_several_lines_and_without_glyphs():
    """Plotting does not warn; drawing does."""
    lines = ["one\ntwo", "\u732b", ""]
    explain.plot_confusion_matrix(MATRIX, lines)
    assert [ax.get_title() for ax in explain.plot_images(draw(3, 8, 8, 1), lines).axes] == lines


def test_names_with_a_common_beginning_differ_in_a_confusion_matrix():
    names = [f"white wolf, Arctic wolf, Canis lupus {kind}" for kind in ("tundrarum", "arctos", "labradorius")]
    labels = explain.plot_confusion_matrix(MATRIX, names).axes[0].get_yticklabels()
    assert len({label.get_text() for label in labels}) == 3


@pytest.mark.parametrize(("largest", "shown"), [(9, True), (5_000_000, True), (5_000_000_000, False)])
def test_counts_fit_into_their_cells(largest, shown):
    figure = explain.plot_confusion_matrix(np.full((20, 20), largest), [LONG[0]] * 20)
    png(figure)
    ax = figure.axes[0]
    assert len(ax.texts) == 400 * shown
    assert all(text.get_window_extent().width < ax.get_window_extent().width / 20 for text in ax.texts[:3])


def test_one_filter_without_channels():
    (shown,) = images(explain.plot_filters(np.array([[1, 0, -1]] * 3)))
    np.testing.assert_array_equal(shown, [[1, 0, -1]] * 3)


def test_values_without_a_finite_one_are_not_zeros():
    figure = explain.plot_feature_maps({"conv": np.full((1, 8, 8, 2), np.nan), "head": np.zeros((1, 3))})
    assert [ax.get_title("left") for ax in figure.axes] == ["conv (8, 8, 2), not finite", "head (3,), from 0 to 0"]
    attributions = np.zeros((2, 8, 8, 1))
    attributions[1] = np.nan
    figure = explain.plot_saliency(draw(2, 8, 8, 1), attributions)
    assert [ax.get_xlabel() for ax in figure.axes[2:4]] == ["", "not finite"]
    undefined = explain.worst_mistakes(np.full((1, 2), np.nan, np.float32), [1], 1)
    title = explain.plot_mistakes(draw(1, 8, 8, 1), undefined).axes[0].get_title()
    assert title == "true: 1, not finite\npredicted: 0, not finite"


def test_curves_of_a_log_with_other_lines():
    figure = explain.plot_curves([*HISTORY, {"seconds": 3.0}, {"epoch": 4}])
    assert len(figure.axes) == 2

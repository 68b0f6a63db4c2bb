"""Reports, their comparison and the page of concepts in a real browser: no errors, requests or serious findings."""

import functools

import jax
import numpy as np
import pytest

from experiments.concepts import __main__ as concepts
from experiments.concepts import convolution_of_boxes, sliding_kernel
from jaxcnn import (
    binary_cross_entropy,
    conv,
    cross_entropy,
    data,
    dense,
    flatten,
    max_pool,
    mean_squared_error,
    report,
    serial,
    train,
)
from tests.browser import SCHEMES, WIDTHS, chromium, opened

pytestmark = pytest.mark.slow
IMAGES = np.random.default_rng(0).random((64, 8, 8, 3), np.float32)
MEANS = IMAGES.mean((1, 2))
# task: (network, labels, loss)
TASKS = {
    "regression": (serial(flatten=flatten, head=dense(1)), MEANS[:, :1], mean_squared_error),
    "labels": (serial(flatten=flatten, head=dense(3)), (MEANS > 0.5).astype(np.float32), binary_cross_entropy),
    "segmentation": (serial(conv=conv(3)), IMAGES.argmax(-1), cross_entropy),
    "reconstruction": (serial(conv=conv(3)), IMAGES, mean_squared_error),
}


@pytest.fixture(scope="module")
def browser():
    with chromium() as launched:
        yield launched


def page_of_classification(folder):
    digits = data.load("mnist_small", "test")
    net = serial(conv=conv(4), act=jax.nn.relu, pool=max_pool(4), flat=flatten, head=dense(10))
    config = {"epochs": 2, "report": True}
    run = train.Run("digits", {}, folder=folder)
    train.fit(net, digits, eval_data=digits, config=config, run=run)
    return folder / "report.html"


def page_of_task(folder, task):
    net, labels, loss = TASKS[task]
    config = {"epochs": 2, "batch_size": 16, "report": True}
    arrays = (IMAGES, labels)
    train.fit(net, arrays, eval_data=arrays, loss=loss, config=config, run=train.Run(task, {}, folder=folder))
    return folder / "report.html"


def page_of_sweep(folder):
    net, labels, loss = TASKS["regression"]
    run = train.Run("sweep", {}, folder=folder)
    arrays, over = (IMAGES, labels), {"optimizer.learning_rate": [0.01, 0.1], "seed": range(2)}
    train.sweep(net, arrays, over=over, eval_data=arrays, loss=loss, config={"epochs": 2, "batch_size": 16}, run=run)
    return report.report(folder)


def page_of_comparison(folder):
    for task in ("segmentation", "reconstruction"):
        page_of_task(folder / task, task)
    return report.compare([folder / "segmentation", folder / "reconstruction"], folder / "comparison.html")


def page_of_concepts(folder):
    run = train.Run("concepts", {}, folder=folder)
    return concepts.write_concepts(run, (convolution_of_boxes, sliding_kernel))


PAGES = {
    "classification": page_of_classification,
    **{task: functools.partial(page_of_task, task=task) for task in TASKS},
    "sweep": page_of_sweep,
    "comparison": page_of_comparison,
    "concepts": page_of_concepts,
}


@pytest.mark.parametrize("name", PAGES)
def test_page(browser, name, tmp_path):
    path = PAGES[name](tmp_path / "run")
    for width in WIDTHS:
        for scheme in SCHEMES:
            with opened(browser, path, width=width, scheme=scheme) as found:
                found.check()
                assert found.accessibility() == [], (width, scheme)

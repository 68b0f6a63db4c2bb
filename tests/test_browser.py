"""The report and the page of concepts in a real browser: no errors, no requests, no serious accessibility finding."""

import jax
import numpy as np
import pytest

from experiments.concepts import __main__ as concepts
from experiments.concepts import convolution_of_boxes, sliding_kernel
from jaxcnn import conv, data, dense, flatten, max_pool, serial, train
from tests.browser import SCHEMES, WIDTHS, chromium, opened

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    with chromium() as launched:
        yield launched


def report_of_classification(folder):
    digits = data.load("mnist_small", "test")
    net = serial(conv=conv(4), act=jax.nn.relu, pool=max_pool(4), flat=flatten, head=dense(10))
    config = {"epochs": 2, "report": True}
    run = train.Run("digits", {}, folder=folder)
    train.fit(net, digits, eval_data=digits, config=config, run=run)
    return folder / "report.html"


def report_of_regression(folder):
    from jaxcnn import mean_squared_error

    images = np.random.default_rng(0).random((64, 8, 8, 1), np.float32)
    labels = images.mean((1, 2))
    net = serial(flat=flatten, head=dense(1))
    run = train.Run("means", {}, folder=folder)
    config = {"epochs": 2, "batch_size": 16, "report": True}
    train.fit(net, (images, labels), eval_data=(images, labels), loss=mean_squared_error, config=config, run=run)
    return folder / "report.html"


def page_of_concepts(folder):
    run = train.Run("concepts", {}, folder=folder)
    return concepts.write_concepts(run, (convolution_of_boxes, sliding_kernel))


@pytest.mark.parametrize("make", [report_of_classification, report_of_regression, page_of_concepts])
def test_page(browser, make, tmp_path):
    path = make(tmp_path / "run")
    for width in WIDTHS:
        for scheme in SCHEMES:
            with opened(browser, path, width=width, scheme=scheme) as found:
                found.check()
                assert found.accessibility() == [], (width, scheme)

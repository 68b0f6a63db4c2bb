"""`data.train_test_split`: every example once, the same fraction of each class, the same split for the same seed."""

import numpy as np
import pytest

from jaxcnn import data
from jaxcnn.data import DataError


def numbered(labels, classes=()):
    """Images that hold their index."""
    labels = np.asarray(labels)
    return data.Dataset(np.arange(len(labels))[:, None, None, None], labels, classes)


@pytest.mark.parametrize("fraction", [0.1, 0.34, 0.9])
def test_each_class_has_the_fraction(fraction):
    counts = {0: 50, 1: 7, 3: 2}  # no example of class 2
    labels = np.repeat(list(counts), list(counts.values())).astype(np.int32)
    train, test = data.train_test_split(numbered(labels, ("a", "b", "c", "d")), fraction, seed=3)
    assert sorted([*train.images.ravel(), *test.images.ravel()]) == list(range(len(labels)))
    for part in (train, test):
        np.testing.assert_array_equal(part.labels, labels[part.images.ravel()])
        assert part.classes == ("a", "b", "c", "d")
        assert not np.array_equal(part.labels, np.sort(part.labels))  # shuffled
    for label, count in counts.items():
        assert (test.labels == label).sum() == min(count - 1, max(1, round(fraction * count)))


def test_the_seed_decides():
    images = numbered(np.arange(40) % 2)
    first, again, other = (data.train_test_split(images, 0.5, seed=seed)[1].images.ravel() for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


@pytest.mark.parametrize("labels", [np.linspace(0, 1, 10), np.zeros((10, 3, 3), np.int32)])
def test_other_labels_are_split_as_a_whole(labels):
    train, test = data.train_test_split(numbered(labels), 0.3)
    assert (len(train.images), len(test.images)) == (7, 3)
    np.testing.assert_array_equal(test.labels, labels[test.images.ravel()])


@pytest.mark.parametrize(
    ("labels", "fraction", "message"),
    [
        ([0, 0, 1], 0.5, "needs at least 2 examples of class dog, got 1"),
        ([0.5], 0.5, "needs at least 2 examples, got 1"),
        (np.zeros(0, np.int32), 0.5, "needs at least 2 examples, got 0"),
        ([0, 0, 1, 1], 0, "test_fraction must be above 0, got 0"),
        ([0, 0, 1, 1], 1.0, "test_fraction must be at least 0 and below 1, got 1.0"),
    ],
)
def test_bad_input(labels, fraction, message):
    with pytest.raises((DataError, ValueError), match=message):
        data.train_test_split(numbered(labels, ("cat", "dog")), fraction)


def test_lengths_must_match():
    for images in (8, 12):
        with pytest.raises(DataError, match=rf"one label per image, got {images} images and labels \(10,\)"):
            data.train_test_split(data.Dataset(np.zeros((images, 2)), np.arange(10) % 2, ()), 0.5)


@pytest.mark.parametrize("pairs", [(np.zeros((4, 2)), np.zeros(4)), {"image": np.zeros((4, 2)), "label": np.zeros(4)}])
def test_other_kinds_of_data_are_named(pairs):
    with pytest.raises(TypeError, match=r"train_test_split needs a Dataset, got .*; make one by data\.Dataset\("):
        data.train_test_split(pairs, 0.5)


def test_a_class_without_name_is_named_by_its_number():
    with pytest.raises(DataError, match="2 examples of class 7, got 1"):
        data.train_test_split(numbered([0, 0, 7], ("cat",)), 0.5)

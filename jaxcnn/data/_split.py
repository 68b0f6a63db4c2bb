"""Random split of a data set into training and test examples."""

import numpy as np

from jaxcnn._arguments import check_integer, check_number, check_positive, short_repr
from jaxcnn.data._error import DataError
from jaxcnn.data._load import Dataset


def train_test_split(dataset: Dataset, test_fraction: float, *, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Split a data set into training and test examples, at random.

    With integer classes (N,), the split is stratified: each class has the same fraction of test examples, rounded, and
    at least one training and one test example. Other labels are split as a whole.

    Args:
        dataset: images and labels in memory.
        test_fraction: of the examples, above 0 and below 1.
        seed: the same seed gives the same split.

    Raises:
        DataError: if a class, or a data set without classes, has fewer than two examples, or the numbers of images and
            labels differ.
        TypeError: for data other than a `Dataset`.
        ValueError: for a test_fraction outside (0, 1), or a negative seed.

    Example:
        >>> digits = jaxcnn.data.load("mnist_small", "train")
        >>> train_data, test_data = jaxcnn.data.train_test_split(digits, 0.1)
        >>> len(train_data.images), len(test_data.images)
        (7199, 801)
    """
    test_fraction = check_number("train_test_split", "test_fraction", test_fraction, 0, 1)
    check_positive("train_test_split", "test_fraction", test_fraction)
    seed = check_integer("train_test_split", "seed", seed, 0, below=2**64)
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"train_test_split needs a Dataset, got {short_repr(dataset)}; make one by data.Dataset(images, labels)"
        )
    images, labels = np.asarray(dataset.images), np.asarray(dataset.labels)
    if labels.shape[:1] != images.shape[:1]:
        raise DataError(
            f"train_test_split needs one label per image, got {len(images)} images and labels {labels.shape}"
        )
    if not len(labels):
        raise DataError("train_test_split needs at least 2 examples, got 0")
    stratified = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
    groups = labels if stratified else np.zeros(len(images), int)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(groups))
    is_test = np.zeros(len(groups), bool)
    for group in np.unique(groups):
        members = order[groups[order] == group]
        if len(members) < 2:
            named = 0 <= group < len(dataset.classes)
            of_class = f" of class {dataset.classes[group] if named else group}" if stratified else ""
            raise DataError(f"train_test_split needs at least 2 examples{of_class}, got {len(members)}")
        count = round(test_fraction * len(members))
        is_test[members[: min(max(count, 1), len(members) - 1)]] = True  # at least one of each
    select = lambda at: Dataset(images[at], labels[at], dataset.classes)
    return select(order[~is_test[order]]), select(order[is_test[order]])

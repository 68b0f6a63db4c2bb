"""Data of any kind are one thing for training: batches by step."""

import itertools

import jax
import numpy as np
import pytest

from jaxcnn import data

IMAGES = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1)
LABELS = np.arange(10)
PAIR = {"image": IMAGES, "label": LABELS}


def labels(source, step, count, **options):
    return [batch["label"].tolist() for batch in itertools.islice(source.batches(step, **options), count)]


@pytest.mark.parametrize("given", [PAIR, (IMAGES, LABELS), [*PAIR.items()], data.Dataset(IMAGES, LABELS, ())])
def test_kinds_of_data_in_memory(given):
    if isinstance(given, list):
        with pytest.raises(TypeError, match=r"seen must be a Dataset, a Stream, a dict .* got \["):
            data.source(given, name="seen")
        return
    source = data.source(given, 4)
    assert (source.steps, source.batch_size) == (2, 4)
    assert source.spec["image"] == jax.ShapeDtypeStruct((4, 1, 1, 1), np.float32)
    assert source.spec["label"] == jax.ShapeDtypeStruct((4,), np.int32)
    assert data.source(source) is source


def test_each_epoch_has_another_order_and_any_step_can_be_the_first():
    source = data.source(PAIR, 3)
    whole = labels(source, 0, 9)
    assert [whole[step:] for step in range(9)] == [labels(source, step, 9 - step) for step in range(9)]
    epochs = [[*itertools.chain(*whole[i : i + 3])] for i in (0, 3, 6)]
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert labels(source, 0, 3, key=jax.random.key(1)) != whole[:3]
    np.testing.assert_array_equal(source.order(jax.random.key(0), 1)[:9], epochs[1])


def test_in_order_the_last_batch_is_filled_up():
    source = data.source(PAIR | {"weight": np.full(10, 2.0)}, 4, shuffle=False)
    assert source.steps == 3
    assert labels(source, 0, 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 0], [0, 1, 2, 3]]
    batches = itertools.islice(source.batches(), 3)
    assert [batch["weight"].tolist() for batch in batches] == [[2] * 4, [2] * 4, [2, 2, 0, 0]]


def test_a_stream_may_have_other_entries_and_pairs():
    masks = jax.ShapeDtypeStruct((2, 8, 8), np.float32)
    image = jax.ShapeDtypeStruct((2, 8, 8, 1), np.uint8)

    def batches(step):
        for i in itertools.count(step):
            yield np.full((2, 8, 8, 1), i, np.uint8), np.zeros((2, 8, 8), np.float32)

    source = data.source(data.Stream(batches, 5, image, (), "abc", {"label": masks}))
    assert source.spec == {"image": image, "label": masks}
    assert source.steps == 5
    assert source.fingerprint == "5 batches 2x8x8x1 uint8 abc"
    assert next(source.batches(7))["image"].max() == 7


@pytest.mark.parametrize("values", [[0, 2**32], [1, -(2**31) - 1]])
def test_integers_that_do_not_fit_into_32_bits_are_refused(values):
    """JAX would wrap 2^32 to 0."""
    with pytest.raises(ValueError, match=rf"data: label\[1\] is {values[1]}, which does not fit into int32"):
        data.source((np.zeros((2, 4)), np.array(values)), 2)
    fits = np.array([-(2**31), 2**31 - 1])
    assert data.source((np.zeros((2, 4)), fits), 2).arrays["label"] is fits


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (2.5, TypeError)])
def test_batch_size_is_checked(size, error):
    with pytest.raises(error, match="source: batch_size must be"):
        data.source(PAIR, size)


FIELDS = {
    "batches": lambda step: itertools.repeat((IMAGES[:2], LABELS[:2].astype(np.int32))),
    "steps": 3,
    "image": jax.ShapeDtypeStruct((2, 1, 1, 1), np.float32),
}


@pytest.mark.parametrize(
    ("field", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps of a Stream must be at least 1, got 0"),
        ({"steps": -1}, ValueError, "steps of a Stream must be at least 1, got -1"),
        ({"steps": 2.5}, TypeError, "steps of a Stream must be an int, got 2.5"),
        ({"image": (4, 4, 4, 1)}, TypeError, r"image of a Stream must be .*ShapeDtypeStruct .*, got \(4, 4, 4, 1\)"),
        ({"image": jax.ShapeDtypeStruct((), float)}, ValueError, r"image of a Stream must have a batch .*, got \(\)"),
        ({"others": {"label": (2,)}}, TypeError, r"label of a Stream must be .*ShapeDtypeStruct .*, got \(2,\)"),
        ({"others": ["label"]}, TypeError, r"others of a Stream must be a dict or None, got \['label'\]"),
        ({"batches": iter([])}, TypeError, "batches of a Stream must be a function from a step .*, got <list_iter"),
    ],
)
def test_fields_of_a_stream_are_checked(field, error, message):
    assert data.source(data.Stream(**FIELDS)).steps == 3
    with pytest.raises(error, match=f"seen: {message}"):
        data.source(data.Stream(**(FIELDS | field)), name="seen")


def test_a_stream_without_batches_is_an_error():
    stream = data.Stream(**(FIELDS | {"batches": lambda step: None}))
    with pytest.raises(TypeError, match="batches of a Stream must return an iterator over batches, got None"):
        next(data.source(stream).batches())


@pytest.mark.parametrize("kind", ["memory", "dataset", "stream"])
@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", np.longdouble])
def test_dtypes_that_jax_cannot_read_are_converted(kind, dtype):
    """JAX refuses them, or, in a program that is compiled already, reads big-endian bytes without swapping them."""
    images, classes = IMAGES.astype(dtype), LABELS.astype(">i4")
    data_of = {
        "memory": (images, classes),
        "dataset": data.Dataset(images, classes),
        "stream": data.Stream(
            lambda step: itertools.repeat((images, classes)),
            1,
            jax.ShapeDtypeStruct(images.shape, images.dtype),
            others={"label": jax.ShapeDtypeStruct(classes.shape, classes.dtype)},
        ),
    }
    source = data.source(data_of[kind], 10, shuffle=False)
    batch = next(source.batches())
    for entry, expected in (("image", IMAGES), ("label", LABELS)):
        found = jax.jit(lambda x: 1 * x)(batch[entry])
        assert found.dtype == jax.dtypes.canonicalize_dtype(source.spec[entry].dtype)
        np.testing.assert_array_equal(found, expected)


def test_a_stream_that_ends_is_an_error():
    batch = {"image": np.zeros((2, 4), np.float32), "label": np.zeros(2, np.int32)}
    stream = data.Stream(lambda step: iter([batch] * (3 - step)), 3, jax.ShapeDtypeStruct((2, 4), np.float32))
    assert len([*itertools.islice(data.source(stream).batches(1), 2)]) == 2
    with pytest.raises(data.DataError, match="the stream has no batch for step 3; its `batches` must continue"):
        list(itertools.islice(data.source(stream).batches(1), 3))

"""Trainings of several tasks as a command, for tests with many devices or processes; each prints its result as JSON."""

import functools
import hashlib
import json
import pathlib

import jax
import numpy as np

import jaxcnn as cnn
from jaxcnn import data, metrics, train
from jaxcnn._key import child_key
from jaxcnn.data._source import in_memory
from tests.test_metrics import CASES, X

CONFIG = {"task": "metrics", "stream": False, "stop": 0, "folder": "runs/fit_tasks"}


def stream(arrays, batch_size, *, shuffle):
    """The batches that `fit` draws from these arrays in memory with seed 0, as a stream of this process's rows."""
    source = in_memory(arrays, batch_size, shuffle=shuffle)
    key = child_key(jax.random.key(0), "steps")
    count = batch_size // jax.process_count()
    rows = slice(jax.process_index() * count, (jax.process_index() + 1) * count)
    batches = lambda step: ({name: x[rows] for name, x in batch.items()} for batch in source.batches(step, key))
    others = {name: spec for name, spec in source.spec.items() if name != "image"}
    return data.Stream(batches, source.steps, source.spec["image"], (), "", others)


def fit(config, name, model, arrays, eval_arrays, *, batch_size, settings, **options):
    train_data, eval_data = arrays, eval_arrays
    evaluated = settings["evaluate"]["batch_size"]
    if config["stream"]:
        train_data = stream(arrays, batch_size, shuffle=True)
        eval_data = stream(eval_arrays, evaluated, shuffle=False)
    run = train.Run("fit_tasks", {}, folder=pathlib.Path(config["folder"]) / name)
    settings = {"batch_size": batch_size} | settings
    return train.fit(model, train_data, eval_data=eval_data, config=settings, run=run, **options)


def zero(model):
    def loss_fn(params, state, batch, *, train, key=None):
        output, state = model.apply(params, state, batch["image"], train=train)
        return 0 * (output.mean(tuple(range(1, output.ndim))) * batch["weight"]).sum(), (state, {})

    return loss_fn


def all_metrics(config):
    """name -> value of each metric in test_metrics.CASES, of a model that returns its input."""
    values = {}
    groups = {}
    for name, (metric, output, label) in CASES.items():
        groups.setdefault((output.tobytes(), label.tobytes()), []).append((name, metric, output, label))
    for i, cases in enumerate(groups.values()):
        _, _, output, label = cases[0]
        chosen = {name: metric for name, metric, *_ in cases}
        arrays = {"image": output, "label": label, "weight": X["weight"]}
        few = {name: value[:16] for name, value in arrays.items()}
        settings = {"epochs": 1, "optimizer": {"learning_rate": 0.0}, "checkpoint": {"keep": 0}}
        settings |= {"evaluate": {"batch_size": 48, "tta": "none"}}  # 203 rows: the last batch has 11
        start = ({"kernel": np.eye(output.shape[1], dtype=np.float32)}, {})
        options = {"loss": zero, "metrics": chosen, "start": start}
        model = cnn.dense(output.shape[1], bias=False)
        fitted = fit(config, str(i), model, few, arrays, batch_size=16, settings=settings, **options)
        record = fitted.history[-1]["test"]
        values |= {name: record[name] for name in chosen}
    return values


def maps(count, seed):
    """Noisy images (count, 16, 16, 1) of a bright square, and the label map: 1 in the square, 2 in its left half."""
    rng = np.random.default_rng(seed)
    label = np.zeros((count, 16, 16), np.int32)
    for i, (top, left) in enumerate(rng.integers(1, 9, (count, 2))):
        label[i, top : top + 6, left : left + 6] = 1
        label[i, top : top + 6, left : left + 3] = 2
    image = label[..., None] / 2 + rng.normal(0, 0.1, (count, 16, 16, 1))
    return {"image": image.astype(np.float32), "label": label}


def stop_at(event, step):
    if step and event.step == step:
        event.stop = True


def segmentation(config):
    """The history of a U-Net on label maps, and a digest of everything that the training returns."""
    loss = cnn.weighted_sum((1.0, cnn.cross_entropy), (0.5, cnn.dice))
    chosen = {"mean_iou": metrics.mean_iou(), "dice": metrics.dice(), "matrix": metrics.confusion_matrix()}
    settings = {"epochs": 2, "evaluate": {"batch_size": 16, "tta": "none"}, "watch": "mean_iou"}
    settings |= {"optimizer": {"learning_rate": 0.01}, "checkpoint": {"every": 4, "keep": 9}}
    model = cnn.models.unet(3, widths=(8, 16), padding="SAME", dropout=0.1)
    options = {"loss": loss, "metrics": chosen, "callbacks": [functools.partial(stop_at, step=config["stop"])]}
    fitted = fit(config, "unet", model, maps(160, 0), maps(21, 1), batch_size=8, settings=settings, **options)
    timeless = lambda record: {name: record[name] for name in ("epoch", "step", "train", "test")}
    leaves = jax.tree.leaves(jax.tree.map(np.asarray, (fitted.params, fitted.state, fitted.train_state.opt_state)))
    return {
        "history": [timeless(record) for record in fitted.history],
        "params": [np.asarray(leaf).ravel().tolist() for leaf in jax.tree.leaves(fitted.params)],
        "digest": hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest(),
    }


TASKS = {"metrics": all_metrics, "segmentation": segmentation}


def main(config):
    print("result", json.dumps(TASKS[config["task"]](config)), flush=True)


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)

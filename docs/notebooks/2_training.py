# %% [markdown]
# # Training
#
# `train.fit` is one function with a nested dict of settings. This notebook shows the settings that matter most, how
# to compare runs, how training resumes, and where your own functions go.

# %%
import jax

from jaxcnn import data, metrics, models, report, train

digits, test_digits = (data.load("mnist_small", split) for split in ("train", "test"))
few = data.Dataset(digits.images[:2000], digits.labels[:2000], digits.classes)  # few images, to see overfitting
train.FIT

# %% [markdown]
# `help(train.resolve)` explains each setting. An unknown name or a wrong value is an error before anything is
# computed:

# %%
try:
    train.resolve({"optimizer": {"learning_rat": 0.1}})
except train.ConfigError as error:
    print(error)

# %% [markdown]
# ## With and without regularization
#
# The first run has no regularization. Its training loss falls far below its test loss: the network memorizes its 2,000
# images. `train.resolve` fills in the defaults, so that the run folders record all settings.

# %%
model = models.lenet5()
settings = train.resolve({"epochs": 12, "batch_size": 100, "optimizer": {"name": "adamw", "learning_rate": 3e-3}})
plain = train.fit(model, few, eval_data=test_digits, config=settings, run=train.Run("plain", settings))
plain

# %% [markdown]
# The second run sees other images in each epoch, because augmentation moves and rotates them, and weight decay keeps
# the weights small. `|` replaces whole entries of a dict, so the nested one is merged, too.

# %%
regularized_settings = settings | {
    "augment": [["translate", 2], ["rotate", 10]],
    "weight_decay": settings["weight_decay"] | {"rate": 0.1},
    "label_smoothing": 0.05,
}
run = train.Run("regularized", regularized_settings)
regularized = train.fit(model, few, eval_data=test_digits, config=regularized_settings, run=run)
regularized

# %% [markdown]
# `report.compare` writes one page about several runs: the settings that differ, the metrics side by side, and shared
# charts. So does the command `python -m jaxcnn.report runs/plain-.. runs/regularized-..`.

# %%
report.compare([plain.folder, regularized.folder], run.folder / "comparison.html")

# %% [markdown]
# ## Resuming
#
# A run folder holds checkpoints. `fit` with the same folder continues after the last one, with the same numbers as
# without an interruption. Here training had already ended, so nothing is left to do:

# %%
again = train.fit(
    model, few, eval_data=test_digits, config=settings, run=train.Run("plain", settings, folder=plain.folder)
)
again.history == plain.history

# %% [markdown]
# ## Your own functions
#
# The loss, the metrics and the callbacks are functions. A metric is a pair: `update` returns sums for a batch, and
# `compute` turns the sums over all batches into the value. `batch["weight"]` is 0 for rows that only fill up the last
# batch. A callback gets an event after each epoch (and at other points), and may add to the record or stop training.


# %%
def confident_update(logits, batch):
    probability = jax.nn.softmax(logits).max(-1)
    return {"count": ((probability > 0.9) * batch["weight"]).sum(), "total": batch["weight"].sum()}


def stop_at_90(event):
    if event.kind == "epoch" and event.record["test"]["accuracy"] > 0.9:
        event.stop = True


stopped = train.fit(
    model,
    few,
    eval_data=test_digits,
    config=settings | {"augment": [["translate", 2]]},
    metrics={
        "confident": metrics.Metric(confident_update, lambda sums: sums["count"] / sums["total"]),
        "confusion": metrics.confusion_matrix(),
    },
    callbacks=[stop_at_90],
)
stopped

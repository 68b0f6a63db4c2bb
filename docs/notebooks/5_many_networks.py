# %% [markdown]
# # Many networks
#
# A network is a pair of pure functions, so `jax.vmap` trains many at once in one program. This notebook searches a
# learning rate, measures how much results vary between seeds, and combines networks into an ensemble with calibrated
# probabilities.

# %%
import jax
import numpy as np

from jaxcnn import (
    cross_entropy,
    data,
    dense,
    ensemble,
    explain,
    flatten,
    max_pool,
    per_member,
    serial,
    train,
    uncertainty,
)

digits, test_digits = (data.load("mnist_small", split) for split in ("train", "test"))
few = data.Dataset(digits.images[:1000], digits.labels[:1000], digits.classes)
net = serial(pool=max_pool(2), flatten=flatten, dense=dense(64), relu=jax.nn.relu, head=dense(10))

# %% [markdown]
# ## A range test
#
# The learning rate grows from step to step. The loss falls fastest at the suggestion, and diverges at rates that are
# too large.

# %%
found = train.find_learning_rate(net, few)
explain.plot_learning_rates(found)

# %% [markdown]
# ## A sweep
#
# Four learning rates times four seeds are 16 networks. Each equals a call of `fit` with the same settings. The table
# has the mean and the standard deviation over the seeds: differences below it may be chance.

# %%
over = {"optimizer.learning_rate": [0.0003, 0.001, 0.003, 0.01], "seed": range(4)}
settings = {"epochs": 10, "batch_size": 50}
swept = train.sweep(net, few, over=over, eval_data=test_digits, config=settings)
swept

# %%
swept.best.settings

# %% [markdown]
# ## An ensemble
#
# `ensemble(net, 5)` is a layer with the parameters of five networks. Its output is the logarithm of their mean
# probability. `per_member` trains each with its own loss.

# %%
members = ensemble(net, 5)
rate = swept.best.settings["optimizer.learning_rate"]
fitted = train.fit(
    members,
    few,
    eval_data=test_digits,
    loss=per_member(cross_entropy),
    config=settings | {"optimizer": {"learning_rate": rate}},
)
alone, together = swept.best.metrics["accuracy"], fitted.history[-1]["test"]["accuracy"]
f"the best of the sweep {alone:.1%}, the ensemble {together:.1%}"

# %% [markdown]
# ## How far to trust it
#
# Of all predictions with a confidence of 80 %, 80 % should be correct. The diagram compares confidence and accuracy
# of a single network, whose training has made it overconfident.

# %%
images = test_digits.images / np.float32(255)
logits, _ = net.apply(swept.best.params, swept.best.state, images, train=False)
probabilities = jax.nn.softmax(logits)
uncertainty.reliability_diagram(probabilities, test_digits.labels)

# %% [markdown]
# A temperature above 1 makes the probabilities less confident. It is fitted on one half of the test digits and
# measured on the other.

# %%
fit_half, test_half = slice(None, 1000), slice(1000, None)
T = uncertainty.temperature(logits[fit_half], test_digits.labels[fit_half])


def calibration_error(logits):
    return float(
        uncertainty.expected_calibration_error(jax.nn.softmax(logits[test_half]), test_digits.labels[test_half])
    )


{"temperature": float(T), "error before": calibration_error(logits), "error after": calibration_error(logits / T)}

# %% [markdown]
# A conformal set contains the true class with a chosen probability, here 99 %. Most sets have one class; those of
# unclear digits have several.

# %%
calibrated = jax.nn.softmax(logits / T)
threshold = uncertainty.conformal_threshold(calibrated[fit_half], test_digits.labels[fit_half], coverage=0.99)
sets = np.asarray(uncertainty.conformal_sets(calibrated[test_half], threshold))
covered = sets[np.arange(len(sets)), test_digits.labels[test_half]].mean()
f"{covered:.1%} of the sets contain the true class; sizes: {np.bincount(sets.sum(1))}"

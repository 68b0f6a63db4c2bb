# %% [markdown]
# # Many networks
#
# A network is a pair of pure functions, so `jax.vmap` trains many at once in one program. This notebook searches for a
# learning rate, measures how much results vary between seeds, combines networks into an ensemble, and calibrates the
# probabilities of a single network.

# %%
import jax
import numpy as np

from jaxcnn import (
    data,
    dense,
    ensemble,
    explain,
    flatten,
    max_pool,
    serial,
    stack_members,
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
# Four learning rates times four seeds are 16 networks. Each equals a call of `fit` with the same settings, up to
# rounding. The table
# has the mean and the standard deviation over the seeds: smaller differences may be chance.

# %%
over = {"optimizer.learning_rate": [0.001, 0.003, 0.01, 0.03], "seed": range(4)}
settings = {"epochs": 30, "batch_size": 50}
swept = train.sweep(net, few, over=over, eval_data=test_digits, config=settings)
swept

# %%
swept.best.settings

# %% [markdown]
# ## An ensemble
#
# `ensemble(net, 4)` is a layer with the parameters of four networks. Its output is the logarithm of their mean
# probability. Here its members are the four seeds with the best learning rate. To train an ensemble as one network, use
# `fit(ensemble(net, 4), .., loss=per_member(cross_entropy))`.

# %%
_, best_runs = swept.groups()[0]
params, state = stack_members([(run.params, run.state) for run in best_runs])
images = test_digits.images / np.float32(255)
together, _ = ensemble(net, len(best_runs)).apply(params, state, images, train=False)
alone = np.mean([run.metrics["accuracy"] for run in best_runs])
f"one network {alone:.1%}, the ensemble {(together.argmax(-1) == test_digits.labels).mean():.1%}"

# %% [markdown]
# ## How far to trust it
#
# Of all predictions with a confidence of 80 %, 80 % should be correct. The diagram compares confidence and accuracy
# of a single network, whose training has made it overconfident.

# %%
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
# A conformal set contains the true class with a chosen probability, here 95 %. Most sets have one class; those of
# unclear digits have several.

# %%
calibrated = jax.nn.softmax(logits / T)
threshold = uncertainty.conformal_threshold(calibrated[fit_half], test_digits.labels[fit_half], coverage=0.95)
sets = np.asarray(uncertainty.conformal_sets(calibrated[test_half], threshold))
covered = sets[np.arange(len(sets)), test_digits.labels[test_half]].mean()
f"{covered:.1%} of the sets contain the true class; sizes: {np.bincount(sets.sum(1))}"

# %% [markdown]
# # A first network
#
# This notebook trains a convolutional network on handwritten digits: first step by step, then with one call of
# `train.fit`. The digits are part of the package, so nothing is downloaded. Open the file in VS Code, in Spyder, or in
# Jupyter with jupytext. Run with Python, it only prints the progress of training. The notebooks need the packages of
# `pip install '.[train,plot,weights]'` in the folder of the checkout.

# %%
import jax
import numpy as np
import optax

from jaxcnn import conv, cross_entropy, data, dense, explain, flatten, max_pool, serial, train

digits, test_digits = (data.load("mnist_small", split) for split in ("train", "test"))
digits

# %% [markdown]
# ## A network is a pair of functions
#
# `init` creates the parameters from a random key, made from a seed, and an example input. `apply` computes the output
# from the parameters and an input. The network itself holds no arrays. `serial` applies layers in sequence; each has a
# name. The output has ten numbers for each image, the logits: `jax.nn.softmax` makes them probabilities.

# %%
model = serial(
    conv1=conv(16),  # 28 x 28 x 16
    relu1=jax.nn.relu,
    pool1=max_pool(2),  # 14 x 14 x 16
    conv2=conv(32),  # 14 x 14 x 32
    relu2=jax.nn.relu,
    pool2=max_pool(2),  # 7 x 7 x 32
    flatten=flatten,  # 1568
    head=dense(10),
)
images = digits.images[:4] / np.float32(255)  # (N, H, W, C), values from 0 to 1
explain.summary(model, images)

# %%
params, state = model.init(jax.random.key(0), images)
logits, _ = model.apply(params, state, images, train=False)
jax.tree.map(np.shape, params), logits.shape

# %% [markdown]
# `state` holds values that the optimizer does not update, such as the statistics of batch norm. This network has
# none:

# %%
state

# %% [markdown]
# ## Training, step by step
#
# A loss function maps parameters and a batch to a number. `train.make_step` combines it with an optimizer into one
# compiled function: the gradient of the loss and the update of the parameters.

# %%
optimizer = optax.adam(1e-3)
step = train.make_step(cross_entropy(model), optimizer)
train_state = train.TrainState.create(model, optimizer, jax.random.key(0), images)
losses = []
for first in range(0, 6400, 64):  # 100 batches of 64 images
    rows = slice(first, first + 64)
    batch = {"image": digits.images[rows] / np.float32(255), "label": digits.labels[rows]}
    train_state, metrics = step(train_state, batch)
    losses.append(float(metrics["loss"]))
f"loss of the first step {losses[0]:.2f}, mean of the last ten {np.mean(losses[-10:]):.2f}"

# %% [markdown]
# The first loss is close to log 10 = 2.3, that of a network that gives each of the ten classes the same probability.
# On the test digits:

# %%
test = {"image": test_digits.images / np.float32(255), "label": test_digits.labels}
train.evaluate(cross_entropy(model), train_state.params, train_state.state, test)

# %% [markdown]
# ## Training with one call
#
# `train.fit` shuffles the data, repeats such steps for all epochs, evaluates after each, saves checkpoints, and
# writes a log into a new folder in `runs/`. `train.FIT` holds its settings with their defaults; here the learning
# rate falls along a cosine, and images are shifted at random.

# %%
fitted = train.fit(
    model,
    digits,
    eval_data=test_digits,
    config={"epochs": 3, "batch_size": 64, "optimizer": {"learning_rate": 2e-3}, "augment": [["translate", 2]]},
)
fitted

# %% [markdown]
# ## What the network gets wrong
#
# The result has the trained parameters. These are the digits whose true class got the lowest probability:

# %%
logits, _ = model.apply(fitted.params, fitted.state, test["image"], train=False)
mistakes = explain.worst_mistakes(logits, test_digits.labels, 5)
explain.plot_mistakes(test["image"], mistakes, test_digits.classes)

# %% [markdown]
# # Look inside a network
#
# What each layer computes, which pixels it sees, and why a network decides as it does.

# %%
import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import data, explain, models, train

digits, test_digits = (data.load("mnist_small", split) for split in ("train", "test"))
model = models.tiny()
model

# %% [markdown]
# ## Structure
#
# These tables need only shapes. A multiply-add is one multiplication by a weight and one addition. Almost all of
# them are in the convolutions, as in most networks.

# %%
x = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
explain.summary(model, x)

# %% [markdown]
# The receptive field of a unit is the part of the image that it depends on. It grows with each layer, and faster
# after a pool.

# %%
explain.receptive_field(model, x)

# %% [markdown]
# The algorithm of each convolution and pool on this machine, and how much arithmetic it does per byte of memory:

# %%
explain.plan(model, x)

# %% [markdown]
# ## Filters and feature maps

# %%
fitted = train.fit(model, digits, eval_data=test_digits, config={"epochs": 5, "optimizer": {"learning_rate": 5e-3}})
explain.plot_filters(explain.filters(fitted.params, "conv1"))

# %% [markdown]
# A feature map is the output of a filter at all positions. The first layers keep the shape of the digit; the last
# ones are coarse.

# %%
first = np.unique(test_digits.labels, return_index=True)[1]  # one digit of each class
images = test_digits.images[first] / np.float32(255)
maps = explain.feature_maps(model, fitted.params, fitted.state, images, "relu.")
explain.plot_feature_maps(maps, example=8)

# %% [markdown]
# ## Reasons for a decision
#
# Integrated gradients say how much each pixel contributes to the logit of a class: orange pixels speak for it, blue
# ones against it.

# %%
names = [test_digits.classes[k] for k in test_digits.labels[first]]
attributions = explain.integrated_gradients(model, fitted.params, fitted.state, images[:5])
explain.plot_saliency(images[:5], attributions, names[:5])

# %% [markdown]
# Grad-CAM weights the maps of a layer by their gradient. It is coarse, but shows where the evidence is.

# %%
cam = explain.grad_cam(model, fitted.params, fitted.state, images[:5], "relu3")
explain.plot_grad_cam(images[:5], cam, names[:5])

# %% [markdown]
# ## Confusions

# %%
test_images = test_digits.images / np.float32(255)
logits, _ = model.apply(fitted.params, fitted.state, test_images, train=False)
matrix = explain.confusion_matrix(test_digits.labels, logits.argmax(-1), 10)
explain.plot_confusion_matrix(matrix, test_digits.classes)

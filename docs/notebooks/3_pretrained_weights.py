# %% [markdown]
# # Pretrained weights, without a network
#
# Trained weights are files. This notebook saves and loads them, converts them from and to the names of PyTorch, and
# fine-tunes a network on few images. It downloads nothing; `weights.pretrained("resnet18.a1_in1k")` would download
# published weights.

# %%
import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import batch_norm, conv, data, dense, flatten, freeze, max_pool, serial, train, weights

weights.available("*resnet18*")  # names of published weights; the table is part of the package

# %% [markdown]
# ## A network that is trained on other classes
#
# The body is trained on the digits 0 to 4. Then it helps to learn the digits 5 to 9 from 10 images of each.

# %%
digits, test_digits = (data.load("mnist_small", split) for split in ("train", "test"))


def of_classes(dataset, classes, per_class=None):
    rows = np.concatenate([np.flatnonzero(dataset.labels == k)[:per_class] for k in classes])
    return data.Dataset(dataset.images[rows], dataset.labels[rows] - classes[0], tuple(map(str, classes)))


low, test_low = of_classes(digits, range(5)), of_classes(test_digits, range(5))
few, test_high = of_classes(digits, range(5, 10), per_class=10), of_classes(test_digits, range(5, 10))
few

# %%
body = serial(
    conv1=conv(16, bias=False),
    norm1=batch_norm(),
    act1=jax.nn.relu,
    pool1=max_pool(2),
    conv2=conv(32, bias=False),
    norm2=batch_norm(),
    act2=jax.nn.relu,
    pool2=max_pool(2),
    flatten=flatten,
)
model = serial(body=body, head=dense(5))
source = train.fit(model, low, eval_data=test_low, config={"epochs": 2, "batch_size": 64})

# %% [markdown]
# ## To a file and back
#
# The file has the safetensors format. Each array has its path in the nested dicts.

# %%
path = source.folder / "digits.safetensors"
weights.save(path, source.params, source.state)
params, state = weights.load(path)
jax.tree.map(np.shape, params), jax.tree.map(np.shape, state)

# %% [markdown]
# ## Fine-tuning
#
# `start` sets the initial values of a part of the network: here the body, without the head. `freeze` keeps this part
# constant, so only the 7,845 parameters of the head are trained. The other network starts from random values.

# %%
settings = {"epochs": 40, "batch_size": 50, "optimizer": {"learning_rate": 3e-3}}
frozen = serial(body=freeze(body), head=dense(5))
start = ({"body": params["body"]}, {"body": state["body"]})
tuned = train.fit(frozen, few, eval_data=test_high, config=settings, start=start)
scratch = train.fit(model, few, eval_data=test_high, config=settings)
{name: result.history[-1]["test"]["accuracy"] for name, result in (("tuned", tuned), ("from scratch", scratch))}

# %% [markdown]
# ## The names of PyTorch
#
# `to_torch` gives a state dict with PyTorch's names and layouts: a kernel (H, W, C_in, C_out) becomes a weight
# (C_out, C_in, H, W).

# %%
x = jnp.zeros((1, 28, 28, 1))
state_dict = weights.to_torch(model, source.params, source.state, x=x)
{name: array.shape for name, array in state_dict.items()}

# %% [markdown]
# A file from elsewhere has names of its own. `match` proposes which array belongs to which parameter, from shapes and
# order. Check its proposal, then convert. The outputs agree:

# %%
renamed = {"body.conv1": "0", "body.norm1": "1", "body.conv2": "4", "body.norm2": "5", "head": "9"}
foreign = {}
for name, array in state_dict.items():
    module, _, leaf = name.rpartition(".")
    foreign[f"{renamed[module]}.{leaf}"] = array
names = weights.match(model, foreign, x)
names

# %%
converted = weights.from_torch(model, foreign, x=x, names=names)
images = test_low.images[:100] / np.float32(255)
outputs = [model.apply(*trees, images, train=False)[0] for trees in ((source.params, source.state), converted)]
np.abs(outputs[0] - outputs[1]).max()

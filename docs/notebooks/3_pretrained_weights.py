# %% [markdown]
# # Pretrained weights, offline
#
# Trained weights are files. This notebook saves and loads them, converts them from and to the names of PyTorch, and
# fine-tunes a network on few images. It downloads nothing; `weights.pretrained("resnet18.a1_in1k")` would download
# published weights.

# %%
import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import batch_norm, conv, cross_entropy, data, dense, flatten, freeze, max_pool, serial, train, weights

weights.available("*resnet18*")  # names of published weights; the table is part of the package

# %% [markdown]
# ## A network that is trained on clear images
#
# Two epochs on the digits of the package:

# %%
body = serial(
    conv1=conv(8, bias=False),
    norm1=batch_norm(),
    act1=jax.nn.relu,
    pool1=max_pool(2),
    conv2=conv(16, bias=False),
    norm2=batch_norm(),
    act2=jax.nn.relu,
    pool2=max_pool(2),
    flatten=flatten,
)
model = serial(body=body, head=dense(10))
digits, test_digits = (data.load("mnist_small", split) for split in ("train", "test"))
source = train.fit(model, digits, eval_data=test_digits, config={"epochs": 2, "batch_size": 64})

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
# ## Other images
#
# The new images have little contrast, and only 10 images of each class have labels. The network has not seen such
# images:


# %%
def with_little_contrast(dataset, seed):
    images = data.corruptions.corrupt(dataset.images, "contrast", 5, jax.random.key(seed))
    return dataset._replace(images=np.asarray(images))


rows = np.concatenate([np.flatnonzero(digits.labels == k)[:10] for k in range(10)])
few = with_little_contrast(data.Dataset(digits.images[rows], digits.labels[rows], digits.classes), seed=0)
test = with_little_contrast(data.Dataset(test_digits.images[:500], test_digits.labels[:500], digits.classes), seed=1)
few

# %%
batch = {"image": test.images / np.float32(255), "label": test.labels}
train.evaluate(cross_entropy(model), params, state, batch)

# %% [markdown]
# ## Fine-tuning
#
# `start` sets the initial values, of all layers or of a part. Fine-tuning continues with a smaller learning rate. The
# second network has a body that `freeze` keeps constant, so only its head is trained, from random values. The third
# one starts from random values everywhere.
#
# In the first epochs of the first and the third network, the test accuracy is far below the training accuracy.
# Evaluation uses the running statistics of batch norm. They adapt to the new images by a tenth per step, and an epoch
# has only two steps.

# %%
settings = {"epochs": 20, "batch_size": 50, "optimizer": {"learning_rate": 1e-3}}
settings["checkpoint"] = {"keep": 0}  # write none
print("all layers")
tuned = train.fit(model, few, eval_data=test, config=settings, start=(params, state))

faster = settings | {"optimizer": {"learning_rate": 3e-3}}
frozen = serial(body=freeze(body), head=dense(10))
print("the head")
head = train.fit(frozen, few, eval_data=test, config=faster, start=({"body": params["body"]}, {"body": state["body"]}))
print("from random values")
scratch = train.fit(model, few, eval_data=test, config=faster)
results = {"all layers": tuned, "the head": head, "from random values": scratch}
{name: f"{result.history[-1]['test']['accuracy']:.1%}" for name, result in results.items()}

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
images = test_digits.images[:100] / np.float32(255)
outputs = [model.apply(*trees, images, train=False)[0] for trees in ((source.params, source.state), converted)]
np.abs(outputs[0] - outputs[1]).max()

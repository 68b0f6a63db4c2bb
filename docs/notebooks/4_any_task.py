# %% [markdown]
# # Any task
#
# The loss decides what a network learns; images, training and reports stay the same. This notebook draws images of
# disks and trains two networks on them: one finds the pixels of the disks (segmentation), the other estimates a
# number (regression).

# %%
import jax
import numpy as np

from jaxcnn import (
    batch_norm,
    conv,
    cross_entropy,
    data,
    dense,
    dice,
    global_avg_pool,
    mean_squared_error,
    metrics,
    models,
    report,
    serial,
    train,
    weighted_sum,
)


def disks(count, size=32, seed=0):
    """Images (count, size, size, 3) of a disk over noise, its pixels (count, size, size), and its radius (count, 1)."""
    rng = np.random.default_rng(seed)
    center, radius = rng.uniform(8, size - 8, (count, 2)), rng.uniform(3, 8, count)
    rows, columns = np.mgrid[:size, :size]
    distance = np.hypot(rows - center[:, :1, None], columns - center[:, 1:, None])
    mask = distance < radius[:, None, None]
    color = rng.uniform(0.3, 1, (count, 1, 1, 3))
    images = np.where(mask[..., None], color, 0.3) + rng.normal(0, 0.15, (count, size, size, 3))
    return images.clip(0, 1).astype(np.float32), mask.astype(np.int32), radius[:, None].astype(np.float32)


images, masks, radii = disks(600)
test_images, test_masks, test_radii = disks(100, seed=1)
data.Dataset(images, masks, ("background", "disk"))

# %% [markdown]
# ## Segmentation
#
# The labels are a class for each pixel. A U-Net returns logits for each pixel, and the loss is the sum of
# cross-entropy and Dice loss. The setting "watch" names the metric that selects the best epoch.

# %%
unet = models.unet(2, widths=(8, 16), padding="SAME", norm=batch_norm, dropout=0.0)
segmented = train.fit(
    unet,
    (images, masks),
    eval_data=(test_images, test_masks),
    loss=weighted_sum((1.0, cross_entropy), (0.5, dice)),
    metrics={"mean_iou": metrics.mean_iou()},
    config={"epochs": 4, "batch_size": 30, "optimizer": {"learning_rate": 1e-2}, "watch": "mean_iou"},
)
segmented

# %% [markdown]
# The report shows images with their true and predicted classes, the best and the worst.

# %%
test_data = data.Dataset(test_images, test_masks, ("background", "disk"))
report.gather(segmented.folder, unet, segmented.params, segmented.state, test_data)
report.report(segmented.folder)

# %% [markdown]
# ## Regression
#
# The labels are the radii, numbers of shape (N, 1). The network ends in one output instead of one per class, and the
# loss is the mean squared error.

# %%
regressor = serial(
    conv1=conv(16, stride=2),
    norm1=batch_norm(),
    relu1=jax.nn.relu,
    conv2=conv(32, stride=2),
    norm2=batch_norm(),
    relu2=jax.nn.relu,
    pool=global_avg_pool,
    head=dense(1),
)
measured = train.fit(
    regressor,
    (images, radii),
    eval_data=(test_images, test_radii),
    loss=mean_squared_error,
    metrics={"error in pixels": metrics.mean_absolute_error(), "r2": metrics.r2()},
    config={"epochs": 15, "batch_size": 30, "optimizer": {"learning_rate": 1e-2}, "augment": [["flip"]]},
)
measured

# %%
report.gather(measured.folder, regressor, measured.params, measured.state, (test_images, test_radii))
report.report(measured.folder)

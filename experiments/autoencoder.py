"""A denoising autoencoder: a network with a bottleneck removes noise from digits.

    python -m experiments.autoencoder       PSNR 19 dB, against 16 dB of a Gaussian filter and 9 dB of the noisy images;
                                            half a minute on 2 cores

The labels are the clean images, and the loss is the squared error of each pixel. In training, the first layer of the
network adds noise to the clean images, new in each step. In evaluation it adds none: the test images are noisy.
PSNR = -10 log10(mean squared error) for pixels from 0 to 1, the mean over images. Baselines: the noisy images, a 3 x 3
median filter, and a Gaussian filter with the best width for the training images.

Source: Vincent et al., "Extracting and composing robust features with denoising autoencoders", 2008.
"""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from experiments._settings import require_gray
from jaxcnn import batch_norm, conv, conv_transpose, data, gaussian_noise, mean_squared_error, metrics, serial, train

CONFIG = {
    "data": {"name": "mnist_small", "root": "", "noise": 0.5},  # std of the noise; the range of pixels is 1
    "model": {"width": 16},
    "train": train.FIT
    | {
        "epochs": 10,
        "batch_size": 64,
        "optimizer": {"name": "adam", "learning_rate": 3e-3},
    },
    "runs": "runs",
    "folder": "",
}
LIMITS = {"data.noise": (1e-6, 100), "model.width": (1, 10**4)}
WIDTHS = np.arange(0.4, 2.0, 0.1)  # std of the Gaussian filter in pixels


def network(width, noise):
    """28 x 28 -> 14 x 14 -> 7 x 7 -> 14 x 14 -> 28 x 28."""
    return serial(
        noise=gaussian_noise(noise),
        down1=conv(width, stride=2, padding=1, bias=False),
        norm1=batch_norm(),
        relu1=jax.nn.relu,
        down2=conv(2 * width, stride=2, padding=1, bias=False),
        norm2=batch_norm(),
        relu2=jax.nn.relu,
        bottleneck=conv(2 * width, bias=False),
        norm3=batch_norm(),
        relu3=jax.nn.relu,
        up1=conv_transpose(width, 4, stride=2, bias=False),
        norm4=batch_norm(),
        relu4=jax.nn.relu,
        up2=conv_transpose(1, 4, stride=2),
    )


def psnr_per_image(output, clean):
    """(N, H, W, C) -> (N,), in decibels. Pixels of the output are clipped to [0, 1]."""
    error = jnp.square(jnp.clip(output, 0, 1) - clean).mean((1, 2, 3))
    return -10 * jnp.log10(jnp.maximum(error, 1e-10))


PSNR = metrics.Metric(
    lambda output, batch: {
        "psnr": batch["weight"] @ psnr_per_image(output, batch["label"]),
        "count": batch["weight"].sum(),
    },
    lambda sums: sums["psnr"] / sums["count"],
)


def median_filter(images):
    """The median of each 3 x 3 window; the border is repeated."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    return np.median(sliding_window_view(padded, (3, 3), (1, 2)), axis=(-2, -1))


def gaussian_filter(images, std):
    """The mean of each window with Gaussian weights, which extend to 4 std; zeros outside."""
    for length in images.shape[1:3]:  # rows, then columns: tensordot moves the filtered axis to the end
        distance = np.subtract.outer(np.arange(length), np.arange(length))
        weights = np.exp(-(distance**2) / (2 * std**2)) * (abs(distance) <= round(4 * std))
        images = np.tensordot(images, (weights / weights[length // 2].sum()).astype(np.float32), (1, 1))
    return np.moveaxis(images, 1, -1)


def main(config):
    train.require(config, LIMITS)
    train.resolve(config["train"])
    name, root, noise = (config["data"][key] for key in ("name", "root", "noise"))
    digits, test_digits = (data.load(name, split, root=root or None) for split in ("train", "test"))
    require_gray(config, digits)
    clean, clean_test = digits.images / np.float32(255), test_digits.images / np.float32(255)
    draw = lambda images, seed: noise * np.random.default_rng(seed).standard_normal(images.shape, np.float32)
    noisy_test, some = clean_test + draw(clean_test, 0), clean[:500]
    noisy = some + draw(some, 1)
    mean_psnr = lambda output, clean: float(psnr_per_image(output, clean).mean())
    std = max(WIDTHS, key=lambda std: mean_psnr(gaussian_filter(noisy, std), some))
    run = train.Run("autoencoder", config, root=config["runs"], folder=config["folder"])
    fitted = train.fit(
        network(noise=noise, **config["model"]),
        (clean, clean),
        eval_data=(noisy_test, clean_test),
        loss=mean_squared_error,
        metrics={"psnr": PSNR},
        config=config["train"],
        run=run,
    )
    result = {
        "noisy": mean_psnr(noisy_test, clean_test),
        "median filter": mean_psnr(median_filter(noisy_test), clean_test),
        "gaussian filter": mean_psnr(gaussian_filter(noisy_test, std), clean_test),
        "network": fitted.history[-1]["test"]["psnr"],
    }
    for name, value in result.items():
        print(f"{name:16} PSNR {value:5.2f} dB")
    print(fitted.outcome)
    return result


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)

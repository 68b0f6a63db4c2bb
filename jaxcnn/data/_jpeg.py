"""The loss of JPEG compression: quantized DCT coefficients of 8 x 8 blocks. Coding loses nothing and is left out."""

import jax
import jax.numpy as jnp
import numpy as np

# Rows of the tables K.1 (brightness) and K.2 (color) in ITU-T T.81, "Digital compression and coding", 1992.
_BRIGHTNESS = """
16 11 10 16 24 40 51 61        12 12 14 19 26 58 60 55
14 13 16 24 40 57 69 56        14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77      24 35 55 64 81 104 113 92
49 64 78 87 103 121 120 101    72 92 95 98 112 100 103 99
"""
_COLOR = f"""
17 18 24 47 99 99 99 99        18 21 26 66 99 99 99 99
24 26 56 99 99 99 99 99        47 66 99 99 {"99 " * 36}
"""
_TABLES = [np.array(text.split(), int).reshape(8, 8) for text in (_BRIGHTNESS, _COLOR)]
_TO_YCBCR = np.array(  # ITU-R BT.601, for values from 0 to 255, without the offset 128 of Cb and Cr
    [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]]
)


def jpeg(image: jax.Array, quality: int) -> jax.Array:
    """Compress and decompress an image (H, W, 1 or 3) with values from 0 to 1, with a quality from 1 to 100.

    Colors are converted to YCbCr, and Cb and Cr are averaged over 2 x 2 pixels (4:2:0), as is the default of libjpeg.
    """
    height, width, channels = image.shape
    block = 8 if channels == 1 else 16
    padded = jnp.pad(255 * image, [(0, -height % block), (0, -width % block), (0, 0)], "edge")
    if channels == 1:
        y = _quantized(padded[..., 0] - 128, _TABLES[0], quality)[..., None] + 128
        return y[:height, :width] / 255
    to_ycbcr, to_rgb = (jnp.asarray(m.T, image.dtype) for m in (_TO_YCBCR, np.linalg.inv(_TO_YCBCR)))
    planes = jnp.matmul(padded, to_ycbcr, precision="highest")
    rows, columns = padded.shape[0] // 2, padded.shape[1] // 2
    halved = planes[..., 1:].reshape(rows, 2, columns, 2, 2).mean((1, 3))
    colors = [_quantized(halved[..., i], _TABLES[1], quality) for i in range(2)]
    colors = [jax.image.resize(plane, padded.shape[:2], "linear") for plane in colors]
    brightness = _quantized(planes[..., 0] - 128, _TABLES[0], quality) + 128
    rgb = jnp.matmul(jnp.stack([brightness, *colors], -1), to_rgb, precision="highest")
    return rgb[:height, :width] / 255


def dct_matrix() -> np.ndarray:
    """(8, 8): the orthonormal DCT-II of 8 values, one row per frequency."""
    frequency, position = np.arange(8)[:, None], np.arange(8)
    matrix = np.cos(np.pi * frequency * (position + 0.5) / 8) / 2
    matrix[0] /= np.sqrt(2)
    return matrix


def quantization(table: np.ndarray, quality: int) -> np.ndarray:
    """The step of each coefficient. libjpeg scales the tables, which belong to quality 50, in this way."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((table * percent + 50) // 100, 1, 255)


def _quantized(plane: jax.Array, table: np.ndarray, quality: int) -> jax.Array:
    dct = jnp.asarray(dct_matrix(), plane.dtype)
    steps = jnp.asarray(quantization(table, quality), plane.dtype)[None, :, None, :]
    blocks = plane.reshape(plane.shape[0] // 8, 8, plane.shape[1] // 8, 8)
    coefficients = jnp.einsum("ij,ajbk,lk->aibl", dct, blocks, dct, precision="highest")
    rounded = steps * jnp.round(coefficients / steps)
    return jnp.einsum("ij,aibl,lk->ajbk", dct, rounded, dct, precision="highest").reshape(plane.shape)

"""Saves checkpoints until it is killed, each step twice, so that the second replaces the first."""

import sys

import jax.numpy as jnp

from jaxcnn.train import checkpoint

folder, first, keep = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for step in range(first, first + 1000):
    for again in range(2):
        print(f"saving {step}", flush=True)
        checkpoint.save(folder, step, {"w": jnp.full(1000, step), "again": jnp.int32(again)}, keep=keep)

"""Experiments: each file holds a claim, the command that tests it, its config and its code."""

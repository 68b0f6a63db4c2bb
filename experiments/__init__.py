"""Experiments. Each file contains a claim, the command that tests it, its config and its code."""

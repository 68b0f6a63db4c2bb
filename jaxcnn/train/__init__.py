"""Training: one compiled step, evaluation, and what an experiment script needs around them."""

from jaxcnn.train._config import ConfigError as ConfigError
from jaxcnn.train._config import override as override
from jaxcnn.train._config import require as require
from jaxcnn.train._evaluate import evaluate as evaluate
from jaxcnn.train._memory import reuse_memory as reuse_memory
from jaxcnn.train._run import Run as Run
from jaxcnn.train._run import command as command
from jaxcnn.train._step import TrainState as TrainState
from jaxcnn.train._step import make_step as make_step

__all__ = [
    "ConfigError",
    "Run",
    "TrainState",
    "command",
    "evaluate",
    "make_step",
    "override",
    "require",
    "reuse_memory",
]

"""Training: the compiled step, the training loop, evaluation, checkpoints, and `fit`, which combines them."""

from jaxcnn._memory import reuse_memory as reuse_memory
from jaxcnn.train import callbacks as callbacks
from jaxcnn.train import checkpoint as checkpoint
from jaxcnn.train._config import ConfigError as ConfigError
from jaxcnn.train._config import require as require
from jaxcnn.train._ema import ema_params as ema_params
from jaxcnn.train._ema import with_ema as with_ema
from jaxcnn.train._evaluate import evaluate as evaluate
from jaxcnn.train._event import Carry as Carry
from jaxcnn.train._event import Event as Event
from jaxcnn.train._find_learning_rate import LearningRates as LearningRates
from jaxcnn.train._find_learning_rate import find_learning_rate as find_learning_rate
from jaxcnn.train._fit import fit as fit
from jaxcnn.train._guard import NonFiniteError as NonFiniteError
from jaxcnn.train._interrupt import Interrupted as Interrupted
from jaxcnn.train._loop import loop as loop
from jaxcnn.train._optimizer import make_optimizer as make_optimizer
from jaxcnn.train._override import override as override
from jaxcnn.train._predict import predict as predict
from jaxcnn.train._recipe import FIT as FIT
from jaxcnn.train._recipe import resolve as resolve
from jaxcnn.train._result import Best as Best
from jaxcnn.train._result import FitResult as FitResult
from jaxcnn.train._run import Run as Run
from jaxcnn.train._run import command as command
from jaxcnn.train._schedule import make_schedule as make_schedule
from jaxcnn.train._step import TrainState as TrainState
from jaxcnn.train._step import make_step as make_step
from jaxcnn.train._sweep import sweep as sweep
from jaxcnn.train._sweep_result import SweepResult as SweepResult
from jaxcnn.train._sweep_result import SweepRun as SweepRun
from jaxcnn.train._tta import with_tta as with_tta
from jaxcnn.train.checkpoint import CheckpointError as CheckpointError

__all__ = [
    "FIT",
    "Best",
    "Carry",
    "CheckpointError",
    "ConfigError",
    "Event",
    "FitResult",
    "Interrupted",
    "LearningRates",
    "NonFiniteError",
    "Run",
    "SweepResult",
    "SweepRun",
    "TrainState",
    "callbacks",
    "checkpoint",
    "command",
    "ema_params",
    "evaluate",
    "find_learning_rate",
    "fit",
    "loop",
    "make_optimizer",
    "make_schedule",
    "make_step",
    "override",
    "predict",
    "require",
    "resolve",
    "reuse_memory",
    "sweep",
    "with_ema",
    "with_tta",
]

"""Training: a plain loop, exact resume, checkpoints that are whole or not there, averages of every length."""

from .checkpoint import load_weights
from .distributed import Layout, joined
from .ema import Ema, PowerEma, Profile, exponent, factors
from .feed import Feed, Read
from .forecast import Forecast
from .loop import DrawSamples, Fitted, fit
from .loss import LossModule
from .optimizer import Optimizer, learning_rate
from .settings import Precision, Training
from .signals import Stopped
from .snapshots import rebuild

__all__ = [
    "DrawSamples",
    "Ema",
    "Feed",
    "Fitted",
    "Forecast",
    "Layout",
    "LossModule",
    "Optimizer",
    "PowerEma",
    "Precision",
    "Profile",
    "Read",
    "Stopped",
    "Training",
    "exponent",
    "factors",
    "fit",
    "joined",
    "learning_rate",
    "load_weights",
    "rebuild",
]

"""Training: a plain loop, exact resume, checkpoints that are whole or not there, averages of every length."""

from .checkpoint import load_weights
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
    "learning_rate",
    "load_weights",
    "rebuild",
]

"""Guidance: a model in, a model out."""

from .autoguidance import Autoguidance
from .classifier_free import ClassifierFree, ZeroStar
from .interval import Interval
from .told import Told

__all__ = ["Autoguidance", "ClassifierFree", "Interval", "Told", "ZeroStar"]

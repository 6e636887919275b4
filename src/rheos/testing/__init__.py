"""The conformance kit: hand it a part of your own, and it is held against every law that rheos relies on.

Each check returns nothing when the part keeps the laws, and otherwise raises an ``AssertionError`` with one sentence:
which law is broken, at which time, and by how much.

>>> from rheos import schedules, testing
>>> testing.check_schedule(schedules.Cosine())
"""

from .coupling import check_coupling
from .dynamics import check_dynamics
from .guidance import check_guidance
from .model import check_model
from .objective import check_objective
from .path import check_path
from .schedule import check_schedule
from .solver import check_solver, measured_order

__all__ = [
    "check_coupling",
    "check_dynamics",
    "check_guidance",
    "check_model",
    "check_objective",
    "check_path",
    "check_schedule",
    "check_solver",
    "measured_order",
]

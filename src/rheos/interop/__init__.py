"""Models that other libraries trained, as dynamics of this one."""

from .diffusers import Foreign, discrete_schedule, foreign_flow

__all__ = ["Foreign", "discrete_schedule", "foreign_flow"]

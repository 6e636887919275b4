"""Diffusion models of the library diffusers as flows: what their scheduler says, and their network's way to be called.

Nothing of diffusers is imported: a model is called as its library calls it, and a scheduler is read by its ``config``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, final

from torch import Tensor

from ...core import InputError, ShapeError, nearest
from ...core.protocols import Model, Quantity
from ...dynamics import Flow
from ...paths import Affine, as_velocity
from ...schedules import Betas, CosineBetas, Discrete, LinearBetas, ScaledBetas

PREDICTIONS: Mapping[str, Quantity] = {"epsilon": "noise", "v_prediction": "v", "sample": "data"}
"""What a network predicts, by diffusers' name for it."""


@final
@dataclass(frozen=True)
class Foreign:
    """A network of diffusers as one of ours: ``network(x, t, cond)`` calls ``model(x, step, ...)`` and gives the part
    of its output that is like ``x``; a model that learned its variance gives that beside it.

    Args:
        model: ``model(sample, timestep, **conditions)``, such as a ``UNet2DModel``.
        schedule: tells the step, a real number, that stands at a time.
    """

    model: Any
    schedule: Discrete

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """The prediction at states (B, C, ...). A condition is the class of each row, or what the model wants by
        name."""
        given = {} if cond is None else dict(cond) if isinstance(cond, Mapping) else {"class_labels": cond}
        step = self.schedule.step(t).expand(len(x))
        out = self.model(x, step, return_dict=False, **given)[0]
        if out.shape[1] == 2 * x.shape[1]:
            out = out[:, : x.shape[1]]
        if out.shape != x.shape:
            raise ShapeError(
                f"{type(self.model).__name__} gave {tuple(out.shape)} for states {tuple(x.shape)}; a denoiser gives "
                "what is like its input, with its variance beside it or without."
            )
        return out


def foreign_flow(model: Any, scheduler: Any) -> tuple[Flow, Affine]:
    """The flow that a noise-, v- or data-predicting model of diffusers stands for, and the path that it is on.

    Every solver samples the flow, from ``path.prior`` of standard normal noise at t = 0 to data at t = 1, and with
    noise on the way through :class:`~rheos.dynamics.Ancestral` or :class:`~rheos.dynamics.Diffusion`.

    Args:
        model: the network, in evaluation mode.
        scheduler: any scheduler of the model's; its betas and its ``prediction_type`` are what count.

    Raises:
        InputError: if the scheduler is none of a discrete diffusion that is known here.
    """
    schedule = discrete_schedule(scheduler)
    named = scheduler.config.get("prediction_type", "epsilon")
    if named not in PREDICTIONS:
        raise InputError(f"this model predicts {named!r}; {nearest(str(named), PREDICTIONS)}")
    path, predict = Affine(schedule), PREDICTIONS[named]
    velocity: Model = as_velocity(Foreign(model, schedule), path, predict)
    return Flow(velocity, True, partial(path.determined, given=predict)), path


def discrete_schedule(scheduler: Any) -> Discrete:
    """The schedule of a diffusers scheduler, by its configuration.

    Raises:
        InputError: if it has none of the betas that are known here.
    """
    config = scheduler.config
    if "beta_schedule" not in config:
        raise InputError(
            f"{type(scheduler).__name__} is no scheduler of a discrete diffusion: it has no beta_schedule."
        )
    if config.get("trained_betas") is not None or config.get("rescale_betas_zero_snr"):
        raise InputError(
            "betas that were given one by one, or rescaled to end in pure noise, are not known here; take a scheduler "
            "of linear, scaled linear or cosine betas."
        )
    steps = config["num_train_timesteps"]
    ends = {"first": config["beta_start"], "last": config["beta_end"]}
    known: Mapping[str, Betas] = {
        "linear": LinearBetas(steps, **ends),
        "scaled_linear": ScaledBetas(steps, **ends),
        "squaredcos_cap_v2": CosineBetas(steps),
    }
    named = config["beta_schedule"]
    if named not in known:
        raise InputError(f"the betas {named!r} are not known; {nearest(str(named), known)}")
    return Discrete(known[named])

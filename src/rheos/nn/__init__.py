"""Networks: ``net(x, t, cond=None)`` gives an output shaped like the state.

Knows no path and no objective. Any ``torch.nn.Module`` with this signature can stand in for the networks here.
"""

from .dit import DiT
from .embedding import Embedding, sinusoids
from .mlp import MLP
from .presets import adm64, adm128, adm256, dit_b2, dit_l2, dit_s2, dit_xl2
from .unet import UNet
from .weights import parameter_count, seeded

__all__ = [
    "MLP",
    "DiT",
    "Embedding",
    "UNet",
    "adm64",
    "adm128",
    "adm256",
    "dit_b2",
    "dit_l2",
    "dit_s2",
    "dit_xl2",
    "parameter_count",
    "seeded",
    "sinusoids",
]

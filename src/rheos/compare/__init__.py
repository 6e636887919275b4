"""Flow matching beside diffusion, on equal terms: who takes part, what is run, and what is told of it."""

from .claims import TEXTS, Verdict, judged, verdicts
from .contenders import CONTENDERS, Contender, contender
from .page import page
from .scaling import law, scaled
from .study import Study, chosen_rate
from .telling import findings

__all__ = [
    "CONTENDERS",
    "TEXTS",
    "Contender",
    "Study",
    "Verdict",
    "chosen_rate",
    "contender",
    "findings",
    "judged",
    "law",
    "page",
    "scaled",
    "verdicts",
]

"""The command line: ``rheos train``, ``sample``, ``evaluate``, ``compare``, ``plan``, ``doctor``.

Exit codes: 0 done; 2 the request cannot be met, with one sentence on standard error; 130 stopped by Ctrl-C and 143 by
SIGTERM, with everything saved.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .main import main

__all__ = ["main", "run"]


def run(argv: Sequence[str] | None = None) -> None:
    """Run a command and end the process with its exit code."""
    sys.exit(main(argv))

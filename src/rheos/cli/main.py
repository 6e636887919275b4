"""One command, and the exit code that its end deserves."""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ..core import RheosError
from ..training import Stopped
from .compare import compare
from .distill import distill
from .doctor import doctor
from .evaluate import evaluate
from .parser import parse
from .plan import plan
from .sample import sample
from .train import train

RUN: Mapping[str, Callable[..., int]] = {
    "train": train,
    "sample": sample,
    "evaluate": evaluate,
    "compare": compare,
    "plan": plan,
    "distill": distill,
    "doctor": doctor,
}

MENDABLE = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EEXIST,
        errno.EFBIG,
        errno.EIO,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)
"""What the system may say of a file that a user can mend."""

SOURCE = str(Path(__file__).resolve().parents[1])


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; what a user can mend is one sentence and code 2, not a traceback."""
    logging.basicConfig(format="rheos: %(message)s", level=logging.WARNING, force=True)
    with warnings.catch_warnings():
        warnings.showwarning = _one_line(warnings.showwarning)
        return _answer(argv)


def _answer(argv: Sequence[str] | None) -> int:
    try:
        args = parse(argv)
        code = RUN[args.command](args)
        # A reader that is gone is noticed when the text leaves, and that should not be at the very end.
        sys.stdout.flush()
        return code
    except Stopped as stop:
        return _say(stop, stop.code)
    except KeyboardInterrupt:
        return _say("stopped by Ctrl-C.", 130)
    except BrokenPipeError:
        # A second error at exit would only confuse.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RheosError as error:
        return _say(error, 2)
    except torch.OutOfMemoryError as error:
        return _say(f"the device has too little memory; give a smaller --batch ({error}).", 2)
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        return _say(f"{error.filename or 'a file'} cannot be read or written: {error.strerror}.", 2)


def _say(message: object, code: int) -> int:
    """One line on standard error, whatever the message looks like; gives back the code."""
    with suppress(BrokenPipeError):
        print("rheos:", " ".join(str(message).split()), file=sys.stderr, flush=True)
    return code


def _one_line(former: Callable[..., Any]) -> Callable[..., Any]:
    """A way to show warnings: rheos's own as a line without code, others as before."""

    def show(message: Warning | str, category: type[Warning], filename: str, *rest: Any, **more: Any) -> None:
        if filename.startswith(SOURCE + os.sep):
            _say(message, 0)
        else:
            former(message, category, filename, *rest, **more)

    return show

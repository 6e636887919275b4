"""One command, and the exit code that its end deserves."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Sequence

from ..core import RheosError
from ..training import Stopped
from .doctor import doctor
from .evaluate import evaluate
from .parser import parse
from .sample import sample
from .train import train


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; what a user can mend is one sentence and code 2, not a traceback."""
    args = parse(argv)
    logging.basicConfig(format="rheos: %(message)s", level=logging.WARNING, force=True)
    try:
        match args.command:
            case "train":
                return train(args)
            case "sample":
                return sample(args)
            case "evaluate":
                return evaluate(args)
            case _:
                return doctor()
    except Stopped as stop:
        return stop.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output is gone; a second error at exit would only confuse.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RheosError as error:
        print(f"rheos: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EISDIR):
            raise
        print(f"rheos: {error.filename or 'a file'} cannot be written or read: {error.strerror}.", file=sys.stderr)
        return 2

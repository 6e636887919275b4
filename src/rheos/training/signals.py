"""Ctrl-C and SIGTERM ask the loop to save at the end of the step and to stop; a second Ctrl-C stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import final


@final
class Stopped(Exception):  # noqa: N818 - it is no error
    """Training was asked to stop, and everything is saved.

    Attributes:
        code: the exit code: 130 for Ctrl-C, 143 for SIGTERM.
        step: the step that was saved.
    """

    def __init__(self, code: int, step: int) -> None:
        super().__init__(f"stopped after step {step}; everything is saved, and the same command goes on from there.")
        self.code, self.step = code, step


@final
class Interrupt:
    """Within its block, the two signals set :attr:`code` instead of ending the program. Elsewhere than in the main
    thread, where Python takes no signals, it does nothing."""

    def __init__(self) -> None:
        self.code = 0
        self._former: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.code == 128 + signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.code = 128 + number

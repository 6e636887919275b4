"""Commands run in this process, tiny runs that tests copy, and the two ways in which a command may end."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from rheos.cli import main


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Commands:
    """Runs commands as the script would, and says how they ended."""

    small = ("--steps", "20", "--batch", "32", "--width", "8", "--checkpoint-every", "10", "--sample-every", "0")

    def __call__(self, *words: object) -> Ended:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(word) for word in words])
        return Ended(code, out.getvalue(), err.getvalue())

    def done(self, *words: object) -> Ended:
        """A command that must succeed."""
        ended = self(*words)
        assert ended.code == 0, ended.err
        return ended

    def refused(self, *words: object) -> str:
        """A command that must be refused: one line on standard error and code 2. Gives the line."""
        ended = self(*words)
        assert ended.code == 2, ended
        assert ended.err.startswith("rheos: ")
        assert ended.err.count("\n") == 1, ended.err
        assert "Traceback" not in ended.err
        return ended.err.strip()

    @staticmethod
    def prints(folder: Path) -> dict[str, str]:
        """The SHA-256 sum of every file under a folder."""
        return {
            str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """A command sets up logging for a process of its own; the tests share one."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def rheos() -> Commands:
    return Commands()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A finished run by the words of its command, trained once."""
    made: dict[tuple[str, ...], Path] = {}

    def run(*words: str) -> Path:
        if words not in made:
            folder = tmp_path_factory.mktemp("run") / words[0].replace(":", ".")
            Commands().done("train", *words, *Commands.small, "--out", folder)
            made[words] = folder
        return made[words]

    return run


@pytest.fixture
def toy(trained: Callable[..., Path], tmp_path: Path) -> Path:
    """A run on points of the plane, to be changed at will."""
    return shutil.copytree(trained("toy"), tmp_path / "toy")


@pytest.fixture
def digits(trained: Callable[..., Path], tmp_path: Path) -> Path:
    """A run on digits, to be changed at will."""
    return shutil.copytree(trained("images", "--net", "mlp"), tmp_path / "digits")

"""How commands end: one sentence for what a user can mend, a traceback for what only we can, and every exit code."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import rheos.cli.main  # noqa: F401 - the module, which the function of its name hides
from rheos import __version__
from rheos.core import InputError

COMMAND = sys.modules["rheos.cli.main"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("trian",), "there is no command 'trian'; did you mean 'train'?"),
        (("--verison",), "required: COMMAND"),
        (("train",), "required: RECIPE"),
        (("train", "imagse"), "there is no recipe 'imagse'; did you mean 'images'?"),
        (("train", "toy", "--stpes", 3), "cannot use '--stpes'; did you mean --steps?"),
        (("train", "toy", "--stpes=3"), "cannot use '--stpes'; did you mean --steps?"),
        (("train", "toy", "--step", 3), "cannot use '--step'; did you mean --steps?"),
        (("train", "toy", "--zzz"), "cannot use '--zzz'; `rheos train --help` lists"),
        (("train", "toy", "moons"), "cannot use 'moons'"),
        (("train", "toy", "--steps"), "expected one argument"),
        (("train", "toy", "--steps", "many"), "invalid int value: 'many'"),
        (("train", "toy", "--steps", 0), "steps must be an integer of at least 1, got 0"),
        (("train", "toy", "--steps", -1), "steps must be an integer of at least 1, got -1"),
        (("train", "toy", "--batch", 0), "batch must be"),
        (("train", "toy", "--learning-rate", 0), "learning_rate must be positive"),
        (("train", "toy", "--learning-rate", "nan"), "learning_rate must be positive"),
        (("train", "toy", "--drop", 1), "drop must be in [0, 1)"),
        (("train", "toy", "--width", 0), "width of at least 1"),
        (("train", "toy", "--precision", "float61"), "invalid choice: 'float61'"),
        (("train", "toy", "--data", "monos"), "no toy distribution 'monos'; did you mean 'moons'?"),
        (("train", "toy", "--size", 8), "the recipe 'toy' has no --size"),
        (("train", "toy", "--net", "unet"), "learned by an MLP"),
        (("train", "toy", "--path", "linaer"), "there is no path 'linaer'; did you mean 'linear'?"),
        (("train", "toy", "--coupling", "to"), "there is no coupling 'to'; did you mean 'ot'?"),
        (("train", "toy", "--predict", "velocty"), "did you mean 'velocity'?"),
        (("train", "toy", "--times", "unifrom"), "did you mean 'uniform'?"),
        (("train", "toy", "--weight", "minsnr"), "did you mean 'min-snr'?"),
        (("train", "toy", "--loss", "hubber"), "did you mean 'pseudo-huber'?"),
        (("train", "images", "--net", "uent"), "did you mean 'unet'?"),
        (("train", "images", "--size", 16), "8 x 8"),
        (("train", "images", "--width", 7), "even, got 7"),
        (("train", "toy", "--device", "gpu"), "there is no device 'gpu'"),
        (("train", "none_such.module:f"), "cannot be imported: No module named 'none_such'"),
        (("train", "math:nothing"), "cannot be imported"),
        (("train", "math:pi"), "must be a function that returns a Recipe"),
        (("train", "math:sqrt"), "called with no more than the options given"),
        (("train", ":f"), "package.module:function"),
        (("train", "math:"), "package.module:function"),
        (("train", ".math:sqrt"), "package.module:function"),
    ],
)
def test_what_cannot_be_met(rheos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: Any, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert said in rheos.refused(*words)
    assert list(tmp_path.iterdir()) == []


def test_doctor(rheos: Any) -> None:
    ended = rheos.done("doctor")
    assert ended.out.startswith(f"rheos {__version__}")
    assert torch.__version__ in ended.out
    assert "all that is required is there" in ended.out


def test_version(capsys: pytest.CaptureFixture[str], rheos: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        COMMAND.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"rheos {__version__}\n"


class Disk:
    """A disk that is full from now on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch

    def fill(self) -> None:
        def full(*what: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch.setattr(os, "fsync", full)
        self.patch.setattr(os, "replace", full)


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "digits", "--out", "x.npz"),
        ("sample", "digits", "--out", "x.png"),
        ("sample", "digits", "--out", "x"),
        ("sample", "toy", "--out", "x.csv"),
        ("sample", "toy", "--out", "x.npz"),
        ("sample", "toy"),
        ("evaluate", "toy", "--n", "20"),
        ("train", "toy", "--out", "new", "--width", "8"),
    ],
)
def test_a_full_disk(
    rheos: Any, toy: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    rheos.done("sample", "toy")
    rheos.done("evaluate", "toy", "--n", 10)
    before = rheos.prints(tmp_path)
    with monkeypatch.context() as patch:
        Disk(patch).fill()
        ended = rheos(*words)
    assert ended.code == 2
    (said,) = ended.err.splitlines()
    assert said.startswith("rheos: ")
    assert "disk is full" in said or "No space left" in said
    assert rheos.prints(tmp_path) == before


def test_a_disk_that_fills_up_while_training(
    rheos: Any, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rheos.prints(toy / "checkpoints")
    shutil.rmtree(toy / "checkpoints" / "step-000020")
    before = rheos.prints(toy / "checkpoints")
    with monkeypatch.context() as patch:
        Disk(patch).fill()
        ended = rheos("train", "toy", "--out", toy)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert ended.err.splitlines()[-1].startswith("rheos: ")
    assert rheos.prints(toy / "checkpoints") == before
    rheos.done("train", "toy", "--out", toy)
    assert rheos.prints(toy / "checkpoints") == whole


def ending_with(error: BaseException, patch: pytest.MonkeyPatch) -> None:
    def fail(args: Any) -> int:
        raise error

    patch.setattr(COMMAND, "RUN", {"doctor": fail})


@pytest.mark.parametrize(
    "error",
    [
        KeyError("a bug"),
        RuntimeError("a bug"),
        AssertionError("a bug"),
        ValueError("a bug"),
        ImportError("a bug"),
        OSError(errno.EBADF, "a bug"),
        SystemExit(5),
    ],
)
def test_our_own_faults_are_not_swallowed(rheos: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    ending_with(error, monkeypatch)
    with pytest.raises(type(error)) as caught:
        rheos("doctor")
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("one\n  two."), 2, "rheos: one two.\n"),
        (KeyboardInterrupt(), 130, "rheos: stopped by Ctrl-C.\n"),
        (PermissionError(errno.EACCES, "Permission denied", "x.png"), 2, "rheos: x.png cannot be read or written"),
        (torch.OutOfMemoryError("CUDA out of memory."), 2, "rheos: the device has too little memory; give a smaller"),
    ],
)
def test_what_ends_in_a_sentence(
    rheos: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    ending_with(error, monkeypatch)
    ended = rheos("doctor")
    assert ended.code == code
    assert ended.err.startswith(said)
    assert ended.err.count("\n") == 1


def test_a_reader_that_leaves_is_no_fault() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "rheos", "doctor"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Buffered, as output into a pipe is: then the fault shows only when the text leaves.
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    assert process.wait(120) == 0
    assert said == b""
    process.stderr.close()


def test_a_signal_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """Both signals at once, to two runs."""
    words = [sys.executable, "-m", "rheos", "train", "toy", "--steps", "100000", "--batch", "8", "--width", "8"]
    # So rarely saved that only the signal can have written what is found.
    words += ["--checkpoint-every", "90000", "--sample-every", "0"]
    wanted = {signal.SIGINT: 130, signal.SIGTERM: 143}
    running = {
        number: subprocess.Popen([*words, "--out", str(tmp_path / str(code))], stderr=subprocess.PIPE, text=True)
        for number, code in wanted.items()
    }
    deadline = time.monotonic() + 120
    for number, process in running.items():
        journal = tmp_path / str(wanted[number]) / "metrics.jsonl"
        while not (journal.exists() and journal.read_bytes()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
    for number, process in running.items():
        _, said = process.communicate(timeout=60)
        assert process.returncode == wanted[number], said
        last = said.splitlines()[-1]
        assert last.startswith("rheos: stopped after step ")
        assert last.endswith("everything is saved, and the same command goes on from there.")
        step = int(last.split()[4].rstrip(";"))
        assert 0 < step < 90_000
        assert (tmp_path / str(wanted[number]) / "checkpoints" / f"step-{step:06d}" / "MANIFEST.json").exists()

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

from rheos.core import DataError, InputError, RheosError, Rng
from rheos.data import Batches, Shuffled, Tensors, moons, open_images


def toy(count=23):
    return Tensors(moons(count, Rng(0)), torch.arange(count))


def equal(one, other):
    assert one.step == other.step
    assert torch.equal(one.x, other.x)
    assert (one.cond is None) == (other.cond is None)
    assert one.cond is None or torch.equal(one.cond, other.cond)
    assert torch.equal(one.draw.index, other.draw.index)
    assert torch.equal(one.draw.key, other.draw.key)
    assert torch.equal(one.rows, other.rows)
    return True


def test_an_epoch_meets_every_datum_once_across_batches():
    data = toy()
    labels = torch.cat([batch.cond for batch in Batches(data, Shuffled(23), 0, 4, stop=23)])
    epochs = labels.view(4, 23).sort(1).values
    assert torch.equal(epochs, torch.arange(23).expand(4, 23))


def test_values_conditions_and_rows_belong_together():
    data = toy()
    for batch in Batches(data, Shuffled(23), 0, 4, start=3, stop=9):
        assert torch.equal(batch.x, data.x[batch.cond])
        assert torch.equal(batch.cond, batch.draw.index)
        assert batch.rows.tolist() == list(range(4 * batch.step, 4 * batch.step + 4))


def test_resuming_amid_an_epoch():
    order = Shuffled(23)
    whole = list(Batches(toy(), order, 7, 4, stop=15))
    rest = list(Batches(toy(), order, 7, 4, start=6, stop=15))
    assert len(rest) == 9
    assert all(equal(a, b) for a, b in zip(whole[6:], rest, strict=True))
    assert equal(Batches(toy(), order, 7, 4).at(11), whole[11])


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_read_what_one_reads(world):
    order = Shuffled(23)
    alone = Batches(toy(), order, 1, 6)
    ranks = [Batches(toy(), order, 1, 6, rank=rank, world=world) for rank in range(world)]
    for step in range(8):
        shares = [batches.at(step) for batches in ranks]
        assert all(len(share.x) == 6 // world for share in shares)
        assert torch.equal(torch.cat([share.x for share in shares]), alone.at(step).x)
        assert torch.equal(torch.cat([share.rows for share in shares]), alone.at(step).rows)
        assert torch.equal(torch.cat([share.draw.key for share in shares]), alone.at(step).draw.key)


def test_workers_change_nothing_and_read_no_global_generator(classes):
    for data in (open_images(classes, cache_bytes=0), toy(12)):
        inline = list(Batches(data, Shuffled(12), 3, 5, start=1, stop=8))
        state = torch.random.get_rng_state()
        handler = signal.getsignal(signal.SIGCHLD)
        apart = list(Batches(data, Shuffled(12), 3, 5, start=1, stop=8, workers=2))
        assert torch.equal(torch.random.get_rng_state(), state)
        assert signal.getsignal(signal.SIGCHLD) is handler
        assert [batch.step for batch in apart] == list(range(1, 8))
        assert all(equal(a, b) for a, b in zip(inline, apart, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_without_stop_there_is_no_end(workers):
    batches = iter(Batches(toy(), Shuffled(23), 0, 4, workers=workers))
    assert [next(batches).step for _ in range(30)] == list(range(30))


class Parent:
    """Data that tell who reads them."""

    def __len__(self):
        return 10

    def take(self, index):
        return torch.full((len(index),), os.getpid()), None


def test_a_killed_worker_is_reported():
    batches = iter(Batches(Parent(), Shuffled(10), 0, 2, workers=1))
    worker = int(next(batches).x[0])
    assert worker != os.getpid()
    os.kill(worker, signal.SIGKILL)
    time.sleep(0.2)  # the death is told at the next read, and never in between

    def drain():
        for _ in range(10):
            next(batches)

    with pytest.raises(RheosError, match=r"a data worker died .* 0 to work in the training process"):
        drain()


STOPPED = """
import os, signal, torch
from rheos.data import Batches, Shuffled, Tensors

def main():
    heard = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, frame: heard.append(number))
    batches = iter(Batches(Tensors(torch.zeros(8, 2)), Shuffled(8), 0, 2, workers=2))
    next(batches)
    next(batches)
    for name in (signal.SIGINT, signal.SIGTERM):
        os.killpg(0, name)
    for _ in range(20):
        next(batches)
    print(len(heard), "heard")
    return batches

kept = main()
"""


def test_workers_leave_signals_to_the_trainer_and_end_with_it():
    done = subprocess.run(
        [sys.executable, "-c", STOPPED], start_new_session=True, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "2 heard\n"), done.stderr


def test_a_failure_ends_the_workers_at_once(classes):
    images = open_images(classes, cache_bytes=0)
    for file in classes.rglob("*.png"):
        file.unlink()
    before = set(multiprocessing.active_children())
    with pytest.raises(DataError) as caught:
        next(iter(Batches(images, Shuffled(12), 0, 4, workers=2)))
    assert set(multiprocessing.active_children()) == before
    assert caught.value is not None


@pytest.mark.parametrize("workers", [0, 1])
def test_a_lost_file_is_one_clear_sentence(classes, workers):
    images = open_images(classes, cache_bytes=0)
    Image.new("L", (8, 8)).save(classes / "ant" / "0.png")
    (classes / "bee" / "1.png").write_bytes(b"gone")
    with pytest.raises(DataError, match=r"^bee/1\.png was readable and no longer is: [^\n]*$"):
        list(Batches(images, Shuffled(12), 0, 4, stop=3, workers=workers))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch": 0}, "batch >= 1"),
        ({"start": -1}, "start >= 0"),
        ({"workers": -1}, "workers >= 0"),
        ({"rank": 2, "world": 2}, "rank 2 of 2"),
        ({"rank": -1}, "rank -1"),
        ({"world": 3}, "4 cannot be shared equally by 3"),
    ],
)
def test_bad_arguments(given, message):
    with pytest.raises(InputError, match=message):
        Batches(**{"dataset": toy(), "order": Shuffled(23), "seed": 0, "batch": 4, **given})

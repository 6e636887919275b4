"""The Inception network of the FID, for a user's weight file.

The Frechet distance is called FID only on the 2,048 pooled features of the Inception-v3 that Heusel et al. (2017) used
(TensorFlow's of 2015-12-05). It differs from the published Inception-v3 (Szegedy et al. 2016) in its pooling:
averages leave the padding out, and the last block takes a maximum. No weights come with rheos and none are fetched;
the file that the package pytorch-fid distributes, ``pt_inception-2015-12-05-6726825d.pth``, fits, as it is or
converted to safetensors.

Blocks are written as tables: a branch is a chain of convolutions (name, channels, kernel, stride), a tuple inside a
chain is a fork, whose ends are concatenated. Names are the weight file's. 23,850,960 parameters, 2,065,392 of them in
the head of 1,008 classes, which the FID does not use.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, final

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

from ..core import CheckpointError
from .features import FeatureExtractor, batched, check_images, digest

FEATURES = 2048
CLASSES = 1008
SIDE = 299
"""The side to which images are resized before the first convolution."""

INCEPTION_BATCH = 50
"""Images at once: at 299 x 299 a batch of 500 would take gigabytes."""

Kernel = tuple[int, int]


class Step(NamedTuple):
    """One convolution with batch norm and ReLU; sides are kept unless the stride is 2, which pads nothing."""

    name: str
    channels: int
    kernel: Kernel = (1, 1)
    stride: int = 1


Chain = tuple[Step | tuple[Step, ...], ...]


@final
class Convolution(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, into: int, out: int, kernel: Kernel, stride: int, padding: Kernel) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


@final
class Mixed(nn.Module):
    """Parallel chains and a pool, concatenated. ``after`` is a convolution behind the pool."""

    def __init__(
        self, into: int, chains: tuple[Chain, ...], pool: Callable[[Tensor], Tensor], after: int | None = None
    ) -> None:
        super().__init__()
        self.chains, self.pool, self.out = chains, pool, 0
        for chain in chains:
            channels = into
            for link in chain:
                steps = (link,) if isinstance(link, Step) else link
                for step in steps:
                    padding = (step.kernel[0] // 2, step.kernel[1] // 2) if step.stride == 1 else (0, 0)
                    layer = Convolution(channels, step.channels, step.kernel, step.stride, padding)
                    self.add_module(step.name, layer)
                channels = sum(step.channels for step in steps)
            self.out += channels
        self.branch_pool = None if after is None else Convolution(into, after, (1, 1), 1, (0, 0))
        self.out += into if after is None else after

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(x)
        last = pooled if self.branch_pool is None else self.branch_pool(pooled)
        return torch.cat([*(self._follow(chain, x) for chain in self.chains), last], 1)

    def _follow(self, chain: Chain, x: Tensor) -> Tensor:
        for link in chain:
            if isinstance(link, Step):
                x = self.get_submodule(link.name)(x)
            else:
                x = torch.cat([self.get_submodule(step.name)(x) for step in link], 1)
        return x


def _average(x: Tensor) -> Tensor:
    return avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _maximum(x: Tensor) -> Tensor:
    return max_pool2d(x, 3, stride=1, padding=1)


def _halve(x: Tensor) -> Tensor:
    return max_pool2d(x, 3, stride=2)


def _block_a(into: int, after: int) -> Mixed:
    chains = (
        (Step("branch1x1", 64),),
        (Step("branch5x5_1", 48), Step("branch5x5_2", 64, (5, 5))),
        (Step("branch3x3dbl_1", 64), Step("branch3x3dbl_2", 96, (3, 3)), Step("branch3x3dbl_3", 96, (3, 3))),
    )
    return Mixed(into, chains, _average, after)


def _block_b(into: int) -> Mixed:
    chains = (
        (Step("branch3x3", 384, (3, 3), 2),),
        (Step("branch3x3dbl_1", 64), Step("branch3x3dbl_2", 96, (3, 3)), Step("branch3x3dbl_3", 96, (3, 3), 2)),
    )
    return Mixed(into, chains, _halve)


def _block_c(into: int, inner: int) -> Mixed:
    chains = (
        (Step("branch1x1", 192),),
        (Step("branch7x7_1", inner), Step("branch7x7_2", inner, (1, 7)), Step("branch7x7_3", 192, (7, 1))),
        (
            Step("branch7x7dbl_1", inner),
            Step("branch7x7dbl_2", inner, (7, 1)),
            Step("branch7x7dbl_3", inner, (1, 7)),
            Step("branch7x7dbl_4", inner, (7, 1)),
            Step("branch7x7dbl_5", 192, (1, 7)),
        ),
    )
    return Mixed(into, chains, _average, 192)


def _block_d(into: int) -> Mixed:
    chains = (
        (Step("branch3x3_1", 192), Step("branch3x3_2", 320, (3, 3), 2)),
        (
            Step("branch7x7x3_1", 192),
            Step("branch7x7x3_2", 192, (1, 7)),
            Step("branch7x7x3_3", 192, (7, 1)),
            Step("branch7x7x3_4", 192, (3, 3), 2),
        ),
    )
    return Mixed(into, chains, _halve)


def _block_e(into: int, pool: Callable[[Tensor], Tensor]) -> Mixed:
    chains = (
        (Step("branch1x1", 320),),
        (
            Step("branch3x3_1", 384),
            (Step("branch3x3_2a", 384, (1, 3)), Step("branch3x3_2b", 384, (3, 1))),
        ),
        (
            Step("branch3x3dbl_1", 448),
            Step("branch3x3dbl_2", 384, (3, 3)),
            (Step("branch3x3dbl_3a", 384, (1, 3)), Step("branch3x3dbl_3b", 384, (3, 1))),
        ),
    )
    return Mixed(into, chains, pool, 192)


@final
class InceptionNetwork(nn.Module):
    """The FID Inception-v3: images ``(N, 3, 299, 299)`` in [-1, 1] to pooled features ``(N, 2048)``."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, (3, 3), 2, (0, 0))
        self.Conv2d_2a_3x3 = Convolution(32, 32, (3, 3), 1, (0, 0))
        self.Conv2d_2b_3x3 = Convolution(32, 64, (3, 3), 1, (1, 1))
        self.Conv2d_3b_1x1 = Convolution(64, 80, (1, 1), 1, (0, 0))
        self.Conv2d_4a_3x3 = Convolution(80, 192, (3, 3), 1, (0, 0))
        self.Mixed_5b = _block_a(192, 32)
        self.Mixed_5c = _block_a(256, 64)
        self.Mixed_5d = _block_a(288, 64)
        self.Mixed_6a = _block_b(288)
        self.Mixed_6b = _block_c(768, 128)
        self.Mixed_6c = _block_c(768, 160)
        self.Mixed_6d = _block_c(768, 160)
        self.Mixed_6e = _block_c(768, 192)
        self.Mixed_7a = _block_d(768)
        self.Mixed_7b = _block_e(1280, _average)
        self.Mixed_7c = _block_e(FEATURES, _maximum)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = _halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_halve(x))))
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean((2, 3))


@final
class Inception:
    """The FID's feature extractor with a user's weights; made by :func:`load_inception`. Named ``inception-<hash>``.

    Images ``(N, 1 or 3, H, W)`` in [-1, 1] are resized to 299 x 299 (bilinear); grey ones are repeated thrice.
    """

    def __init__(self, network: InceptionNetwork) -> None:
        self.network = network.eval()
        self.name = f"inception-{digest(network.state_dict())}"

    def __call__(self, images: Tensor) -> Tensor:
        check_images(images, 1 if images.dim() == 4 and images.shape[1] == 1 else 3, 1)
        return batched(self._features, images, INCEPTION_BATCH)

    def _features(self, images: Tensor) -> Tensor:
        images = images.to(self.network.fc.weight.device).expand(-1, 3, -1, -1)
        if images.shape[2:] != (SIDE, SIDE):
            images = interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        return self.network(images)


def load_inception(path: str | Path) -> Inception:
    """The FID extractor from a file of weights, ``.safetensors`` or ``.pt`` (tensors only: no code runs).

    Raises:
        CheckpointError: if the file is missing, unreadable, or not of the FID Inception's layout.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"cannot read Inception weights from {path}: {error}") from error
    # Built without memory, because its random weights would be replaced at once.
    with torch.device("meta"):
        network = InceptionNetwork()
    wanted = network.state_dict()
    wrong = _misfits(state, {key: tuple(value.shape) for key, value in wanted.items()})
    if wrong:
        raise CheckpointError(
            f"{path} does not hold the FID Inception's weights: {len(wrong)} entries are missing, foreign or of "
            f"another shape, {wrong[0]!r} first; give pt_inception-2015-12-05-6726825d.pth or its safetensors copy."
        )
    # Files converted from TensorFlow count no batches; evaluation reads no count.
    counts = {key: torch.zeros((), dtype=torch.int64) for key in wanted if key.endswith("num_batches_tracked")}
    network.load_state_dict({**counts, **state}, assign=True)
    return Inception(network.requires_grad_(False))


def _misfits(state: object, wanted: dict[str, tuple[int, ...]]) -> list[str]:
    """The names that are missing, foreign, or of another shape."""
    if not isinstance(state, dict):
        return [type(state).__name__]
    found = {str(key): tuple(value.shape) for key, value in state.items() if isinstance(value, Tensor)}
    foreign = [str(key) for key in state if found.get(str(key)) != wanted.get(str(key), ())]
    return foreign + [key for key in wanted if key not in found and not key.endswith("num_batches_tracked")]


def frechet_name(extractor: FeatureExtractor) -> str:
    """What the Frechet distance on an extractor is called: "FID" on :class:`Inception`, else by its extractor."""
    return "FID" if isinstance(extractor, Inception) else f"Frechet distance ({extractor.name})"

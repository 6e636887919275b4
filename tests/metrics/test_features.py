"""Extractors: fixed features, and the FID Inception's layout, shapes and name."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from rheos.core import CheckpointError, Rng, ShapeError
from rheos.metrics import (
    InceptionNetwork,
    RandomFeatures,
    Values,
    frechet_distance,
    frechet_name,
    load_inception,
)


@pytest.fixture(scope="module")
def network() -> InceptionNetwork:
    """The FID Inception with random weights and running statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = InceptionNetwork()
    for index, (name, value) in enumerate(network.state_dict().items()):
        if name.endswith("running_mean"):
            value.copy_(0.1 * Rng(index).normal(*value.shape))
    return network.eval()


def test_values_are_the_numbers() -> None:
    images = Rng(0).normal(4, 3, 2, 2)
    assert torch.equal(Values()(images), images.reshape(4, 12))


def test_random_features_are_fixed_by_their_rng() -> None:
    images = Rng(0).normal(9, 1, 8, 8)
    first, second, other = RandomFeatures(1, 5), RandomFeatures(1, 5), RandomFeatures(1, 6)
    features = first(images)
    assert features.shape == (9, 256)
    assert torch.equal(second(images), features)
    assert first.name == second.name != other.name
    assert first.name.startswith("random-cnn-")
    torch.testing.assert_close(first(images[3:5]), features[3:5], rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeError, match=r"\(N, 1, H, W\)"):
        first(images.expand(9, 3, 8, 8))


def test_random_features_see_structure_that_single_pixels_hide() -> None:
    extract = RandomFeatures(1, 0)
    noise = Rng(0).normal(600, 1, 8, 8).tanh()
    other = Rng(1).normal(300, 1, 8, 8).tanh()
    stripes = torch.cat([other[..., ::2, :], other[..., ::2, :]], 2)[..., [0, 4, 1, 5, 2, 6, 3, 7], :]
    floor = frechet_distance(extract(noise[:300]), extract(noise[300:]))
    assert frechet_distance(extract(noise[:300]), extract(other)) < 2 * floor
    assert frechet_distance(extract(noise[:300]), extract(stripes)) > 3 * floor


def test_inception_has_the_published_size(network: InceptionNetwork) -> None:
    assert sum(value.numel() for value in network.parameters()) == 23_850_960
    state = network.state_dict()
    assert len([name for name in state if name.endswith("conv.weight")]) == 94
    shapes = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6c.branch7x7dbl_2.conv.weight": (160, 160, 7, 1),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch3x3dbl_3b.bn.running_var": (384,),
        "Mixed_7c.branch_pool.conv.weight": (192, 2048, 1, 1),
        "fc.weight": (1008, 2048),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_inception_from_a_file(network: InceptionNetwork, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{ending}"
    # The distributed file counts no batches.
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    if ending == "pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    extractor = load_inception(path)
    assert frechet_name(extractor) == "FID"
    images = Rng(0).uniform(2, 3, 299, 299) * 2 - 1
    with torch.no_grad():
        assert torch.equal(extractor(images), network(images))
    grey = extractor(images[:, :1, :32, :32])
    assert grey.shape == (2, 2048)
    assert torch.equal(grey, extractor(images[:, :1, :32, :32].expand(-1, 3, -1, -1)))


def test_pools_of_the_fid_variant(network: InceptionNetwork) -> None:
    ones = torch.ones(1, 1, 5, 5)
    # Averages leave the padding out: a constant stays constant at the border.
    assert torch.equal(network.Mixed_5b.pool(ones), ones)
    assert torch.equal(network.Mixed_7b.pool(ones), ones)
    spike = torch.zeros(1, 1, 5, 5)
    spike[..., 2, 2] = 1.0
    assert float(network.Mixed_7b.pool(spike).max()) == pytest.approx(1 / 9)
    assert float(network.Mixed_7c.pool(spike).sum()) == 9.0


def test_what_is_no_inception_is_refused(network: InceptionNetwork, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot read"):
        load_inception(tmp_path / "missing.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"not a file of tensors")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_inception(tmp_path / "junk.safetensors")
    (tmp_path / "junk.pth").write_bytes(b"not a file of tensors")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_inception(tmp_path / "junk.pth")
    torch.save(network, tmp_path / "code.pth")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_inception(tmp_path / "code.pth")
    state = network.state_dict()
    state["fc.bias"] = torch.zeros(1000)
    safetensors.torch.save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"1 entries.*fc\.bias"):
        load_inception(tmp_path / "other.safetensors")


def test_figures_bear_the_name_of_their_extractor() -> None:
    assert frechet_name(Values()) == "Frechet distance (values)"
    assert frechet_name(RandomFeatures(1, 0)).startswith("Frechet distance (random-cnn-")

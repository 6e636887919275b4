"""What every network keeps, whatever its inside."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from rheos.core import InputError, Rng, ShapeError, drop, null
from rheos.nn import MLP, DiT, UNet, seeded

B, K, D = 6, 5, 3

BUILDS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda **kw: MLP(7, 32, 3, **kw), (7,)),
    "mlp of images": (lambda **kw: MLP((2, 3, 4), 32, 2, **kw), (2, 3, 4)),
    "unet": (lambda **kw: UNet(2, 16, (1, 2), 1, (2,), **kw), (2, 8, 4)),
    "unet on patches": (lambda **kw: UNet(1, 16, (1, 2), 1, patch=2, **kw), (1, 28, 28)),
    "dit": (lambda **kw: DiT(2, (4, 8), 2, 32, 2, 4, **kw), (2, 4, 8)),
    "dit without qk-norm": (lambda **kw: DiT(1, 4, 2, 32, 2, 4, qk_norm=False, **kw), (1, 4, 4)),
}


@pytest.fixture(params=BUILDS.values(), ids=BUILDS.keys())
def build(request: pytest.FixtureRequest) -> Callable[..., tuple[nn.Module, Tensor]]:
    """A network with its zeros woken, and a batch of states for it."""

    def make(**knobs: object) -> tuple[nn.Module, Tensor]:
        network, shape = request.param
        with seeded(0):
            net = network(**knobs)
        return wake(net), Rng(1).normal(B, *shape)

    return make


def wake(net: nn.Module) -> nn.Module:
    """Perturb every parameter, so that no layer is zero."""
    with torch.no_grad():
        for place, parameter in enumerate(net.parameters()):
            parameter.add_(0.1 * Rng(2).fold(place).normal(*parameter.shape))
    return net


@pytest.mark.parametrize(("network", "shape"), BUILDS.values(), ids=BUILDS.keys())
def test_a_fresh_network_gives_exactly_zero(network, shape):
    out = network(classes=K)(torch.randn(B, *shape), torch.rand(B), torch.arange(B) % K)
    assert out.shape == (B, *shape)
    assert not out.any()


def test_one_time_equals_the_same_time_in_every_row(build):
    net, x = build(classes=K)
    y = torch.arange(B) % K
    for cond in (None, y):
        once = net(x, torch.tensor(0.3), cond)
        assert once.shape == x.shape
        assert once.dtype == x.dtype
        torch.testing.assert_close(once, net(x, torch.full((B,), 0.3), cond), atol=1e-5, rtol=1e-5)


def test_time_changes_the_output(build):
    net, x = build()
    near, far = net(x, torch.tensor(0.3)), net(x, torch.tensor(0.31))
    assert (near - far).flatten(1).norm(dim=1).min() > 1e-3


def test_rows_do_not_see_one_another(build):
    net, x = build(classes=K, vector=D)
    t = Rng(3).uniform(B)
    cond = {"label": torch.arange(B) % K, "vector": Rng(4).normal(B, D)}
    whole = net(x, t, cond)
    for i in (0, B - 1):
        row = slice(i, i + 1)
        alone = net(x[row], t[row], {name: value[row] for name, value in cond.items()})
        torch.testing.assert_close(alone, whole[row], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("learned_null", [True, False])
def test_no_condition_is_everything_unknown(build, learned_null):
    net, x = build(classes=K, vector=D, learned_null=learned_null)
    t = Rng(3).uniform(B)
    cond = {"label": torch.arange(B) % K, "vector": Rng(4).normal(B, D)}
    bare = net(x, t)
    for unknown in (null(cond), {"label": null(cond)["label"]}, {}, null(cond["label"]), null(cond["vector"])):
        torch.testing.assert_close(net(x, t, unknown), bare, atol=1e-5, rtol=1e-5)


def test_each_part_of_a_condition_counts_and_unknown_rows_are_unconditional(build):
    net, x = build(classes=K, vector=D)
    t = Rng(3).uniform(B)
    cond = {"label": torch.arange(B) % K, "vector": Rng(4).normal(B, D)}
    rows = torch.arange(B) < 2
    bare, full, part = net(x, t), net(x, t, cond), net(x, t, drop(cond, rows))
    torch.testing.assert_close(part[rows], bare[rows], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(part[~rows], full[~rows], atol=1e-5, rtol=1e-5)
    for less in (
        bare,
        net(x, t, cond["label"]),
        net(x, t, cond["vector"]),
        net(x, t, cond | {"label": (cond["label"] + 1) % K}),
    ):
        assert (full - less).flatten(1).norm(dim=1).min() > 1e-3


def test_a_label_of_zero_is_known(build):
    for learned_null in (True, False):
        net, x = build(classes=K, learned_null=learned_null)
        t = torch.tensor(0.5)
        assert (net(x, t, torch.zeros(B, dtype=torch.long)) - net(x, t)).abs().max() > 1e-3


def test_one_unknown_entry_of_a_vector_leaves_the_others_known(build):
    net, x = build(vector=D)
    vector = Rng(4).normal(B, D)
    vector[:, 0] = torch.nan
    other = vector.clone()
    other[:, 1] += 1
    known, changed = net(x, torch.tensor(0.5), vector), net(x, torch.tensor(0.5), other)
    assert known.isfinite().all()
    assert (known - changed).flatten(1).norm(dim=1).min() > 1e-3
    zero = net(x, torch.tensor(0.5), vector.nan_to_num(0.0))
    assert (known - zero).abs().max() > 1e-3


def test_gradients_reach_every_parameter_and_are_finite(build):
    net, x = build(classes=K, vector=D, dropout=0.1)
    cond = {"label": torch.arange(B) % K, "vector": Rng(4).normal(B, D)}
    cond = drop(cond, torch.arange(B) < 1)
    torch.manual_seed(0)
    net(x, Rng(3).uniform(B), cond).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_autocast_runs_and_agrees(build):
    net, x = build(classes=K)
    t, y = Rng(3).uniform(B), torch.arange(B) % K
    wide = net(x, t, y)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x, t, y)
    out.square().mean().backward()
    assert out.dtype == torch.float32
    assert 0 < (out - wide).norm() < 0.05 * wide.norm()


def test_other_types_and_layouts(build):
    net, x = build(classes=K)
    t, y = Rng(3).uniform(B), torch.arange(B) % K
    wide = net(x, t, y)
    if x.dim() == 4:
        net.to(memory_format=torch.channels_last)
        torch.testing.assert_close(net(x, t, y), wide, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(net(x.to(memory_format=torch.channels_last), t, y), wide, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(net.double()(x.double(), t.double(), y).float(), wide, atol=1e-4, rtol=1e-4)
    low = net.bfloat16()(x.bfloat16(), t, y)
    assert low.dtype == torch.bfloat16
    assert (low.float() - wide).norm() < 0.1 * wide.norm()


def test_a_compiler_sees_one_graph(build):
    net, x = build(classes=K, vector=D)
    t = Rng(3).uniform(B)
    cond = {"label": torch.arange(B) % K, "vector": Rng(4).normal(B, D)}
    torch.compiler.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, t, cond), net(x, t, cond))


def test_forward_mode_derivatives_agree_with_differences(build):
    net, x = build()
    net, x = net.double(), x.double()
    t, dx, dt = (
        Rng(3).uniform(B, dtype=torch.float64),
        Rng(5).normal(*x.shape, dtype=torch.float64),
        torch.full((B,), 0.1),
    )
    dt = dt.double()
    h = 1e-6
    with sdpa_kernel(SDPBackend.MATH):
        _, slope = jvp(net, (x, t), (dx, dt))
        gap = (net(x + h * dx, t + h * dt) - net(x - h * dx, t - h * dt)) / (2 * h)
    torch.testing.assert_close(slope, gap, atol=1e-4, rtol=1e-4)


def test_dropout_is_off_by_default_and_follows_the_generator(build):
    net, x = build()
    torch.testing.assert_close(net(x, torch.tensor(0.5)), net.eval()(x, torch.tensor(0.5)))
    net, x = build(dropout=0.5)
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(net(x, torch.tensor(0.5)))
    assert torch.equal(outs[0], outs[1])
    assert not torch.allclose(outs[0], outs[2])


def test_without_dropout_no_generator_is_read(build):
    net, x = build(classes=K)
    before = torch.get_rng_state()
    net(x, torch.tensor(0.5), torch.arange(B) % K)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_does_not_fit_is_refused(build):
    net, x = build(classes=K)
    t, y = torch.tensor(0.5), torch.arange(B) % K
    with pytest.raises(ShapeError, match=r"takes|halves"):
        net(x[..., :-1], t)
    with pytest.raises(ShapeError, match="takes"):
        net(x[0], t)
    with pytest.raises(ShapeError, match="prefix"):
        net(x, torch.rand(B + 1))
    with pytest.raises(ShapeError, match="one time"):
        net(x, torch.rand(x.shape[:2]))
    with pytest.raises(ShapeError, match="one a row"):
        net(x, t, y[:-1])
    with pytest.raises(InputError, match=rf"0 \.\. {K - 1}.*classes={K + 1}"):
        net(x, t, y + 1)
    with pytest.raises(InputError, match="-1 for unknown; got -2"):
        net(x, t, y - 2)
    with pytest.raises(InputError, match=f"vector={D}"):
        net(x, t, torch.randn(B, D))
    with pytest.raises(InputError, match="did you mean 'label'"):
        net(x, t, {"labels": y})
    with pytest.raises(InputError, match="int64"):
        net(x, t, {"label": y.float()})


def test_a_network_without_conditions_says_how_to_get_them(build):
    net, x = build()
    with pytest.raises(InputError, match="classes=K"):
        net(x, torch.tensor(0.5), torch.arange(B))
    net, x = build(vector=D)
    with pytest.raises(ShapeError, match=str(D)):
        net(x, torch.tensor(0.5), torch.randn(B, D + 1))
    with pytest.raises(InputError, match="floating"):
        net(x, torch.tensor(0.5), {"vector": torch.ones(B, D, dtype=torch.long)})


def test_a_network_of_two_times_begins_as_that_of_one(build):
    net, x = build(classes=K)
    knows, _ = build(classes=K, two_times=True)
    missing = knows.load_state_dict(net.state_dict(), strict=False)
    assert missing.missing_keys
    assert all(name.startswith("embedding.gap.") for name in missing.missing_keys)
    knows.embedding.still()
    t, y = Rng(3).uniform(B), torch.arange(B) % K
    for end in ({}, {"s": t}, {"s": torch.tensor(1.0)}, {"s": 0.2}):
        torch.testing.assert_close(knows(x, t, y, **end), net(x, t, y))


def test_the_end_of_a_step_counts_and_without_one_there_is_no_gap(build):
    net, x = build(two_times=True)
    t, s = Rng(3).uniform(B), Rng(4).uniform(B)
    whole = net(x, t, s=s)
    torch.testing.assert_close(net(x, t), net(x, t, s=t))
    assert (whole - net(x, t)).flatten(1).norm(dim=1).min() > 1e-3
    # Forward and backward steps of one length differ.
    assert (net(x, t, s=t + 0.2) - net(x, t, s=t - 0.2)).flatten(1).norm(dim=1).min() > 1e-3
    torch.testing.assert_close(net(x[1:2], t[1:2], s=s[1:2]), whole[1:2], atol=1e-5, rtol=1e-5)
    one = net(x, torch.tensor(0.3), s=torch.tensor(0.6))
    torch.testing.assert_close(one, net(x, torch.full((B,), 0.3), s=torch.full((B,), 0.6)), atol=1e-5, rtol=1e-5)


def test_the_end_of_a_step_is_refused_where_it_does_not_fit(build):
    net, x = build()
    with pytest.raises(InputError, match="two_times=True"):
        net(x, torch.tensor(0.2), s=torch.tensor(0.5))
    net, x = build(two_times=True)
    with pytest.raises(ShapeError, match="prefix"):
        net(x, torch.tensor(0.2), s=torch.rand(B + 1))
    with pytest.raises(ShapeError, match="one time"):
        net(x, torch.tensor(0.2), s=torch.rand(x.shape[:2]))


def test_a_guided_network_begins_as_the_one_without_guidance_whatever_it_is_told(build):
    net, x = build(classes=K, two_times=True)
    knows, _ = build(classes=K, two_times=True, guided=True)
    missing = knows.load_state_dict(net.state_dict(), strict=False)
    assert missing.missing_keys
    assert all(name.startswith("embedding.scale.") for name in missing.missing_keys)
    knows.embedding.scale[-1].weight.data.zero_()
    knows.embedding.scale[-1].bias.data.zero_()
    t, s, y = Rng(3).uniform(B), Rng(4).uniform(B), torch.arange(B) % K
    for told in ({}, {"scale": 3.0}, {"scale": torch.tensor(0.0)}, {"scale": torch.linspace(-1, 30, B)}):
        assert torch.equal(knows(x, t, y, s=s, **told), net(x, t, y, s=s))


@pytest.mark.parametrize(("network", "shape"), BUILDS.values(), ids=BUILDS.keys())
def test_the_layer_that_reads_scales_starts_at_zero(network, shape):
    assert not any(weights.any() for weights in network(guided=True).embedding.scale[-1].parameters())


def test_the_scale_counts_row_by_row_and_is_one_when_left_out(build):
    net, x = build(classes=K, guided=True)
    t, y, scale = Rng(3).uniform(B), torch.arange(B) % K, torch.linspace(1.5, 8.0, B)
    whole = net(x, t, y, scale=scale)
    assert torch.equal(net(x, t, y), net(x, t, y, scale=1.0))
    assert (whole - net(x, t, y)).flatten(1).norm(dim=1).min() > 1e-3
    torch.testing.assert_close(net(x[2:3], t[2:3], y[2:3], scale=scale[2:3]), whole[2:3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(net(x[2:3], t[2:3], y[2:3], scale=scale[2]), whole[2:3], atol=1e-5, rtol=1e-5)
    # The network reads a scale as far as any other: none is too great to be read, and near ones are told apart.
    assert net(x, t, y, scale=1e9).isfinite().all()
    assert (net(x, t, y, scale=8.0) - net(x, t, y, scale=8.5)).flatten(1).norm(dim=1).min() > 1e-3


def test_a_scale_is_refused_where_it_does_not_fit(build):
    net, x = build(classes=K)
    with pytest.raises(InputError, match="guided=True"):
        net(x, torch.tensor(0.2), scale=torch.tensor(2.0))
    net, x = build(classes=K, guided=True)
    for wrong in (torch.rand(B + 1), torch.rand(B, 1)):
        with pytest.raises(ShapeError, match="one a row"):
            net(x, torch.tensor(0.2), scale=wrong)

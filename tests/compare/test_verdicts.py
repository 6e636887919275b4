"""What a comparison says to claims: worked out by hand for sides whose figures are given."""

from __future__ import annotations

from typing import Any

import pytest

from rheos.compare import verdicts
from rheos.compare.claims import TEXTS, judged

BUDGETS = (1, 2, 4, 10, 20, 50, 100)


def side(title: str, family: str, ways: dict[str, tuple[float, ...]], **changes: Any) -> dict[str, Any]:
    """A side of two seeds, the second a tenth worse."""
    plain = {
        "title": title,
        "family": family,
        "rate": 1e-3,
        "seeds": [0, 1],
        "quality by rate": {"0.001": [2.0, 2.2]},
        "ways": {
            way: {
                "quality": {str(b): [v, 1.1 * v] for b, v in zip(BUDGETS, values, strict=True)},
                "sampling seconds": {str(b): [0.1 * b, 0.1 * b] for b in BUDGETS},
            }
            for way, values in ways.items()
        },
        "learning": {"100": [8.0, 8.8], "200": [4.0, 4.4]},
        "training seconds": [10.0, 10.0],
        "stress": {"same seed, same bits": [True, True], "noise of 5%": [0.02, 0.02]},
        "cost": {"training": {"passes": 1, "operations": 1000, "bytes": 500, "joules": None}, "sampling": {}},
    }
    return {**plain, **changes}


def told(*sides: tuple[str, dict[str, Any]], **changes: Any) -> dict[str, tuple[str, str]]:
    return {v.id: (v.verdict, v.measured) for v in verdicts({"contenders": dict(sides), **changes})}


FLOW = side("flow", "flow", {"AB2": (30.0, 20.0, 9.0, 4.1, 4.0, 4.0, 4.0)})
SLOW = side(
    "DDPM",
    "diffusion",
    {"DDIM": (90.0, 60.0, 40.0, 20.0, 12.0, 8.0, 6.0), "DPM": (90.0, 50.0, 20.0, 8.0, 6.1, 6.0, 6.0)},
    learning={"100": [16.0, 17.6], "200": [8.0, 8.8]},
    stress={"same seed, same bits": [True, True], "noise of 5%": [0.04, 0.01]},
)


def test_all_of_some_and_none() -> None:
    assert judged({"a": [0.5, 1.0], "b": [0.1]}) == "confirmed"
    assert judged({"a": [0.5, 1.1], "b": [0.1]}) == "confirmed in part"
    assert judged({"a": [1.2, 1.1], "b": [3.0]}) == "refuted"
    assert judged({"a": [0.5]}, 0.4) == "refuted"


def test_models_of_few_steps_change_no_verdict() -> None:
    dear = {"training": {"passes": 3, "operations": 9, "bytes": 9, "joules": None}, "sampling": {}}
    broken = {"same seed, same bits": [False, False], "noise of 5%": [0.9, 0.9]}
    few = side("map", "few steps", {"its map": (1.0,) * 7, "AB2": (0.1,) * 7}, stress=broken, cost=dear)
    few = {**few, "judged at": 1, "quality by rate": {str(rate): [rate, rate] for rate in (1, 2, 9)}}
    own = (("flow", FLOW), ("ddpm", SLOW))
    assert told(*own) == told(("map", few), *own) == told(*own, ("reflow", few))
    assert "C12" in told(*own)
    assert told(("map", few)) == {}


def test_a_flow_that_is_better_throughout() -> None:
    found = told(("flow", FLOW), ("ddpm", SLOW))
    verdict, measured = found["C03"]
    assert verdict == "confirmed"
    # The flow was as good as the rival's end at half of its steps, its first look.
    assert measured.endswith("over the rival's until then: 0.5 (0.5 to 0.5) (DDPM)")
    assert found["C04"][0] == "confirmed"
    verdict, measured = found["C05"]
    # 4 at 20 evaluations beside 8 and 6 at 50; a fifth of 20 seconds' difference.
    assert verdict == "confirmed"
    assert "0.5 (0.5 to 0.5) (DDPM, DDIM), 0.667 (0.667 to 0.667) (DDPM, DPM)" in measured
    assert "take 2.5 (2.5 to 2.5) times less time" in measured
    verdict, measured = found["C06"]
    assert verdict == "confirmed in part"
    assert "10 of the flow, 100 (DDPM, DDIM), 20 (DDPM, DPM)" in measured
    assert "1.02 (1.02 to 1.02) (the flow), 3.33 (3.33 to 3.33) (DDPM)" in measured
    verdict, measured = found["C26"]
    assert verdict == "confirmed"
    # As good as the rival's best at 50, 6 and a twentieth more, in 10.
    assert "over 50: 0.2 (0.2 to 0.2) (DDPM); no counter of energy could be read" in measured


def test_what_equal_networks_cannot_differ_in() -> None:
    found = told(("flow", FLOW), ("ddpm", SLOW))
    assert found["C02"][0] == "refuted"
    assert "1 (DDPM)" in found["C02"][1]
    assert found["C08"][0] == "refuted"
    assert found["C12"] == ("confirmed", "drawn twice, samples are equal bit by bit, for every side alike")
    heavy = {"training": {"passes": 2, "operations": 1000, "bytes": 1000, "joules": None}, "sampling": {}}
    found = told(("flow", FLOW), ("ddpm", {**SLOW, "cost": heavy}))
    assert (found["C02"][0], found["C08"][0]) == ("confirmed", "confirmed")
    assert "0.5 (DDPM)" in found["C08"][1]
    odd = {**SLOW, "stress": {"same seed, same bits": [True, False], "noise of 5%": [1.0, 1.0]}}
    assert told(("flow", FLOW), ("ddpm", odd))["C12"][0] == "refuted"


def test_seeds_that_differ_are_a_part() -> None:
    verdict, measured = told(("flow", FLOW), ("ddpm", SLOW))["C13"]
    assert verdict == "confirmed in part"
    assert "1.25 (0.5 to 2) (DDPM, noise of 5%)" in measured


def test_a_flow_that_loses() -> None:
    strong = {**SLOW, "learning": {"100": [2.0, 2.0], "200": [1.0, 1.0]}}
    strong["ways"] = {
        "Heun": {
            "quality": {str(b): [v, v] for b, v in zip(BUDGETS, (9.0, 5.0, 2.0, 1.0, 1.0, 1.0, 1.0), strict=True)},
            "sampling seconds": {str(b): [0.1 * b] * 2 for b in BUDGETS},
        }
    }
    found = told(("flow", FLOW), ("edm", strong))
    assert [found[name][0] for name in ("C03", "C04", "C05", "C26")] == ["refuted"] * 4
    # The rival is as good as the flow at its end at its first look.
    assert "2 (2 to 2)" in found["C03"][1]
    assert "∞" in found["C26"][1]
    rough = {**FLOW, "ways": {"AB2": SLOW["ways"]["DDIM"]}}
    assert told(("flow", rough), ("ddpm", SLOW))["C06"][0] == "refuted"


def test_the_target_is_judged_where_others_were_predicted_on_the_same_path() -> None:
    assert "C14" not in told(("flow", FLOW), ("ddpm", SLOW))
    noise = side("flow, predicting noise", "flow", {"AB2": (60.0, 40.0, 18.0, 8.2, 8.0, 8.0, 8.0)})
    verdict, measured = told(("flow", FLOW), ("flow:noise", noise))["C14"]
    assert verdict == "confirmed"
    assert "0.5 (0.5 to 0.5) (noise, flow, 10), 0.5 (0.5 to 0.5) (noise, flow, 50)" in measured
    # A side that predicts another quantity is no rival.
    assert "C05" not in told(("flow", FLOW), ("ddpm:v", SLOW))


def test_sensitivity_is_the_spread_over_rates() -> None:
    calm = {**SLOW, "quality by rate": {"0.001": [2.0, 2.0], "0.01": [3.0, 4.0], "0.1": [2.5, 3.0]}}
    wild = {**FLOW, "quality by rate": {"0.001": [2.0, 2.0], "0.01": [8.0, None], "0.1": [2.5, 3.0]}}
    assert "C15" not in told(("flow", FLOW), ("ddpm", calm))
    verdict, measured = told(("flow", wild), ("ddpm", calm))["C15"]
    assert verdict == "confirmed"
    assert "∞ (4 to ∞) (flow), 1.75 (1.5 to 2) (DDPM)" in measured
    assert "seeds at the best rate: 1.1 (flow), 1.1 (DDPM)" in measured
    assert (
        told(("flow", {**FLOW, **{"quality by rate": calm["quality by rate"]}}), ("ddpm", calm))["C15"][0] == "refuted"
    )


def test_what_follows_the_size_of_the_network() -> None:
    laws = {"flow": {"off in each seed": [1.1, 1.2]}, "ddpm": {"off in each seed": [1.3, 1.4]}}
    verdict, measured = told(("flow", FLOW), ("ddpm", SLOW), scaling={"contenders": laws})["C17"]
    assert verdict == "confirmed"
    assert "1.15 (1.1 to 1.2) (flow), 1.35 (1.3 to 1.4) (DDPM)" in measured
    few = {name: {"off in each seed": []} for name in laws}
    assert "C17" not in told(("flow", FLOW), ("ddpm", SLOW), scaling={"contenders": few})


def test_hybrids_stand_beside_both_parents() -> None:
    mixed = side("mixed", "hybrid", {"AB2": (30.0, 20.0, 9.0, 6.0, 4.0, 4.0, 4.0)})
    solved = {**SLOW, "ways": {**SLOW["ways"], "AB2": side("", "", {"AB2": (9.0,) * 7})["ways"]["AB2"]}}
    verdict, measured = told(("flow", FLOW), ("ddpm", solved), ("v-to-flow", mixed))["C27"]
    assert verdict == "confirmed in part"
    # Beside the diffusion model by its best sampler; and that model by a sampler of flows beside its own.
    assert "1.46 (1.46 to 1.46) (mixed over flow), 0.75 (0.75 to 0.75) (mixed over DDPM)" in measured
    assert measured.endswith("1.12 (1.12 to 1.12) (DDPM, AB2 over its own samplers)")
    assert "C27" not in told(("flow", FLOW), ("ddpm", SLOW))


def test_energy_is_told_where_it_was_read() -> None:
    flow, rival = ({**one, "cost": {**one["cost"]}} for one in (FLOW, SLOW))
    for one, joules in ((flow, 6.0), (rival, 3.0)):
        one["cost"]["training"] = {**one["cost"]["training"], "joules": joules}
    measured = told(("flow", flow), ("ddpm", rival))["C26"][1]
    assert measured.endswith("energy of training likewise 1 (1 to 1)")


@pytest.mark.parametrize("sides", [(), (("flow", FLOW),), (("ddpm", SLOW),)], ids=["nobody", "a flow", "a rival"])
def test_who_stands_alone_settles_nothing(sides: tuple[Any, ...]) -> None:
    assert set(told(*sides)) <= {"C02", "C12", "C27"}


def test_texts_are_those_of_the_ledger() -> None:
    assert all(len(name) == 3 and text for name, text in TEXTS.items())
    assert {v.claim for v in verdicts({"contenders": {"flow": FLOW, "ddpm": SLOW}})} <= set(TEXTS.values())

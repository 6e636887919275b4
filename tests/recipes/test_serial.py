"""What a run folder stores comes back the same, and nothing that a stranger wrote into one is run."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from rheos.cli.parts import RECIPES, TABLES, resolve
from rheos.core import CheckpointError, InputError
from rheos.nn import MLP
from rheos.recipes import Build, decode, encode

NAMES = [(table, name) for table, names in TABLES.items() for name in names]


def again(value: Any, trusted: tuple[str, ...] = ()) -> Any:
    """Through JSON text and back."""
    return decode(json.loads(json.dumps(encode(value), allow_nan=False)), trusted)


@pytest.mark.parametrize("name", RECIPES)
def test_default_recipes_come_back(name: str) -> None:
    recipe = resolve(name, {})
    assert again(recipe) == recipe
    assert encode(again(recipe)) == encode(recipe)


@pytest.mark.parametrize(("table", "name"), NAMES, ids=[f"{table}={name}" for table, name in NAMES])
def test_every_named_part_comes_back(table: str, name: str) -> None:
    # A variance preserving path needs another prediction than the default one; the others do not mind.
    preserving = ("vp", "ddpm", "ddpm-cosine")
    options = {"predict": "noise"} if table == "path" and name in preserving else {}
    recipe = resolve("images" if table == "net" else "toy", {**options, table: name})
    found = again(recipe)
    assert found == recipe
    assert type(found.objective.path.schedule) is type(recipe.objective.path.schedule)


def test_names_of_one_table_are_different_parts() -> None:
    for table, names in TABLES.items():
        options = {"predict": "noise"} if table == "path" else {}
        made = [
            json.dumps(encode(resolve("images" if table == "net" else "toy", {**options, table: n}))) for n in names
        ]
        assert len(set(made)) == len(names), table


def test_the_first_name_of_a_table_is_the_default() -> None:
    for table, names in TABLES.items():
        recipe = "images" if table == "net" else "toy"
        assert resolve(recipe, {table: next(iter(names))}) == resolve(recipe, {}), table


def test_guidance_and_numbers_come_back() -> None:
    recipe = resolve("images", {"guidance": 2.5, "steps": 7, "learning_rate": 1e-3, "noisy": True, "width": 8})
    assert again(recipe) == recipe
    assert recipe.guidance is not None


@dataclass(frozen=True)
class Spy:
    """Stands outside rheos; making one is noticed."""

    value: int = 0

    def __post_init__(self) -> None:
        made.append(self.value)


class Net(nn.Module):
    """A network of the user's own."""


class Plain:
    """Neither a dataclass nor a network."""


made: list[int] = []


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name under which this module can be imported."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or sys.modules[Spy.__module__])
    made.clear()
    return Spy.__module__


def test_foreign_dataclasses_are_not_made(here: str) -> None:
    with pytest.raises(CheckpointError, match=rf"outside rheos.*--trust {here}"):
        decode({"class": f"{here}:Spy", "value": 3})
    assert made == []


def test_trusted_modules_are_used(here: str) -> None:
    assert decode({"class": f"{here}:Spy", "value": 3}, [here]) == Spy(3)
    assert decode({"type": f"{here}:Net"}, [here]) is Net
    assert again(Build(Net), (here,)) == Build(Net)


def test_foreign_modules_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hostile_module.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CheckpointError, match="hostile_module"):
        decode([{"path": {"type": "hostile_module:Net"}}])
    assert "hostile_module" not in sys.modules


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:eval",
        "torch:load",
        "torch.nn:Linear",
        "rheosx.nn:MLP",
        ":MLP",
        "",
        None,
        3,
        ["rheos.nn.mlp:MLP"],
        "rheos.cli.main:main",
        "rheos.recipes.toy:toy",
        "rheos.recipes.toy:np",
        "rheos.nn:MLP",
        "rheos.recipes.images:MLP",
        "rheos.nn.mlp:nn",
        "rheos.core.rng:Rng",
        "rheos.nn.mlp:Missing",
        "rheos.nn.missing:MLP",
        "rheos..os:system",
        "rheos.__main__:run",
        "rheos.nn.mlp",
        "rheos.nn.mlp:MLP:forward",
    ],
)
@pytest.mark.parametrize("form", ["class", "type"])
def test_what_is_no_part_is_refused(name: Any, form: str) -> None:
    with pytest.raises(CheckpointError):
        decode({"kind": {form: name}})


def test_a_network_is_no_instance() -> None:
    with pytest.raises(CheckpointError, match="no part of a recipe"):
        decode({"class": "rheos.nn.mlp:MLP", "shape": 2})


def test_trust_covers_no_plain_class(here: str) -> None:
    with pytest.raises(CheckpointError, match="only dataclasses and networks"):
        decode({"type": f"{here}:Plain"}, [here])


@pytest.mark.parametrize(
    "change",
    [
        {"steps": "many"},
        {"steps": 0},
        {"clip": None},
        {"unknown": 1},
        {"betas": 3},
    ],
)
def test_values_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    stored = encode(resolve("toy", {}).training)
    with pytest.raises(CheckpointError, match=r"rheos\.training\.settings:Training cannot be rebuilt"):
        decode({**stored, **change})


@pytest.mark.parametrize("part", ["kind", "data", "network", "objective", "order", "solver", "grid", "training"])
@pytest.mark.parametrize("value", [None, "linear", {"class": "rheos.recipes.toy:Plane"}])
def test_a_part_in_the_wrong_place_is_refused(part: str, value: Any) -> None:
    stored = encode(resolve("toy", {}))
    value = value if part != "kind" or value is None else {"class": "rheos.schedules.straight:Linear"}
    with pytest.raises(CheckpointError, match=r"Recipe cannot be rebuilt.*a recipe must be"):
        decode({**stored, part: value})


def test_what_cannot_be_rebuilt_is_not_stored() -> None:
    recipe = resolve("toy", {})
    for order in (lambda seed, rows: rows, print):
        with pytest.raises(InputError, match="frozen dataclass"):
            encode(replace(recipe, order=order))
    with pytest.raises(InputError, match="frozen dataclass"):
        encode({"solver": object()})
    with pytest.raises(InputError, match="only dataclasses and networks"):
        encode(Plain)
    with pytest.raises(InputError, match='key "class" or "type"'):
        encode({"class": 1})

    @dataclass(frozen=True)
    class Local:
        pass

    with pytest.raises(InputError, match="importable module"):
        encode(Local())


def test_builds_are_reproducible() -> None:
    build = Build(MLP, {"shape": 2, "width": 8, "depth": 2})
    one, two, other = (build(seed).state_dict() for seed in (5, 5, 6))
    assert all(one[name].equal(two[name]) for name in one)
    assert any(not one[name].equal(other[name]) for name in one)


def test_a_build_names_a_class() -> None:
    with pytest.raises(InputError, match=r"torch\.nn\.Module"):
        Build(lambda: MLP(2))  # pyright: ignore[reportArgumentType]

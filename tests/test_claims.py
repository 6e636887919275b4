"""The ledger of claims: none is missing, and each verdict rests on files that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEDGER: list[dict[str, Any]] = json.loads((ROOT / "docs" / "claims.json").read_text(encoding="utf-8"))
VERDICTS = {"confirmed", "confirmed in part", "refuted", "not testable here", "open"}


def test_every_claim_has_its_entry() -> None:
    assert [entry["id"] for entry in LEDGER] == [f"C{number:02d}" for number in range(1, 29)]
    assert all(entry["claim"] and entry["settled by"] for entry in LEDGER)


@pytest.mark.parametrize("entry", LEDGER, ids=lambda entry: entry["id"])
def test_a_verdict_rests_on_files_that_are_there(entry: dict[str, Any]) -> None:
    assert entry["verdict"] in VERDICTS
    settled = entry["verdict"] not in ("open", "not testable here")
    assert bool(entry["measured"]) == bool(entry["evidence"]) == settled
    # What cannot be tested here names the command for a larger machine.
    assert bool(entry["command"]) == (entry["verdict"] != "open")
    for file in entry["evidence"]:
        assert (ROOT / file).is_file(), f"{entry['id']} rests on {file}, which is missing"

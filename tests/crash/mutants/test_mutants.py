"""The quickest of the seeded bugs show that the harness works; `make mutants` runs all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crash.mutants.catalogue import MUTANTS
from crash.mutants.patching import PATCHES, PatchError, copy_of_code, patched
from crash.mutants.run import CONTROL, attempts, make_ready, trials
from crash.mutants.scenarios import SCENARIOS

QUICK = ("cursor-outside-transaction", "absent-to-null")


def test_eighteen_bugs_have_a_patch_and_a_scenario_each() -> None:
    assert len(MUTANTS) == 18
    assert {mutant.name for mutant in MUTANTS} == {path.stem for path in PATCHES.glob("*.patch")}
    assert {mutant.scenario for mutant in MUTANTS} == set(SCENARIOS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_patch_fits_the_code(mutant: Any, tmp_path: Path) -> None:
    copy_of_code(tmp_path / "code", mutant.name)


def test_a_patch_that_does_not_fit_is_an_error() -> None:
    patch = "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-one\n+two\n"
    assert patched({"x.py": "one\n"}, patch, "p") == {"x.py": "two\n"}
    with pytest.raises(PatchError, match="0 times"):
        patched({"x.py": "three\n"}, patch, "p")
    with pytest.raises(PatchError, match="2 times"):
        patched({"x.py": "one\none\n"}, patch, "p")


@pytest.mark.crash
@pytest.mark.timeout(400)
def test_the_checker_names_seeded_bugs_and_says_nothing_of_the_code_as_it_is(
    kafka: Any, registry: Any, postgres: Any
) -> None:
    stack = SimpleNamespace(kafka=kafka, registry=registry, postgres=postgres)
    make_ready(postgres.url)
    chosen = trials([mutant for mutant in MUTANTS if mutant.name in QUICK])
    outcomes = list(attempts(stack, chosen))
    assert [o.mutant for o in outcomes] == [*QUICK, CONTROL, CONTROL]
    assert [(o.mutant, o.scenario, o.reported, o.detail) for o in outcomes if not o.passed] == []

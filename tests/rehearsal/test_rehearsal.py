"""A few models, from the hub and the archives to a verdict; `make rehearsal` runs all."""

from __future__ import annotations

from .rehearse import QUICK, rehearse


def test_models_and_data_become_a_verdict_by_commands_of_a_user_alone() -> None:
    assert "judge the update" in rehearse(QUICK)

"""Which waivers excuse the failures of a run, and which have expired or excuse nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

from natadv.gate.rules import Waiver, place
from natadv.types import Case, Verdict

WaiverState = Literal["applied", "expired", "unused"]
EXCUSABLE: Collection[Verdict] = ("FAIL", "INCONCLUSIVE")
"""What was not measured as planned may hide anything, so no waiver excuses it."""


def today_utc() -> date:
    """The day by which a run judges its waivers, wherever it runs."""
    return datetime.now(UTC).date()


@dataclass(frozen=True, slots=True)
class WaiverUse:
    """What a waiver does in a run that judges cases which it covers."""

    waiver: Waiver
    state: WaiverState

    @property
    def line(self) -> str:
        """For people: what became of it, and what to do."""
        waiver = self.waiver
        if self.state == "applied":
            return f"waiver of {waiver.subject}: {waiver.note}"
        if self.state == "expired":
            when = f"expired on {waiver.expires}, so it does not apply"
            advice = "mend the model, or give it another day"
        else:
            when, advice = "matches no failing case", "remove it"
        at = place(waiver.file, waiver.line)
        return f"waiver of {waiver.subject} by {waiver.owner} {when} ({at}); {advice}"


def waiver_of(
    case: Case, metric: str, verdict: Verdict, *, waivers: Sequence[Waiver], today: date
) -> Waiver | None:
    """The waiver that excuses the verdict of a rule; of several, the one that lasts longest."""
    found = [w for w in waivers if w.excuses(case, metric) and today <= w.expires]
    if verdict not in EXCUSABLE or not found:
        return None
    return max(found, key=lambda waiver: waiver.expires)


def uses(
    waivers: Sequence[Waiver],
    failing: Collection[tuple[Case, str]],
    *,
    cases: Collection[Case],
    unknown: Collection[Case],
    today: date,
) -> Iterator[WaiverUse]:
    """What became of each waiver that covers one of the judged `cases`.

    Args:
        failing: Case and metric of each rule that an applicable waiver may excuse.
        unknown: The cases that may fail or not, as they were not measured as planned.
    """
    for waiver in waivers:
        if not any(map(waiver.covers, cases)):
            continue
        if waiver.expires < today:
            yield WaiverUse(waiver, "expired")
        elif any(waiver.excuses(case, metric) for case, metric in failing):
            yield WaiverUse(waiver, "applied")
        elif not any(map(waiver.covers, unknown)):
            yield WaiverUse(waiver, "unused")

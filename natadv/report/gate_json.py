"""The content of gate.json: what a run of the gate says to machines, and to every other report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from natadv.config import Strict, first_mistake
from natadv.errors import ConfigError, ReportError, StoreError, counted
from natadv.tasks import ANALYSES
from natadv.types import GREEN, STATES, Case, Overall, State, Verdict

VERSION: Literal[3] = 3
SCHEMA = Path(__file__).with_name("gate.schema.json")
"""The published JSON schema of the file."""

RunVerdict = Literal[Overall, "measured"]
"""`measured`: nothing was asserted, and all that was asked for could be measured."""


class RuleEntry(Strict):
    """A rule of the contract."""

    side: Literal["floor", "ceiling"]
    bound: float
    min_n: int
    part: str | None
    source: str
    """Where the bound comes from."""
    starter: Literal["published", "chance"] | None
    at: Literal["interval", "value"] = "interval"
    """What must keep the bound: the whole interval, or the value alone."""
    of_loss: bool = False
    """Whether the bound is on what is lost against a baseline."""
    file: str
    """Path of the file from the root of the repository, if it lies below that."""
    line: int


class BaselineEntry(Strict):
    """How a case compares with a baseline, beside the change itself."""

    p_adjusted: float
    newly_failing: int
    newly_passing: int


class WaiverEntry(Strict):
    """Why a case may fail for a while."""

    case: str
    """As in rules."""
    metric: str | None
    """The only metric that it is about, if it is about one."""
    reason: str
    owner: str
    issue: str
    expires: str
    """The last day (UTC) on which it applies, as 2026-12-31."""
    file: str
    """As of rules."""
    line: int

    @property
    def note(self) -> str:
        """Who waived it, until when and why, for a report."""
        return f"waived by {self.owner} until {self.expires}: {self.reason} ({self.issue})"


class WaiverUseEntry(WaiverEntry):
    """What became of a waiver that covers a case of the run."""

    state: Literal["applied", "expired", "unused"]

    @property
    def useless(self) -> str:
        """Why it excuses nothing, and what to do; empty if it applies."""
        if self.state == "applied":
            return ""
        why, advice = "matches no failing case", "remove it"
        if self.state == "expired":
            why = f"expired on {self.expires}, so it does not apply"
            advice = "mend the model, or renew it"
        subject = self.case if self.metric is None else f"{self.case}: {self.metric}"
        at = f"{self.file}:{self.line}"
        return f"waiver of {subject} by {self.owner} {why} ({at}); {advice}"


class MeasurementEntry(Strict):
    """A metric of a case, or why there is none; with a verdict if a rule or a baseline is about
    it."""

    metric: str
    """With the part of the dataset in brackets if it is about one; empty if only `reason` is
    known."""
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    groups: int | None
    """Source pictures."""
    excluded: int | None
    """Samples without an outcome."""
    verdict: Verdict | None
    rule: str | None
    """As `>= 0.930`."""
    margin: float | None
    """Distance of the value to the bound; negative if it lies beyond."""
    reason: str | None
    contract_rule: RuleEntry | None = None
    baseline: BaselineEntry | None = None
    detectable: float | None = None
    """A model whose true value is this one, or worse, would FAIL in four of five runs."""
    waiver: WaiverEntry | None = None
    """Excuses a FAIL or INCONCLUSIVE."""

    @property
    def state(self) -> State | None:
        """The verdict, or that it is waived; None if nothing is asked of the metric."""
        return "WAIVED" if self.waiver else self.verdict


class CaseEntry(Strict):
    """A case of the run."""

    case: str = Field(pattern=r"^[^/\s]+/[^/\s]+/[^/\s]+/[^/\s]+$")
    """task/scenario/dataset/model"""
    verdict: Verdict | None
    """None if nothing was asserted, or the case is an analysis that no rule covers."""
    green: bool
    lineage: str
    planned_n: int
    data_revision: str
    weights: str
    """sha256 over all files of the model and its head that decide an answer."""
    protocol: str
    measurements: list[MeasurementEntry]
    searches: list[dict[str, Any]]
    waiver: WaiverEntry | None = None
    """Excuses the case, if all that fails is waived: the one that ends first."""
    sequence: dict[str, Any] | None = None
    """How far the case was evaluated, if its samples came in a random order."""
    causes: dict[str, int] | None = None
    """How many samples failed for each cause, if the case does not pass: read off its outcomes."""
    sheet: str | None = None
    """The contact sheet of its failing samples, from the folder of gate.json."""

    @model_validator(mode="after")
    def _adds_up(self) -> CaseEntry:
        verdicts = {row.verdict for row in self.measurements} - {None}
        passes = self.verdict == "PASS" or (self.verdict is None and self.green)
        if passes and verdicts - {"PASS"}:
            raise ValueError(f"{self.case}: passes, but not all of its rows do")
        if self.green and not (self.verdict in ("PASS", None) or self.waiver):
            raise ValueError(f"{self.case}: says {self.verdict} and green")
        name = f"{self.parts.file_stem}.png"
        if self.sheet is not None and self.sheet.rpartition("/")[2] != name:
            raise ValueError(f"{self.case}: expected a sheet {name}, got {self.sheet[:100]!r}")
        return self

    @property
    def parts(self) -> Case:
        """Its task, scenario, dataset and model."""
        return Case(*self.case.split("/"))

    @property
    def state(self) -> State:
        """The verdict for people; a waived case and one that was only measured have their own."""
        if self.waiver is not None and self.green and self.verdict != "PASS":
            return "WAIVED"
        return self.verdict or ("MEASURED" if self.green else "INCOMPLETE")

    @property
    def broken(self) -> Iterator[MeasurementEntry]:
        """The rows that keep the case from passing."""
        return (row for row in self.measurements if row.verdict not in ("PASS", None))

    @property
    def reasons(self) -> list[str]:
        """What keeps the case from passing, each line once."""
        return list(dict.fromkeys(row.reason for row in self.broken if row.reason))


class ContractEntry(Strict):
    """The contract that the run was judged by."""

    file: str
    sha256: str
    """Over the file and those that it includes."""


class SelectionEntry(Strict):
    """What the user asked for."""

    models: list[str]
    tasks: list[str]
    scenarios: list[str]
    datasets: list[str]
    limit: int | None
    keyword: str
    extent: str
    """In words, such as `6 of 18 cases of tier mini`."""


LAST_SECOND = 253_402_300_799
"""Of the year 9999, after which there are no dates."""


def _day(text: str) -> str:
    date.fromisoformat(text)
    return text


class RunEntry(Strict):
    """What differs between equal runs."""

    id: str
    date: Annotated[str, AfterValidator(_day)]
    """The day (UTC) by which waivers are judged, as 2026-12-31."""
    began: float = Field(ge=0, le=LAST_SECOND)
    """Seconds since 1970."""
    wall_s: float
    units_computed: int
    results_damaged: int
    images_encoded: int
    workers_lost: int
    quarantined_gpus: dict[str, str]
    smaller_batches: dict[str, int]


class GateJson(Strict):
    """The verdict of a run of the gate. Equal runs differ in `run` only."""

    version: Literal[3]
    verdict: RunVerdict
    tier: str
    contract: ContractEntry
    selection: SelectionEntry
    asserted: bool
    whole_tier: bool
    confidence: float = Field(gt=0, lt=1)
    baseline: str | None = None
    """The folder that the cases were compared with."""
    reasons: list[str]
    """Why the run is not green."""
    problems: list[str]
    """Those of them that are about the run itself, not about a case."""
    starters: str | None = None
    """How many rules are starters, if any are."""
    waivers: list[WaiverUseEntry] = Field(default_factory=list)
    cases: list[CaseEntry]
    numerics: dict[str, Any]
    """Everything about the machine and the code that can change a number."""
    commit: str
    """Of the checkout, with `+` if files differ from it; empty outside of git."""
    run: RunEntry

    @model_validator(mode="after")
    def _adds_up(self) -> GateJson:
        names = [entry.case for entry in self.cases]
        if len(set(names)) != len(names):
            raise ValueError("a case is listed twice")
        if self.verdict not in (*GREEN, "measured"):
            return self
        wrong = [entry.case for entry in self.cases if not entry.green]
        if self.asserted:
            unruled = [entry for entry in self.cases if entry.verdict is None]
            # What has to be judged, or all, cannot have gone without a verdict.
            wrong += [entry.case for entry in unruled if entry.parts.task not in ANALYSES]
            wrong += [entry.case for entry in unruled[:1] if len(unruled) == len(self.cases)]
        if self.verdict == "pass":
            wrong += [entry.case for entry in self.waived]
        if wrong or self.problems or not self.cases:
            why = wrong[0] if wrong else (self.problems or ["there is no case"])[0]
            raise ValueError(f"says {self.verdict!r}, which {why} contradicts")
        if (self.verdict == "measured") is self.asserted:
            raise ValueError(f"says {self.verdict!r}, but asserted: {self.asserted}")
        return self

    @property
    def green(self) -> bool:
        """Whether all that was judged holds."""
        return self.verdict in GREEN

    @property
    def waived(self) -> list[CaseEntry]:
        """The cases that fail and may."""
        return [entry for entry in self.cases if entry.state == "WAIVED"]

    @property
    def useless_waivers(self) -> list[str]:
        """A line for each waiver that has expired, or matches no failing case."""
        return [use.useless for use in self.waivers if use.useless]

    @property
    def headline(self) -> str:
        """The verdict in one line, with what it is about."""
        unruled = sum(entry.state == "MEASURED" for entry in self.cases) if self.asserted else 0
        beside = f", {counted(len(self.waived), 'case')} waived" if self.waived else ""
        beside += f", {unruled} of them measured without a rule" if unruled else ""
        return f"{self.verdict.upper()}: {self.selection.extent}{beside}"

    def worst_first(self) -> list[CaseEntry]:
        """The cases, failures first."""
        return sorted(self.cases, key=lambda entry: (STATES.index(entry.state), entry.case))


def causes_in_words(causes: Mapping[str, int]) -> str:
    """As `41 samples failed: 30 said the word, 11 low margin`, the most common cause first."""
    common = sorted(causes.items(), key=lambda cause: -cause[1])
    counts = ", ".join(f"{count:,} {name}" for name, count in common if count)
    return f"{counted(sum(causes.values()), 'sample')} failed: {counts}"


def parse_gate_json(content: bytes, *, where: str) -> GateJson:
    """The verdict in the bytes of a gate.json. Raises ReportError, in one line that begins with
    `where`."""
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{where}: expected a gate.json, got no JSON ({error})") from error
    version = raw.get("version") if isinstance(raw, dict) else None
    if type(version) is not int or version != VERSION:
        raise ReportError(
            f"{where}: expected a gate.json of version {VERSION}, got {str(version)[:20]!r}; "
            "run the gate again"
        )
    try:
        return GateJson.model_validate(raw)
    except ValidationError as error:
        # What contradicts itself says so without naming the whole file.
        why = first_mistake(error).removeprefix("the file: ")
        raise ReportError(f"{where}: {why}") from error


def read_gate_json(path: Path) -> GateJson:
    """The verdict of the last run. Raises ReportError, in one line."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReportError(
            f"{path}: cannot be read: {error.strerror or error}; run the gate first: pytest "
            "suites/, or name the verdict by --gate-json FILE"
        ) from error
    return parse_gate_json(content, where=str(path))


def remove_verdict(path: Path) -> None:
    """Remove the verdict of an earlier run, which must not be taken for this run's.

    Raises:
        ConfigError: The file holds something else, and is left as it is.
        StoreError: The file cannot be removed.
    """
    try:
        content = path.read_bytes()
        # Of an empty file nothing is lost.
        ours = not content or {"verdict", "tier", "cases"} <= json.loads(content).keys()
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError, RecursionError):
        ours = False
    if not ours:
        raise ConfigError(
            f"{path}: holds something that no run of the gate wrote, so it is not replaced; give "
            "another --gate-json FILE"
        )
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path}: the verdict of an earlier run cannot be removed: {error.strerror or error}; "
            "remove it, or give another --gate-json FILE"
        ) from error


def gate_schema() -> str:
    """The JSON schema of gate.json, as it is published."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(schema | GateJson.model_json_schema(), indent=1) + "\n"

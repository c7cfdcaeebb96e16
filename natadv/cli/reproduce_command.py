"""`natadv reproduce`: what was published about models, beside what was measured here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from natadv.cli import shared_options as opt
from natadv.data.card import find_datasets
from natadv.data.classes import TEMPLATES
from natadv.data.importers import FORMATS
from natadv.errors import MetricError, counted
from natadv.exit_codes import DONE, NOT_GREEN
from natadv.figures.gaps import CONFIDENCE
from natadv.figures.reproduction import (
    MeasuredCase,
    Reproduction,
    measured_case,
    percent,
    with_number,
)
from natadv.gate.cases import stored_cases
from natadv.metrics import effective_robustness as er
from natadv.models.hub.local import read_lock
from natadv.models.listing import is_here, published
from natadv.models.zoo import ZOO
from natadv.report.terminal import NOTHING, aligned
from natadv.types import PAPER_SUFFIX, Case, Feeding

app = opt.command_group()


class PublishedStudy(NamedTuple):
    """Numbers that were published together."""

    about: str
    protocol: Feeding
    datasets: tuple[str, ...]
    """In the order in which they are listed."""
    two_way: bool = False
    """Whether each sample must have had candidates of its own."""


STUDIES: dict[str, PublishedStudy] = {
    "scam": PublishedStudy(
        "SCAM (Westerhoff et al. 2025), object against word, models fed as they were trained",
        "as-trained",
        ("scam-clean", "scam", "scam-synth"),
        two_way=True,
    ),
    "paper": PublishedStudy(
        "Appendix Table 1 of arXiv 2604.04473, models fed as by its scripts (NAME@paper)",
        "paper",
        ("imagenet", "imagenet-a", "imagenet-typo", "rta-100", "langadv"),
    ),
    "imagenet": PublishedStudy(
        "ImageNet and its shifted versions, models fed as they were trained",
        "as-trained",
        (er.CLEAN, *er.shifted_datasets()),
    ),
}


@app.command(
    cls=opt.Command,
    epilog=opt.example(
        "natadv reproduce scam", more="Exit codes: 0 something was compared, 1 nothing."
    ),
)
def reproduce(
    study: Annotated[Literal["scam", "paper", "imagenet"], opt.argument("scam|paper|imagenet")],
    evidence: Annotated[Path, opt.path("of a run of the gate")] = opt.EVIDENCE,
    as_json: Annotated[bool, opt.flag("--json", "for programs")] = False,
    root: opt.Root = Path(),
) -> int:
    """Compare published numbers with those of stored evidence; no model is loaded.

    It judges nothing. A difference has a cause, and this table shows where to look for it.
    """
    chosen = STUDIES[study]
    # Without evidence, the output still says how to get some.
    stored, broken = stored_cases(evidence) if evidence.is_dir() else ({}, {})
    cases = [
        measured_case(case, stored[case], metric="top1", root=root, two_way=chosen.two_way)
        for case in sorted(stored)
        if _is_of(case, chosen)
    ]
    compared = _comparisons(chosen, cases)
    robustness = list(_robustness(cases)) if study == "imagenet" else []
    if as_json:
        record = {
            "study": study,
            "about": chosen.about,
            "protocol": chosen.protocol,
            "rows": [one.as_json() for one in compared],
            "not_published": [found.as_json() for found in _others(compared, cases)],
            "effective_robustness": [one.as_json() for one in robustness],
            "unreadable": broken,
        }
        print(json.dumps(record, indent=2, allow_nan=False))
    else:
        opt.tell(*_table(chosen, compared, cases), *_robustness_lines(robustness))
        for why in broken.values() if evidence.is_dir() else (f"{evidence}: no such folder",):
            opt.tell(f"unreadable: {why}")
        opt.tell(*_how_to_measure(compared, cases, evidence=evidence, root=root))
    any_compared = any(one.measurement for one in compared) or robustness
    return DONE if any_compared else NOT_GREEN


def _is_of(case: Case, study: PublishedStudy) -> bool:
    fed = "paper" if case.model.endswith(PAPER_SUFFIX) else "as-trained"
    return (
        case.task == "classification" and case.dataset in study.datasets and fed == study.protocol
    )


def _comparisons(study: PublishedStudy, cases: Sequence[MeasuredCase]) -> list[Reproduction]:
    by_name = {(found.case.model, found.case.dataset): found for found in cases}
    suffix = PAPER_SUFFIX if study.protocol == "paper" else ""
    rows = []
    for number in published():
        if number.protocol == study.protocol and number.dataset in study.datasets:
            found = by_name.get((model := number.model + suffix, number.dataset))
            rows.append(Reproduction(number, model, found and with_number(found, number)))
    order = list(ZOO)
    rows.sort(key=lambda r: (order.index(r.number.model), study.datasets.index(r.number.dataset)))
    return rows


def _others(compared: Sequence[Reproduction], cases: Sequence[MeasuredCase]) -> list[MeasuredCase]:
    """The measured cases that have no published number."""
    listed = {one.found.case for one in compared if one.found}
    return [found for found in cases if found.case not in listed]


class ModelRobustness(NamedTuple):
    """The effective robustness of a model on a shifted dataset, with the line that it refers to."""

    model: str
    dataset: str
    found: er.EffectiveRobustness
    line: er.Line
    remark: str

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        found, line = self.found, asdict(self.line)
        own = {**asdict(found), "band": found.band._asdict(), "usual": found.usual}
        names = {"model": self.model, "dataset": self.dataset, "value": found.value}
        return {**names, **own, "line": line, "remark": self.remark}


def _robustness(cases: Sequence[MeasuredCase]) -> Iterator[ModelRobustness]:
    """One for each model and shifted dataset, if the model was measured on ImageNet too."""
    usable = {
        (found.case.model, found.case.dataset): (found.measurement.value, found.prompts)
        for found in cases
        if found.measurement is not None and not found.problems
    }
    for (model, dataset), (shifted, prompts) in usable.items():
        if dataset == er.CLEAN or (model, er.CLEAN) not in usable:
            continue
        clean, clean_prompts = usable[model, er.CLEAN]
        line = er.published_line(dataset)
        alike = {prompts, clean_prompts} == {er.PROMPTS}
        remark = "" if alike else f"the line is of models with {er.PROMPTS} prompts"
        try:
            found = er.effective_robustness(clean, shifted, line=line, confidence=CONFIDENCE)
        except MetricError:
            continue  # a model may be right about none or all of a handful of pictures
        yield ModelRobustness(model, dataset, found, line, remark)


def _table(
    study: PublishedStudy, compared: Sequence[Reproduction], cases: Sequence[MeasuredCase]
) -> Iterator[str]:
    head = ("model", "dataset", "published", "measured", "95 % interval", "n", "difference", "")
    lines = [_cells(one.found, one) for one in compared if one.found]
    lines += [_cells(found, None) for found in _others(compared, cases)]
    yield study.about
    if lines:
        yield from ("", *aligned([head, *lines], right=range(2, 7)))
    comparable = [one for one in compared if one.measurement]
    inside = f", {sum(one.inside for one in comparable)} of them inside the interval"
    yield ""
    yield (
        f"{len(comparable)} of {counted(len(compared), 'published number')} compared"
        f"{inside if comparable else ''}"
    )


def _cells(found: MeasuredCase, comparison: Reproduction | None) -> tuple[str, ...]:
    value = interval = n = NOTHING
    if (measured := found.measurement) is not None:
        value, n = percent(measured.value), str(measured.n)
        interval = f"[{percent(measured.low)}, {percent(measured.high)}]"
    names = (found.case.model, found.case.dataset)
    notes = [*found.problems, *found.remarks]
    if comparison is None:
        return (*names, NOTHING, value, interval, n, NOTHING, "; ".join(["not published", *notes]))
    number, difference = comparison.number, NOTHING
    if found.problems:
        notes.insert(0, "not comparable")
    elif measured is not None:
        difference = f"{100 * (measured.value - number.value):+.2f}"
        notes.insert(0, "inside" if comparison.inside else "outside")
    return (*names, percent(number.value), value, interval, n, difference, "; ".join(notes))


def _robustness_lines(robustness: Sequence[ModelRobustness]) -> Iterator[str]:
    if not robustness:
        return
    yield ""
    yield (
        "effective robustness, in points: accuracy beyond that of zero-shot models (open_clip, at "
        f"least {100 * er.LEAST_ACCURACY:.0f} % on {er.CLEAN})"
    )
    for dataset, line in {one.dataset: one.line for one in robustness}.items():
        yield (
            f"{dataset}: probit(accuracy) = {line.slope:.3f} probit({er.CLEAN}) "
            f"{line.intercept:+.3f}, R2 {line.r2:.3f}, {line.n} models"
        )
    yield ""
    head = ("model", "dataset", er.CLEAN, "expected", "95 % band", "measured", "robustness", "")
    yield from aligned([head, *map(_robustness_cells, robustness)], right=range(2, 7))


def _robustness_cells(one: ModelRobustness) -> tuple[str, ...]:
    found = one.found
    notes = ["inside the band" if found.usual else "outside the band"]
    if found.extrapolated:
        span = f"{percent(one.line.lowest)} to {percent(one.line.highest)}"
        notes.append(f"beyond the line, whose models have {span}")
    return (
        one.model,
        one.dataset,
        percent(found.clean),
        percent(found.expected),
        f"[{percent(found.band.low)}, {percent(found.band.high)}]",
        percent(found.shifted),
        f"{100 * found.value:+.2f}",
        "; ".join([*notes, *filter(None, [one.remark])]),
    )


def _how_to_get(dataset: str, prompts: int) -> str:
    """The command that imports a dataset with this many prompts per class; 0 means any number."""
    if dataset not in FORMATS:
        return (
            f"# {dataset}: its pictures are not published; docs/reproduce.md says what may serve; "
            "the run below leaves it out"
        )
    usual = FORMATS[dataset].templates
    named = next((name for name, texts in TEMPLATES.items() if len(texts) == prompts), usual)
    templates = f" --templates {named}" if named != usual else ""
    return f"natadv data import {dataset} PATH{templates}    # PATH: see natadv data status"


def _how_to_measure(
    compared: Sequence[Reproduction], cases: Sequence[MeasuredCase], *, evidence: Path, root: Path
) -> Iterator[str]:
    """The commands for what was not measured. A single run measures all of it, because a second run
    would remove the evidence of the first; stored results are not computed again."""
    missing = [one for one in compared if one.found is None]
    if not missing:
        return
    datasets = list(dict.fromkeys(one.number.dataset for one in missing))
    models = list(dict.fromkeys(one.number.model for one in missing))
    locks = read_lock(root)
    yield ""
    yield f"not measured: {counted(len(missing), 'published number')}; to measure them"
    if away := [name for name in models if not is_here(ZOO[name], locks, root=root)]:
        yield f"  natadv models fetch {' '.join(away)}"
    here = find_datasets(root)
    for name in datasets:
        if name not in here:
            # Some sources do not state the number, and the paper's prompt is not that of the card.
            prompts = max(
                0 if one.number.protocol == "paper" else one.number.prompts
                for one in missing
                if one.number.dataset == name
            )
            yield f"  {_how_to_get(name, prompts)}"
    every = dict.fromkeys([*(found.case.model for found in cases), *(m.model for m in missing)])
    # A run cannot have what nobody publishes.
    datasets = [name for name in datasets if name in here or name in FORMATS]
    sets = dict.fromkeys([*(found.case.dataset for found in cases), *datasets])
    # No tier has models of the mini world beside others.
    mini = any(ZOO[name].family == "mini" for name in every if name in ZOO)
    tier = f"--tier {'paper' if missing[0].number.protocol == 'paper' else 'release'} " * mini
    yield (
        f"  pytest suites/ --no-assert {tier}--model {','.join(every)} --dataset {','.join(sets)} "
        f"--evidence {evidence}"
    )

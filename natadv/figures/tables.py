"""The tables and the claims as Markdown: every sentence is made from numbers of the evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from natadv.columns import Texts
from natadv.errors import listed
from natadv.explain.latents import LOW_ENTROPY, TOP, LatentPoints
from natadv.figures.analyses import LatentPanel
from natadv.figures.findings import (
    FINDINGS,
    OF_ALL,
    Agrees,
    Artefact,
    ScoreComparison,
    agrees,
    artefacts,
    comparisons,
    gap_of,
)
from natadv.figures.gaps import Gap, Scores, Sides, gap
from natadv.figures.measured import Kind, Measured
from natadv.figures.reproduction import MeasuredCase, Reproduction, percent, reproductions
from natadv.metrics.heads import HeadChanges
from natadv.metrics.intervals import Interval
from natadv.report.markdown import markdown_table
from natadv.types import PAPER_SUFFIX, DoubleArray

NOTHING = "-"
RARE = 0.1
"""Of Figure 7: a latent is rare if a smaller share of the pictures activates it."""
_SCORES = (
    "Scores: right or wrong (classification), IoU of each picture (segmentation), VQA accuracy. "
    "Gaps are in points, with 95 % intervals, paired by picture."
)


def published_table(measured: Measured, *, root: Path) -> str:
    """What was published beside what was measured, with the difference in points.

    Args:
        root: Holds fixtures/, with the cards that say how many prompts a class had.
    """
    head = (
        "model", "task", "dataset", "metric", "published", "measured", "95 % interval", "n",
        "difference", "source", "remarks",
    )  # fmt: skip
    rows = [_published_row(one) for one in reproductions(measured, root=root)]
    about = "Numbers compare only within one feeding: `NAME@paper` is fed as in the paper."
    return _page("Published beside re-measured", [about, _table(head, rows)], measured)


def _published_row(one: MeasuredCase | Reproduction) -> tuple[str, ...]:
    found = one.found if isinstance(one, Reproduction) else one
    assert found is not None
    published, difference, source, remarks = "not published", NOTHING, NOTHING, []
    if isinstance(one, Reproduction):
        number = one.number
        published = percent(number.value)
        source = f"{number.source} ({number.read_in})"
        if (own := one.measurement) is not None:
            difference = f"{100 * (own.value - number.value):+.2f}"
            remarks.append(f"{'inside' if one.inside else 'outside'} the interval")
        else:
            remarks.append("not comparable")
    value = interval = n = NOTHING
    metric = NOTHING
    if (measured := found.measurement) is not None:
        metric, value, n = measured.metric, percent(measured.value), str(measured.n)
        interval = f"[{percent(measured.low)}, {percent(measured.high)}]"
    remarks += [*found.problems, *found.remarks]
    case = found.case
    names = (case.model, case.task, case.dataset, metric)
    return (*names, published, value, interval, n, difference, source, "; ".join(remarks))


def artefact_table(measured: Measured, *, fed: Mapping[str, str]) -> str:
    """Each comparison of the paper's findings under both feedings, and the share of the gap that is
    due to the feeding.

    Args:
        fed: As `findings.artefacts` takes it.
    """
    found = artefacts(measured, fed=fed)
    about = (
        "Each row is a gap that the paper's finding claims to be above 0, fed as the paper's "
        "scripts fed the models and fed as the models were trained. The share of the feeding is "
        "(as in the paper - as trained) / as in the paper, over the pictures that all four cases "
        "have: 100 % means that the gap is due to the feeding alone, 0 % that it has no part in "
        "it, above 100 % that the ranking turns round, and below 0 % that the feeding hides a "
        "part. It is not given where the paper's gap is not clear of 0."
    )
    head = (
        "finding", "task", "compared", "on", "published", "as in the paper", "as trained",
        "share of the feeding", "n", "so",
    )  # fmt: skip
    parts = [about, _SCORES, _table(head, [_artefact_row(one) for one in found])]
    parts.append("\n".join(f"- ({number}) {says}" for number, says in FINDINGS.items()))
    shown = {*(one.comparison.left.model for one in found)}
    shown |= {one.comparison.right.model for one in found}
    shown |= set(fed.values())
    if alone := [model for model in measured.shown if model not in shown]:
        other = (
            m.removesuffix(PAPER_SUFFIX) if m.endswith(PAPER_SUFFIX) else m + PAPER_SUFFIX
            for m in alone
        )
        names = ",".join(other)
        parts.append(
            f"Not in the table, because they were measured under one feeding only: "
            f"{listed(alone, most=30)}. To measure the other: "
            f"`pytest suites/ --no-assert --model {names} --evidence DIR`, then "
            "`natadv figures --evidence .natadv/evidence DIR`."
        )
    return _page("How much of the ranking the feeding explains", parts, measured)


def _artefact_row(one: Artefact) -> tuple[str, ...]:
    found, comparison = one.found, one.comparison
    share = NOTHING
    if found.share is not None:
        share = f"{100 * found.share:.0f} % [{100 * found.low:.0f}, {100 * found.high:.0f}]"
    published = NOTHING if one.published is None else f"{100 * one.published:+.1f}"
    return (
        comparison.finding, comparison.task, comparison.subject, comparison.data, published,
        found.paper.points, found.trained.points, share, str(found.paper.n), one.verdict,
    )  # fmt: skip


def claims(measured: Measured, *, analyses: Sequence[str] = ()) -> str:
    """Whether the evidence agrees with each finding of the paper, per model, with the numbers.

    Args:
        analyses: Sections about the figures that were computed with the models.
    """
    found = [(one, gap_of(measured, one)) for one in comparisons(measured)]
    parts = [
        "A finding claims that a gap is above 0. `yes`: the interval lies above 0; `no`: below; "
        "`open`: it contains 0.",
        _SCORES,
    ]
    for number, says in FINDINGS.items():
        of = [(one, size) for one, size in found if one.finding == number]
        parts += [f"## ({number}) {says}", *_finding(of, of_all=number in OF_ALL)]
    parts += [text_box_claims(measured), *analyses]
    return _page("What the evidence says about the findings of the paper", parts, measured)


def _finding(found: Sequence[tuple[ScoreComparison, Gap]], *, of_all: bool) -> Iterator[str]:
    if not found:
        yield "Not measured: the evidence has no models or datasets to compare."
        return

    def subject(entry: tuple[ScoreComparison, Gap]) -> tuple[str, str]:
        return entry[0].subject, entry[0].task

    lines = []
    for (name, task), of in groupby(found, key=subject):
        entries = list(of)
        verdicts = [agrees(size) for _, size in entries]
        cited = ", ".join(f"{one.data} {100 * size.value:+.1f}" for one, size in entries)
        said = "no" if of_all and "no" in verdicts else overall(verdicts)
        lines.append(f"- {name}, {task}: **{said}** ({_counts(verdicts)}; {cited})")
    yield "\n".join(lines)
    head = ("compared", "task", "on", "gap", "n", "agrees")
    rows = [
        (one.subject, one.task, one.data, size.points, str(size.n), agrees(size))
        for one, size in found
    ]
    yield _table(head, rows)


def head_claims(
    found: Mapping[str, Mapping[str, HeadChanges]],
    scenarios: Mapping[str, str],
    *,
    kind_of: Callable[[str], Kind],
) -> str:
    """What Figure 8 shows, beside what the paper says about it.

    Args:
        found: Model -> dataset -> what masking each head changes.
        scenarios: Of each dataset.
        kind_of: What a model counts as.
    """
    lines = []
    for model, tables in found.items():
        cited = "; ".join(f"{name} {_critical_heads(table)}" for name, table in tables.items())
        of_words, of_others = (
            [table.count for name, table in tables.items() if scenarios[name] in kinds]
            for kinds in (("typographic",), ("natural", "langadv"))
        )
        none = _none_critical(of_words)
        verdicts = [_opposite(none) if kind_of(model) == "clip" else none]
        verdicts.append(_none_critical(of_others))
        said = "no" if "no" in verdicts else "open" if "open" in verdicts else "yes"
        lines.append(f"- {model}: **{said}** ({cited})")
    return "\n\n".join(
        [
            "## Figure 8: single heads of CLIP carry typographic attacks, and nothing else",
            "The paper finds heads whose masking changes accuracy by more than 15 points for CLIP "
            "on typographic pictures, and none on ImageNet-A and LangAdv or for SigLIP2 and BLIP2. "
            "Number of such heads, with the 95 % interval in the light of how many heads are "
            "looked at.",
            "\n".join(lines),
        ]
    )


def _critical_heads(table: HeadChanges) -> str:
    """As `1 [0, 2]: layer 6, head 3 +20.0 [13.1, 26.7]`."""
    named = ", ".join(
        f"layer {at[0] + 1}, head {at[1] + 1} "
        + Gap(table.change[at], table.low[at], table.high[at], table.n).points
        for at in zip(*np.nonzero(table.critical), strict=True)
    )
    low, high = table.count
    return f"{table.critical.sum()} [{low:.0f}, {high:.0f}]" + (f": {named}" if named else "")


def _none_critical(counts: Sequence[Interval]) -> Agrees:
    """Whether no head is critical on any of some datasets."""
    if any(count.low > 0 for count in counts):
        return "no"
    return "yes" if all(count.high == 0 for count in counts) else "open"


def _opposite(verdict: Agrees) -> Agrees:
    opposites: Mapping[Agrees, Agrees] = {"yes": "no", "no": "yes", "open": "open"}
    return opposites[verdict]


def text_box_claims(measured: Measured) -> str:
    """How far relevance lies on text, from evidence of the task `relevance`, beside what the paper
    says about it; says how to measure it if there is none."""
    lines = []
    for cell in measured.cells("relevance"):
        for model in measured.shown if cell.scenario == "typographic" else ():
            score = measured.score(cell, model, metric="text_box_relevance")
            if (found := score.found) is None:
                continue
            said = "yes" if found.low > 1 else "no" if found.high < 1 else "open"
            interval = f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
            lines.append(
                f"- {model} on {cell.dataset}: **{said}** ({interval} times the share of the "
                f"picture that the text box covers, n {found.n})"
            )
    how = "Not measured: the evidence has no typographic case of the task relevance."
    return "\n\n".join(
        [
            "## Figure 6: relevance lies on the text",
            "The paper finds it on the text for CLIP most of all, and less for SigLIP2 and BLIP2. "
            "The pictures of the figure are drawn at random; this counts all of them.",
            "\n".join(lines) or how,
        ]
    )


def latent_claims(found: Mapping[str, Sequence[LatentPanel]], scenarios: Mapping[str, str]) -> str:
    """What Figure 7 shows, beside what the paper says about it.

    Args:
        found: Model -> the latents on each dataset.
        scenarios: Of each dataset.
    """
    lines = []
    for model, panels in found.items():
        cited = ", ".join(
            f"{one.dataset} {100 * _rare_and_pure(one, one.points).mean():.1f} % "
            f"(by chance {100 * _by_chance(one).mean():.1f} %)"
            for one in panels
        )
        beyond = {panel.dataset: _beyond_chance(panel) for panel in panels}
        clean = next((of for name, of in beyond.items() if scenarios[name] == "clean"), None)
        others = {name: of for name, of in beyond.items() if scenarios[name] != "clean"}
        said, gaps = "not measured on clean and on adversarial pictures", ""
        if clean is not None and others:
            halves = {name: gap(Sides(of, clean, paired=True)) for name, of in others.items()}
            more = {
                name: Gap(2 * one.value, 2 * one.low, 2 * one.high, one.n)
                for name, one in halves.items()
            }
            said = overall([agrees(one) for one in more.values()])
            gaps = "; beyond chance, more than on clean pictures: "
            gaps += ", ".join(f"{name} {one.points}" for name, one in more.items())
        lines.append(f"- {model}: **{said}** ({cited}{gaps})")
    return "\n\n".join(
        [
            "## Figure 7: rare latents of low label entropy appear on adversarial pictures",
            f"Share of the latents that at least {TOP} pictures, but fewer than "
            f"{100 * RARE:.0f} % of all, activate and whose label entropy is below {LOW_ENTROPY} "
            "nats, of equally many pictures of each dataset. Chance: the same with the labels "
            "shuffled, as datasets differ in their number of classes. Gaps in points, with 95 % "
            "intervals over the latents.",
            "\n".join(lines),
        ]
    )


def _rare_and_pure(panel: LatentPanel, points: LatentPoints) -> DoubleArray:
    """1 for each latent that is rare and of low entropy, else 0."""
    # NaN is below nothing: a dead latent has no entropy.
    pure = panel.counted(points) & (points.entropy < LOW_ENTROPY)
    return np.asarray(pure & (points.frequency < RARE), dtype=np.float64)


def _by_chance(panel: LatentPanel) -> DoubleArray:
    shuffled = [_rare_and_pure(panel, points) for points in panel.by_chance]
    nothing = np.zeros(len(panel.points.frequency))
    return np.asarray(np.mean(shuffled or [nothing], axis=0), dtype=np.float64)


def _beyond_chance(panel: LatentPanel) -> Scores:
    """How much more often each latent is rare and of low entropy than by chance: -1 to 1, put into
    0 to 1."""
    found = _rare_and_pure(panel, panel.points) - _by_chance(panel)
    names = Texts.of(map(str, range(len(found))))
    return Scores(names, names, (1 + found) / 2)


def overall(verdicts: Sequence[Agrees]) -> str:
    """Of one subject on several datasets: `in part` where some agree and some contradict."""
    kinds = set(verdicts)
    if kinds == {"yes"}:
        return "yes"
    if "no" in kinds:
        return "in part" if "yes" in kinds else "no"
    return "open" if kinds == {"open"} else "yes where it is clear"


def _counts(verdicts: Sequence[Agrees]) -> str:
    kinds: tuple[Agrees, ...] = ("yes", "no", "open")
    return ", ".join(f"{verdicts.count(kind)} {kind}" for kind in kinds if kind in verdicts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [[cell.replace("|", "/") for cell in row] for row in rows]
    return markdown_table(head, lines) if lines else "Nothing to compare."


def _page(title: str, parts: Sequence[str], measured: Measured) -> str:
    unreadable = [f"Unreadable: {why}" for why in measured.unreadable]
    return "\n\n".join([f"# {title}", *parts, *unreadable]) + "\n"

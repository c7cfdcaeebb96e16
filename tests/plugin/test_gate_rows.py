"""The rows of a report for each task, from evidence that is made by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from natadv.evidence import CaseEvidence, Evidence
from natadv.gate.cases import CasePlan
from natadv.gate.judge import judge_all
from natadv.gate.rules import Rule, Thresholds, Tier, TierGrid
from natadv.plugin.gates import case_rows, report_rows
from natadv.tasks import ASKED, TASKS
from natadv.types import Case, Outcomes

FACTS = ("revision-1", "c" * 64, "protocol-1")
N = 60
PARTS = ("held-out", "seen")


def outcomes(scores, *, twin_prefix=None, prefix="s") -> Outcomes:
    """Outcomes of all tasks whose samples have these scores."""
    scores = np.asarray(scores, dtype=np.float64)
    right, kind = (scores > 0.5) * 1.0, np.arange(N) % 3
    tp, empty = np.round(scores * 1000), np.zeros(N)
    ids = tuple(f"{prefix}{i}" for i in range(N))
    return Outcomes(
        id=ids,
        group=ids,
        part=tuple(PARTS[i % 2] for i in range(N)),
        twin=tuple(f"{twin_prefix}{i}" if twin_prefix else None for i in range(N)),
        decoy=("dog",) * N if twin_prefix else (None,) * N,
        truth=("cat",) * N,
        prediction=tuple("cat" if hit else "dog" for hit in right),
        values={
            **{"correct": right, "said_decoy": 1 - right, "rank": 9 * (1 - right)},
            **{"tp": tp, "fp": empty, "fn": 1000 - tp, "tn": empty + 10, "iou": tp / 1000},
            **{"accuracy": tp / 1000, "simple": right, "exact": right},
            **{name: (kind == i) * 1.0 for i, name in enumerate(("yes_no", "number", "other"))},
        },
    )


CLEAN = outcomes(np.linspace(0.3, 1, N), prefix="c")
TYPO = outcomes(np.linspace(0, 0.9, N), twin_prefix="c")


def case_of(task, scenario):
    return Case(task, scenario, "mini", "mini-clip")


def session_of(case, evidence, *rules, problems=()):
    """A session that knows one case, judged by these rules; unjudged if there are none."""
    found = CaseEvidence(case, evidence, *FACTS, problems)
    tier = Tier("mini", (TierGrid((case.model,), (case.address.rpartition("/")[0],)),))
    thresholds = Thresholds("mini", 0.95, {"mini": tier}, rules)
    verdict = judge_all(
        [CasePlan(case, case.model, N, *FACTS)], {case: found}, thresholds=thresholds
    )
    return SimpleNamespace(
        selected=(case,),
        asserting=bool(rules),
        evidence={case: found},
        verdict=verdict,
        grid=SimpleNamespace(thresholds=thresholds),
        contract_file="thresholds.yaml",
        comparison=lambda case: None,
        shortfalls=lambda case: problems,
    )


def metrics(rows):
    return [row.metric for row in rows]


@pytest.mark.parametrize(
    ("task", "scores", "parts"),
    [
        ("classification", ["top1", "top5"], ["top1 (held-out)", "top1 (seen)"]),
        (
            "segmentation",
            [
                "iou_fg",
                "miou",
                "precision",
                "pixel_accuracy",
                "precision_at_50",
                "precision_at_70",
                "precision_at_90",
            ],
            ["iou_fg (held-out)", "iou_fg (seen)"],
        ),
        (
            "vqa",
            [
                "vqa_accuracy",
                "vqa_accuracy_yes_no",
                "vqa_accuracy_number",
                "vqa_accuracy_other",
                "vqa_accuracy_simple",
                "exact_match",
            ],
            ["vqa_accuracy (held-out)", "vqa_accuracy (seen)"],
        ),
    ],
)
def test_a_clean_case_shows_the_metrics_of_its_task_and_one_of_them_by_part(task, scores, parts):
    rows = report_rows(session_of(case_of(task, "clean"), Evidence(CLEAN)))

    assert metrics(rows) == [*scores, *parts]
    assert all(row.verdict is None and row.measurement is not None for row in rows)


@pytest.mark.parametrize(
    ("task", "under_attack"),
    [
        ("classification", {"accuracy_drop", "attack_success_rate", "decoy_rate"}),
        ("segmentation", {"iou_drop"}),
        ("vqa", {"vqa_drop", "decoy_rate"}),
    ],
)
def test_an_attacked_case_shows_the_effect_of_the_attack(task, under_attack):
    attacked = session_of(case_of(task, "typographic"), Evidence(TYPO, CLEAN))
    clean = session_of(case_of(task, "clean"), Evidence(CLEAN))

    assert under_attack <= set(metrics(report_rows(attacked)))
    assert not under_attack & set(metrics(report_rows(clean)))


@pytest.mark.parametrize("task", ASKED)
def test_breaking_points_are_shown_for_drawn_overlays_only(task):
    drawn = replace(TYPO, attributes={"covered": tuple(np.linspace(0.1, 0.6, N))})
    breaks = ["breaking_point", "breaking_point_q10"]

    def shown(attack):
        return metrics(
            report_rows(session_of(case_of(task, "typographic"), Evidence(attack, CLEAN)))
        )

    assert [name for name in shown(drawn) if name in breaks] == breaks
    assert not {*breaks} & {*shown(TYPO)}


@pytest.mark.parametrize("task", ASKED)
def test_without_clean_twins_the_other_metrics_are_shown(task):
    alone = report_rows(session_of(case_of(task, "typographic"), Evidence(TYPO)))

    assert metrics(alone)[0] == TASKS[task].attack_metrics[0]
    assert not [name for name in metrics(alone) if name.endswith("_drop")]


def test_a_type_of_question_without_samples_has_no_row():
    yes_no = {**CLEAN.values, "yes_no": np.ones(N), "number": np.zeros(N), "other": np.zeros(N)}
    rows = Outcomes(**{**vars(CLEAN), "values": yes_no})
    found = metrics(report_rows(session_of(case_of("vqa", "clean"), Evidence(rows))))

    assert "vqa_accuracy_yes_no" in found
    assert not {"vqa_accuracy_number", "vqa_accuracy_other"} & set(found)


@pytest.mark.parametrize(
    ("task", "metric"),
    [("classification", "top1"), ("segmentation", "iou_fg"), ("vqa", "vqa_accuracy")],
)
def test_the_metric_of_a_rule_has_one_row_and_comes_first(task, metric):
    case = case_of(task, "clean")
    rules = [
        Rule(case.address, metric, "floor", 0.1, "by hand"),
        Rule(case.address, metric, "floor", 0.1, "by hand", part="seen"),
    ]
    rows = case_rows(session_of(case, Evidence(CLEAN), *rules), case)

    assert [(row.metric, row.verdict, row.bound) for row in rows[:2]] == [
        (metric, "PASS", ">= 0.100"),
        (f"{metric} (seen)", "PASS", ">= 0.100"),
    ]
    assert len(set(metrics(rows))) == len(rows)


@pytest.mark.parametrize("task", TASKS)
def test_a_case_without_results_is_one_row_with_the_reason(task):
    nothing = Evidence(Outcomes((), (), (), (), (), (), (), {}))
    case = case_of(task, "clean")
    session = session_of(case, nothing, problems=("a worker died",))

    (row,) = report_rows(session)
    assert (row.verdict, row.measurement) == ("INCOMPLETE", None)
    assert row.reason == f"{case}: a worker died"

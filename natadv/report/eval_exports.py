"""The numbers of a run in formats that others collect: every-eval-ever, and the hub's
`.eval_results`.

Numbers of a case that is INCOMPLETE are left out, because they are about something else than what
was planned. Every other number carries its verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from natadv import __version__
from natadv.errors import ReportError, unknown_name
from natadv.metrics import METRICS, headline_of
from natadv.metrics.measure import Metric
from natadv.metrics.terms import times
from natadv.report.gate_json import CaseEntry, GateJson, MeasurementEntry
from natadv.tasks import ANALYSES

EVERY_EVAL_EVER = "0.3.0"
"""Version of its schema."""


def every_eval_ever(gate: GateJson, model: str, *, organization: str) -> dict[str, Any]:
    """The run on one model as a record of every-eval-ever.

    Args:
        model: As the addresses of the cases name it.
        organization: Who ran the gate.

    Raises:
        ReportError: The model was not judged, or nothing about it is known.
    """
    cases = _measured_cases(gate, model)
    began = f"{gate.run.began:.3f}"
    return {
        "schema_version": EVERY_EVAL_EVER,
        "evaluation_id": f"natadv-{gate.tier}/{model}/{began}",
        "evaluation_timestamp": began,
        "retrieved_timestamp": began,
        "source_metadata": {
            "source_name": "natadv",
            "source_type": "evaluation_run",
            "source_organization_name": organization,
            "evaluator_relationship": "other",
            "additional_details": {
                "verdict": gate.verdict,
                "extent": gate.selection.extent,
                "contract_sha256": gate.contract.sha256,
                "commit": gate.commit,
            },
        },
        "eval_library": {"name": "natadv", "version": __version__},
        "model_info": {
            "name": model,
            "id": model,
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": "unknown",
                "lineage": cases[0].lineage,
                **{f"weights_sha256_{e.parts.task}": e.weights for e in cases},
            },
        },
        "evaluation_results": [
            _every_eval_ever_result(gate, entry, row)
            for entry in cases
            for row in entry.measurements
            if row.value is not None and row.metric != "baseline"
        ],
    }


def _every_eval_ever_result(
    gate: GateJson, entry: CaseEntry, row: MeasurementEntry
) -> dict[str, Any]:
    case = entry.parts
    metric = METRICS[row.metric.partition(" (")[0]]
    details = {"case_verdict": entry.state, "groups": str(row.groups)}
    if row.verdict is not None:
        details |= {"verdict": row.verdict, "rule": row.rule or ""}
    return {
        "evaluation_result_id": f"{entry.case}#{row.metric}",
        "evaluation_name": case.cell,
        "source_data": {
            "dataset_name": case.dataset,
            "source_type": "other",
            "additional_details": {"revision": entry.data_revision, "protocol": entry.protocol},
        },
        "metric_config": {
            "metric_id": f"natadv.{row.metric}",
            "metric_name": row.metric,
            "metric_unit": _unit_of(metric),
            "lower_is_better": not metric.higher_is_better,
            "score_type": "continuous",
            "min_score": metric.ends.low,
            "max_score": metric.ends.high,
        },
        "score_details": {
            "score": row.value,
            "details": details,
            "uncertainty": {
                "confidence_interval": {
                    "lower": row.low,
                    "upper": row.high,
                    "confidence_level": gate.confidence,
                },
                "num_samples": row.n,
            },
        },
    }


def _unit_of(metric: Metric) -> str:
    if metric.kind != "multiple":
        return "proportion"
    return "ratio" if metric.total is times else "count"


def hub_results(
    gate: GateJson, model: str, *, benchmarks: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The entries of a `.eval_results/*.yaml` of the hub: the main metric of each case whose
    dataset is one of the hub's benchmarks.

    Args:
        benchmarks: Dataset of natadv -> `owner/name`, or `owner/name:task`, on the hub.

    Raises:
        ReportError: No case of the model is about one of these datasets.
    """
    # Imported here because no other report needs it.
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    cases = _measured_cases(gate, model)
    known = sorted({entry.parts.dataset for entry in cases})
    if absent := [name for name in benchmarks if name not in known]:
        raise ReportError(str(unknown_name("dataset of this run", absent[0], known)))
    date = datetime.fromtimestamp(gate.run.began, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    entries = []
    for entry in cases:
        case = entry.parts
        headline = headline_of(case)
        found = [r for r in entry.measurements if r.metric == headline and r.value is not None]
        # No benchmark asks for the numbers of an analysis.
        if case.dataset not in benchmarks or case.task in ANALYSES or not found:
            continue
        row, (repository, _, hub_task) = found[0], benchmarks[case.dataset].partition(":")
        notes = (
            f"{row.metric} of {entry.case}, {gate.confidence:.0%} interval "
            f"[{row.low:.4f}, {row.high:.4f}], n {row.n}, {entry.state} by natadv {__version__}"
        )
        entries.append(
            EvalResultEntry(
                dataset_id=repository,
                task_id=hub_task or f"{case.task}_{case.scenario}",
                value=row.value,
                date=date,
                notes=notes,
            )
        )
    if not entries:
        wanted = "expected the datasets of this run that are benchmarks of the hub"
        raise ReportError(f"{wanted}, got none; name them by --benchmark DATASET=OWNER/NAME")
    return eval_result_entries_to_yaml(entries)


def _measured_cases(gate: GateJson, model: str) -> list[CaseEntry]:
    models = sorted({entry.parts.model for entry in gate.cases})
    if model not in models:
        raise ReportError(str(unknown_name("model of this run", model, models)))
    cases = [
        e
        for e in gate.cases
        if e.parts.model == model
        and e.verdict != "INCOMPLETE"
        and (e.green or e.verdict is not None)
    ]
    if not cases:
        raise ReportError(f"{model}: no case was measured as planned, so there is no number")
    return cases

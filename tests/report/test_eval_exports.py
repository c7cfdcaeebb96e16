"""Numbers that leave carry their verdict, and those of an incomplete case do not leave."""

from __future__ import annotations

import pytest
from huggingface_hub import parse_eval_result_entries

from natadv.errors import ReportError
from natadv.report.eval_exports import every_eval_ever, hub_results


def test_every_eval_ever_has_each_number_with_interval_and_verdict(gate, entry):
    drop = entry(
        "INCONCLUSIVE",
        case="classification/typographic/plain-typo/mini-clip",
        row={"metric": "accuracy_drop", "rule": "<= 0.100"},
    )
    said = every_eval_ever(gate("inconclusive", entry(), drop), "mini-clip", organization="acme")

    # What version 0.3.0 of its schema requires.
    assert {"schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata"} <= set(
        said
    )
    assert {"model_info", "eval_library", "evaluation_results"} <= set(said)
    assert said["source_metadata"]["source_organization_name"] == "acme"
    details = said["model_info"]["additional_details"]
    assert details["deployment_type"] in ("self_deployed", "externally_managed", "unknown")
    assert details["model_availability"] == "unknown"
    assert all(isinstance(value, str) for value in details.values())
    top1, lost = said["evaluation_results"]
    assert top1["score_details"]["score"] == 0.9
    assert top1["score_details"]["uncertainty"] == {
        "confidence_interval": {"lower": 0.88, "upper": 0.92, "confidence_level": 0.95},
        "num_samples": 660,
    }
    assert (top1["metric_config"]["lower_is_better"], top1["metric_config"]["min_score"]) == (
        False,
        0.0,
    )
    assert (lost["metric_config"]["lower_is_better"], lost["metric_config"]["min_score"]) == (
        True,
        -1.0,
    )
    assert lost["score_details"]["details"]["case_verdict"] == "INCONCLUSIVE"


def test_numbers_of_analyses_leave_as_what_they_are_and_for_no_benchmark(gate, entry):
    numbers = {
        "text_box_relevance": "ratio",
        "critical_heads": "count",
        "insertion_auc": "proportion",
    }
    analyses = [
        entry(None, case=f"{task}/typographic/typo/mini-clip", row={"metric": name, "value": 1.0})
        for task, name in zip(("relevance", "heads", "faithfulness"), numbers, strict=True)
    ]
    heads = entry(None, case="heads/clean/plain/mini-clip", row={"metric": "top1"})
    said = gate("partial", entry(), *analyses, heads)

    record = every_eval_ever(said, "mini-clip", organization="acme")
    units = {
        r["metric_config"]["metric_name"]: r["metric_config"]["metric_unit"]
        for r in record["evaluation_results"]
    }
    assert units == {"top1": "proportion", **numbers}
    found = hub_results(said, "mini-clip", benchmarks={"plain": "acme/plain:test"})
    assert len(found) == 1
    assert "classification/clean/plain" in found[0]["notes"]
    with pytest.raises(ReportError, match="got none"):
        hub_results(said, "mini-clip", benchmarks={"typo": "acme/typo"})


def test_numbers_of_an_incomplete_case_do_not_leave(gate, entry):
    said = gate("incomplete", entry("INCOMPLETE", name="short"), entry())

    record = every_eval_ever(said, "mini-clip", organization="acme")
    assert [r["evaluation_name"] for r in record["evaluation_results"]] == [
        "classification/clean/plain"
    ]
    with pytest.raises(ReportError, match="no case was measured as planned"):
        every_eval_ever(gate("incomplete", entry("INCOMPLETE")), "mini-clip", organization="a")
    with pytest.raises(ReportError, match="unknown model of this run 'mini-clop', did you mean"):
        every_eval_ever(said, "mini-clop", organization="acme")


def test_the_hub_reads_its_entries(gate, entry):
    said = gate("fail", entry("FAIL"), entry(name="other"))

    (one,) = parse_eval_result_entries(
        hub_results(said, "mini-clip", benchmarks={"plain": "acme/plain:zero-shot"})
    )

    assert (one.dataset_id, one.task_id, one.value) == ("acme/plain", "zero-shot", 0.9)
    assert one.date == "2027-01-15T08:00:00Z"
    assert "FAIL by natadv" in one.notes
    assert "n 660" in one.notes


def test_the_hub_gets_only_what_is_a_benchmark_there(gate, entry):
    said = gate("pass", entry())

    with pytest.raises(ReportError, match="name them by --benchmark"):
        hub_results(said, "mini-clip", benchmarks={})
    with pytest.raises(ReportError, match="unknown dataset of this run 'plane', did you mean"):
        hub_results(said, "mini-clip", benchmarks={"plane": "acme/plain"})

"""`natadv judge`, `natadv report`, `natadv evidence ...`, `natadv verify` and `natadv schema`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from natadv.cli import shared_options as opt
from natadv.errors import ConfigError, NatadvError, ReportError
from natadv.exit_codes import DONE, NOT_GREEN
from natadv.report.gate_json import GateJson, read_gate_json

app = opt.command_group()
evidence = opt.command_group("Pack the evidence of a run into one file, and state what it shows.")
app.add_typer(evidence, name="evidence")

Format = Literal[
    "html",
    "junit",
    "summary",
    "comment",
    "annotations",
    "sarif",
    "verdict",
    "every-eval-ever",
    "hub",
]

_Gate = Annotated[Path, opt.path("of the last run", metavar="FILE")]
_Model = Annotated[
    str | None, opt.text("MODEL", "of every-eval-ever and hub, if the run has several")
]


@app.command(
    cls=opt.Command,
    epilog=opt.example('natadv report --format summary >> "$GITHUB_STEP_SUMMARY"'),
)
def report(
    format: Annotated[Format, opt.text("FORMAT", "see above")] = "html",
    out: Annotated[
        Path | None,
        opt.output("default: the terminal; allure-report/index.html for html", metavar="FILE"),
    ] = None,
    gate_json: _Gate = opt.GATE_JSON,
    results: Annotated[Path, opt.path("Allure results of the last run, for html")] = Path(
        "allure-results"
    ),
    pictures_url: Annotated[
        str | None, opt.text("URL", "where the files of --sheets lie, for summary and comment")
    ] = None,
    model: _Model = None,
    organization: Annotated[
        str, opt.text("NAME", "who ran the gate, for every-eval-ever")
    ] = "unknown",
    benchmark: Annotated[
        list[str] | None, opt.text("DATASET=OWNER/NAME...", "benchmarks of the hub, for hub")
    ] = None,
) -> None:
    """Write the last run as a report, from gate.json alone: html (from Allure's results), junit,
    summary (Markdown for a job of GitHub Actions), comment (for a pull request), annotations,
    sarif, verdict (one word), every-eval-ever (JSON) or hub (YAML for .eval_results/ of a model's
    repository).
    """
    if format == "html":
        from natadv.report.html import write_report

        page = out or Path("allure-report") / "index.html"
        kept = Path(".natadv").absolute()
        write_report(results, page, tools=kept / "tools", history=kept / "history.jsonl")
        print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")
        return
    gate = read_gate_json(gate_json)
    if format in ("every-eval-ever", "hub"):
        text = _exported(gate, format, model, organization, _benchmarks(benchmark or ()))
    else:
        text = _written(gate, format, pictures_url)
    if out is None:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
        return
    from natadv.storage.atomic import replace_file

    replace_file(out, text, remedy="give another --out FILE")
    print(out)


def _written(gate: GateJson, format: Format, pictures_url: str | None) -> bytes:
    if format == "verdict":
        return f"{gate.verdict}\n".encode()
    if format == "junit":
        from natadv.report.junit import junit_xml

        return junit_xml(gate)
    if format in ("summary", "comment"):
        from natadv.report import markdown

        write = markdown.summary if format == "summary" else markdown.comment
        return write(gate, pictures_url=pictures_url).encode()
    from natadv.report import findings

    if format == "annotations":
        return "".join(f"{line}\n" for line in findings.github_annotations(gate)).encode()
    return (json.dumps(findings.sarif(gate), indent=1) + "\n").encode()


def _exported(
    gate: GateJson,
    format: Format,
    model: str | None,
    organization: str,
    benchmarks: Mapping[str, str],
) -> bytes:
    from natadv.report.eval_exports import every_eval_ever, hub_results

    models = gate.selection.models
    if model is None and len(models) != 1:
        raise ReportError(f"the run is about {', '.join(models)}; name one of them by --model")
    name = model or models[0]
    if format == "every-eval-ever":
        record = every_eval_ever(gate, name, organization=organization)
        return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()
    import yaml

    entries = hub_results(gate, name, benchmarks=benchmarks)
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=True).encode()


def _benchmarks(given: Sequence[str]) -> dict[str, str]:
    """Dataset -> repository of `DATASET=OWNER/NAME`. Raises ConfigError."""
    found = {}
    for text in given:
        dataset, equals, repository = text.partition("=")
        if not (dataset and equals and "/" in repository):
            raise ConfigError(f"--benchmark: expected DATASET=OWNER/NAME, got {text!r}")
        found[dataset] = repository
    return found


@app.command(
    cls=opt.Command, epilog=opt.example("natadv judge --evidence merged --gate-json gate.json")
)
def judge(
    evidence: Annotated[Path, opt.path("of a run, or of natadv merge")] = opt.EVIDENCE,
    gate_json: Annotated[Path, opt.output("gets the verdict", metavar="FILE")] = opt.GATE_JSON,
    thresholds: opt.Thresholds = opt.CONTRACT,
    datasets: Annotated[
        Path | None, opt.path("with the cards; default: fixtures/datasets beside the contract")
    ] = None,
    baseline: Annotated[
        str | None, opt.text("NAME", "in baselines/, or a folder of evidence, to compare with")
    ] = None,
    sheets: Annotated[Path | None, opt.path("holds the contact sheets that the run left")] = None,
) -> int:
    """Judge stored evidence as `python -m natadv.gate` does, and write gate.json, from which
    `natadv report` and `natadv evidence pack` work. No model is loaded.

    Exit codes: 0 green, 1 not green, 4 a file is wrong.
    """
    from natadv.bundle.judged import write_verdict

    gate = write_verdict(
        gate_json,
        evidence=evidence,
        thresholds=thresholds,
        datasets=datasets,
        baseline=baseline,
        sheets=sheets,
    )
    opt.tell(*gate.reasons, *gate.useless_waivers, gate.headline)
    return DONE if gate.green else NOT_GREEN


@app.command(cls=opt.Command, epilog=opt.example("natadv schema > gate.schema.json"))
def schema() -> None:
    """Print the JSON schema of gate.json."""
    from natadv.report.gate_json import SCHEMA

    print(SCHEMA.read_text(encoding="utf-8"), end="")


@evidence.command(
    cls=opt.Command,
    short_help="put all that a verdict rests on into one zip file",
    epilog=opt.example("natadv evidence pack --out evidence.zip"),
)
def pack(
    out: Annotated[Path, opt.output("the archive", metavar="FILE")] = Path("evidence.zip"),
    gate_json: _Gate = opt.GATE_JSON,
    evidence: Annotated[Path, opt.path("of that run")] = opt.EVIDENCE,
    thresholds: Annotated[Path, opt.path("that it was judged by", metavar="FILE")] = opt.CONTRACT,
    datasets: Annotated[
        Path | None, opt.path("with the cards; default: fixtures/datasets and those of packages")
    ] = None,
    baseline: Annotated[
        str | None,
        opt.text(
            "NAME",
            "that it was compared with, in baselines/ or a folder; default: as in gate.json",
        ),
    ] = None,
) -> int:
    """Pack gate.json, the outcome rows, the contract, the cards of the datasets, the baseline and
    the contact sheets, and verify what was packed. Equal contents give equal bytes.
    """
    from natadv.bundle.archive import Contents, write_archive
    from natadv.bundle.verify import verify
    from natadv.data.card import find_datasets
    from natadv.gate.kept_baselines import baseline_folder
    from natadv.gate.stored import cards_in
    from natadv.storage.atomic import replacing, writing

    compared = read_gate_json(gate_json).baseline
    if baseline and not compared:
        raise ConfigError(f"--baseline {baseline}: {gate_json} was compared with no baseline")
    named = baseline or compared
    folder = named and baseline_folder(named, here=Path(), root=thresholds.parent)
    if folder and not folder.is_dir():
        raise ConfigError(f"--baseline {named}: no such folder of evidence")
    cards = cards_in(datasets) if datasets else find_datasets(Path())
    contents = Contents(gate_json, evidence, thresholds, cards, folder or None)
    # An archive that is there already stays if this one cannot be verified.
    with writing(out, remedy="give another --out FILE"), replacing(out) as fresh:
        write_archive(fresh, contents)
        try:
            found = verify(fresh)
        except ReportError as error:
            why = str(error).replace(str(fresh), str(out))
            raise ReportError(f"not packed, as it could not be verified: {why}") from error
    size = f"{out.stat().st_size / 1e6:.1f} MB"
    opt.tell(
        f"{out} ({size}, {len(found.files)} files): {found.gate.headline}; sha256 {found.sha256}"
    )
    return DONE


@evidence.command(
    cls=opt.Command,
    short_help="write an in-toto statement about it, to be signed",
    epilog=opt.example("natadv evidence statement evidence.zip --out attestation"),
)
def statement(
    archive: Annotated[Path, opt.argument("EVIDENCE.ZIP", "of natadv evidence pack")],
    out: Annotated[Path, opt.output("gets the files")] = Path("attestation"),
    weights: Annotated[
        list[Path] | None, opt.path("files that the statement is about too", metavar="FILE...")
    ] = None,
) -> None:
    """Verify an evidence.zip and write what it shows as an in-toto test-result: statement.json,
    and for actions/attest predicate.json, predicate-type.txt and subjects.txt (sha256sum's format).
    """
    from natadv.bundle.statement import TEST_RESULT
    from natadv.bundle.statement import statement as stated
    from natadv.bundle.verify import verify
    from natadv.report.results import run_url
    from natadv.storage.atomic import replace_file
    from natadv.storage.hashes import digest_of

    found = verify(archive)
    try:
        files = {path.name: digest_of(path) for path in weights or ()}
    except OSError as error:
        raise ReportError(f"--weights: {error.filename}: {error.strerror or error}") from error
    content = stated(found, name=archive.name, weights=files, url=run_url())
    subjects = {archive.name: found.sha256, **files}
    texts = {
        "statement.json": json.dumps(content, indent=1) + "\n",
        "predicate.json": json.dumps(content["predicate"], indent=1) + "\n",
        "predicate-type.txt": TEST_RESULT + "\n",
        "subjects.txt": "".join(f"{digest}  {name}\n" for name, digest in subjects.items()),
    }
    for name, text in texts.items():
        replace_file(out / name, text.encode(), remedy="give another --out DIR")
    print(f"{out}: {content['predicate']['result']}, about {', '.join(subjects)}")


@app.command(
    cls=opt.Command,
    epilog=opt.example("natadv verify evidence.zip --tier release --max-age 7"),
)
def verify(
    archive: Annotated[Path, opt.argument("EVIDENCE.ZIP", "of natadv evidence pack")],
    thresholds: Annotated[
        Path | None, opt.path("the only contract that is accepted", metavar="FILE")
    ] = None,
    max_age: Annotated[
        float | None,
        opt.number("oldest run that is accepted", "DAYS", lambda days: days > 0, "above 0"),
    ] = None,
    tier: Annotated[
        str | None, opt.text("NAME", "the only tier that is accepted, and only as a whole")
    ] = None,
    model: Annotated[list[str] | None, opt.text("MODEL...", "all models that it is about")] = None,
    statement: Annotated[
        Path | None, opt.path("an in-toto statement that must agree", metavar="FILE")
    ] = None,
) -> int:
    """Recompute every verdict of an evidence.zip from its rows, without torch, and compare it with
    gate.json.

    Exit codes: 0 verified and green, 1 verified and not green, 4 damaged, edited, or not what the
    options ask for.
    """
    from natadv.bundle import statement as in_toto
    from natadv.bundle.verify import Policy, report_lines
    from natadv.bundle.verify import verify as verified

    names = opt.names_of(model)
    policy = Policy(thresholds=thresholds, max_age_days=max_age, tier=tier, models=names)
    try:
        found = verified(archive, policy=policy)
        if statement is not None:
            in_toto.require_about(statement, in_toto.read_statement(statement), found)
            print(f"{statement}: is about this evidence; its signature is not checked here")
    except NatadvError as error:
        raise ReportError(f"NOT VERIFIED: {error}") from error
    opt.tell(*report_lines(found, policy))
    return DONE if found.green(policy) else NOT_GREEN

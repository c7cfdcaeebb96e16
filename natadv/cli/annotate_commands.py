"""`natadv annotate masks|questions ...`"""

from __future__ import annotations

import math
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from natadv.cli import shared_options as opt
from natadv.errors import ConfigError
from natadv.evaluate.devices import usable_device
from natadv.models.grounding import BOX_THRESHOLD, BOXES, MASKS, TEXT_THRESHOLD

if TYPE_CHECKING:
    from natadv.annotate.endpoint import RequestOptions
    from natadv.annotate.job import AnnotationJob, AnnotationResult
    from natadv.annotate.usage_limits import CostLedger

_REVIEW = (
    "The results are written to fixtures/annotations/NAME/review.jsonl, one line per picture, and "
    "to contact sheets beside it. Edit that file and run the command again with --force: existing "
    "lines are kept, and lines that you deleted are made anew. A run that was killed continues "
    "where it stopped."
)
_Tool = Annotated[str, opt.text("MODEL", "a folder, or owner/name as natadv models fetch takes it")]

app = opt.command_group()
annotate = opt.command_group(
    "Give a dataset masks or questions that a person can review.", metavar="KIND"
)
app.add_typer(annotate, name="annotate")


def _probability(about: str) -> Any:
    return opt.number(about, "P", lambda value: 0 <= value < 1, "from 0 to below 1")


def _amount(metavar: str, about: str) -> Any:
    return opt.number(about, metavar, lambda value: 0 < value < math.inf, "above 0")


_Price = Annotated[float | None, _amount("C", "per million tokens, in any currency")]


@annotate.command(
    "masks",
    cls=opt.Command,
    short_help="by Grounding DINO and SAM",
    epilog=opt.example("natadv annotate masks mini --name mini-masks --limit 20", more=_REVIEW),
)
def annotate_masks(
    dataset: opt.Dataset,
    name: opt.NewName,
    boxes: _Tool = BOXES,
    masks: _Tool = MASKS,
    box_threshold: Annotated[float, _probability("of a box")] = BOX_THRESHOLD,
    text_threshold: Annotated[float, _probability("of words noted with it")] = TEXT_THRESHOLD,
    limit: opt.Limit = None,
    device: opt.Device = "auto",
    threads: opt.Threads = opt.CPUS,
    force: opt.Force = False,
    root: opt.Root = Path(),
) -> None:
    """Find with Grounding DINO what the label (or the phrase) of each picture names, outline it
    with SAM, and pack the pictures that have a box."""
    from natadv.annotate import mask_annotation
    from natadv.annotate.job import AnnotationJob
    from natadv.models.grounding import load, tool

    job = AnnotationJob(dataset=dataset, name=name, root=root, limit=limit, force=force)
    tools = tool(boxes, "grounding-dino", root=root), tool(masks, "sam", root=root)
    result = mask_annotation.annotate_masks(
        job,
        mask_annotation.MaskSettings(
            models={checkpoint.name: checkpoint.sha256 for checkpoint in tools},
            box_threshold=box_threshold,
            text_threshold=text_threshold,
        ),
        load=partial(load, *tools, device=usable_device(device), threads=threads),
        progress_to=sys.stderr,
    )
    print(_summary(result, job))


@annotate.command(
    "questions",
    cls=opt.Command,
    short_help="by templates or by an endpoint",
    epilog=opt.example("natadv annotate questions mini --name mini-asked", more=_REVIEW),
)
def annotate_questions(
    dataset: opt.Dataset,
    name: opt.NewName,
    per_picture: Annotated[int, opt.count("questions about a picture")] = 3,
    seed: opt.Seed = 1,
    model: Annotated[str | None, opt.text("NAME", "as the endpoint calls it")] = None,
    at_once: Annotated[int, opt.count("requests to the endpoint at a time")] = 4,
    per_minute: Annotated[float | None, _amount("N", "requests at most")] = None,
    timeout: Annotated[float, _amount("S", "of a request")] = 60.0,
    side: Annotated[int, opt.count("scale pictures down to it", metavar="PX")] = 1024,
    price_in: _Price = None,
    price_out: _Price = None,
    budget: Annotated[float | None, _amount("C", "stop when it is spent")] = None,
    limit: opt.Limit = None,
    force: opt.Force = False,
    root: opt.Root = Path(),
) -> None:
    """Ask questions about each picture: offline by templates whose answers its label and mask
    decide, or with --model by any endpoint that speaks OpenAI's chat completions (OPENAI_BASE_URL
    and OPENAI_API_KEY of the environment)."""
    from natadv.annotate import question_annotation as questions
    from natadv.annotate.endpoint import RequestOptions
    from natadv.annotate.job import AnnotationJob
    from natadv.annotate.question_templates import TemplateProposer
    from natadv.annotate.usage_limits import CostLedger

    if model and budget is not None and not (price_in or price_out):
        raise ConfigError("--budget needs --price-in or --price-out; without them nothing costs")
    job = AnnotationJob(dataset=dataset, name=name, root=root, limit=limit, force=force)
    if model:
        requests = RequestOptions(
            model=model,
            per_picture=per_picture,
            side_px=side,
            timeout_s=timeout,
            per_minute=per_minute,
        )
        spent = job.folder / "spent.jsonl"
        ledger = CostLedger(spent, price_in or 0.0, price_out or 0.0, budget)
        result = _by_endpoint(job, requests, ledger, at_once)
    else:
        # Templates gain nothing from threads, but from writing many lines together.
        settings = questions.QuestionSettings(
            about={"by": "templates", "per_picture": per_picture, "seed": seed}, per_write=256
        )
        templates = TemplateProposer(per_picture=per_picture, seed=seed)
        result = questions.annotate_questions(
            job, settings, proposer=lambda: templates, progress_to=sys.stderr
        )
    print(_summary(result, job))


def _by_endpoint(
    job: AnnotationJob, requests: RequestOptions, ledger: CostLedger, at_once: int
) -> AnnotationResult:
    """Ask an endpoint, and print what it has cost, even if the run fails."""
    from natadv.annotate.credentials import endpoint_of
    from natadv.annotate.endpoint import EndpointProposer
    from natadv.annotate.question_annotation import QuestionSettings, annotate_questions

    about = {"by": requests.model, "per_picture": requests.per_picture}
    try:
        return annotate_questions(
            job,
            QuestionSettings(about=about, at_once=at_once),
            proposer=lambda: EndpointProposer(endpoint_of(os.environ), requests, ledger),
            progress_to=sys.stderr,
        )
    finally:
        if ledger.replies or ledger.uncounted:
            print(f"spent so far: {ledger.summary()}", file=sys.stderr)


def _summary(result: AnnotationResult, job: AnnotationJob) -> str:
    return (
        f"{job.output}: {result.card.rows} samples, {result.left_out} pictures left out, revision "
        f"{result.card.revision[:12]}\nreview: {job.review}, {result.pages} sheets in "
        f"{job.folder / 'sheets'}"
    )

"""`natadv annotate masks|questions ...`"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from natadv.cli import shared_options as opt
from natadv.errors import ConfigError
from natadv.evaluate.devices import device_kind
from natadv.models.grounding import BOX_THRESHOLD, BOXES, MASKS, TEXT_THRESHOLD

if TYPE_CHECKING:
    from natadv.annotate.endpoint import RequestOptions
    from natadv.annotate.job import AnnotationJob, AnnotationResult
    from natadv.annotate.usage_limits import Prices

_REVIEW = (
    "What was found goes into fixtures/annotations/NAME/review.jsonl, one line per picture, and "
    "onto contact sheets beside it. Edit that file and run the command again with --force: a line "
    "that is there is kept, a line that was deleted is made anew. A run that was killed goes on."
)
_MASKS = (
    "Find what the label (or the phrase) of each picture names with Grounding DINO, outline it "
    f"with SAM, and pack the pictures that have a box. {_REVIEW}"
)
_QUESTIONS = (
    "Ask questions about each picture: offline by templates that its label and mask decide, or "
    "with --model by any endpoint that speaks OpenAI's chat completions (OPENAI_BASE_URL and "
    f"OPENAI_API_KEY of the environment). {_REVIEW}"
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


@annotate.command("masks", cls=opt.Command, help=_MASKS, short_help="by Grounding DINO and SAM")
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
    from natadv.annotate import mask_annotation
    from natadv.annotate.job import AnnotationJob
    from natadv.models.grounding import load, tool

    job = AnnotationJob(dataset=dataset, name=name, root=root, limit=limit, force=force)
    box_tool = tool(boxes, "grounding-dino", root=root)
    mask_tool = tool(masks, "sam", root=root)
    settings = mask_annotation.MaskSettings(
        models={box_tool.name: box_tool.sha256, mask_tool.name: mask_tool.sha256},
        box_threshold=box_threshold,
        text_threshold=text_threshold,
    )
    kind = device_kind(device)
    made = mask_annotation.annotate_masks(
        job,
        settings,
        load=lambda: mask_annotation.Grounding(
            *load(box_tool, mask_tool, device=kind, threads=threads)
        ),
        progress_to=sys.stderr,
    )
    print(_summary(made, job))


@annotate.command(
    "questions", cls=opt.Command, help=_QUESTIONS, short_help="by templates or by an endpoint"
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
    side: Annotated[int, opt.count("scale what is sent down to it", metavar="PX")] = 1024,
    price_in: Annotated[float | None, _amount("C", "per million tokens, in any currency")] = None,
    price_out: Annotated[float | None, _amount("C", "per million tokens, in any currency")] = None,
    budget: Annotated[float | None, _amount("C", "stop when it is spent")] = None,
    limit: opt.Limit = None,
    force: opt.Force = False,
    root: opt.Root = Path(),
) -> None:
    from natadv.annotate.job import AnnotationJob

    if model and budget is not None and not (price_in or price_out):
        raise ConfigError("--budget needs --price-in and --price-out; else nothing costs anything")
    job = AnnotationJob(dataset=dataset, name=name, root=root, limit=limit, force=force)
    if not model:
        made = _by_templates(job, per_picture, seed)
    else:
        from natadv.annotate.endpoint import RequestOptions
        from natadv.annotate.usage_limits import Prices

        requests = RequestOptions(
            model=model,
            per_picture=per_picture,
            side_px=side,
            timeout_s=timeout,
            per_minute=per_minute,
        )
        prices = Prices(prompt=price_in or 0.0, completion=price_out or 0.0, budget=budget)
        made = _by_endpoint(job, requests, prices, at_once)
    print(_summary(made, job))


def _by_templates(job: AnnotationJob, per_picture: int, seed: int) -> AnnotationResult:
    from natadv.annotate.question_annotation import QuestionSettings, annotate_questions
    from natadv.annotate.question_templates import TemplateProposer

    templates = TemplateProposer(per_picture=per_picture, seed=seed)
    about = {"by": "templates", "per_picture": per_picture, "seed": seed}
    # Lines are written so many at a time; nothing is gained by threads.
    settings = QuestionSettings(by="templates", about=about, at_once=1, per_write=256)
    return annotate_questions(job, settings, proposer=lambda: templates, progress_to=sys.stderr)


def _by_endpoint(
    job: AnnotationJob, requests: RequestOptions, prices: Prices, at_once: int
) -> AnnotationResult:
    from natadv.annotate.credentials import endpoint_of
    from natadv.annotate.endpoint import EndpointProposer
    from natadv.annotate.question_annotation import QuestionSettings, annotate_questions
    from natadv.annotate.usage_limits import CostLedger

    ledger = CostLedger(job.folder / "spent.jsonl", prices)
    about = {"by": requests.model, "per_picture": requests.per_picture}
    try:
        return annotate_questions(
            job,
            QuestionSettings(by=requests.model, about=about, at_once=at_once),
            proposer=lambda: EndpointProposer(endpoint_of(os.environ), requests, ledger),
            progress_to=sys.stderr,
        )
    finally:
        if ledger.replies or ledger.uncounted:
            print(f"spent so far: {ledger.summary()}", file=sys.stderr)


def _summary(made: AnnotationResult, job: AnnotationJob) -> str:
    return (
        f"{job.output}: {made.card.rows} samples, {made.left_out} pictures left out, revision "
        f"{made.card.revision[:12]}\nreview: {job.review}, {made.pages} sheets in "
        f"{job.folder / 'sheets'}"
    )

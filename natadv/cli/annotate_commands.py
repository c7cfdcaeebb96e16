"""`natadv annotate masks|questions ...`"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from natadv.arguments import count
from natadv.errors import ConfigError
from natadv.evaluate.devices import device_kind
from natadv.models.grounding.loading import BOX_THRESHOLD, BOXES, MASKS, TEXT_THRESHOLD

if TYPE_CHECKING:
    from natadv.pipelines.annotate.endpoint import Manner
    from natadv.pipelines.annotate.job import Job
    from natadv.pipelines.annotate.masks import Made

PER_PICTURE, SEED = 3, 1
_REVIEW = (
    "What was found goes into fixtures/annotations/NAME/review.jsonl, one line per picture, and "
    "onto sheets of pictures beside it. Edit that file and run the command again with --force: a "
    "line that is there wins, a line that was deleted is found anew. A run that was killed goes on."
)


def add_annotate_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `annotate`; the parsed namespace carries `handler`, which returns the exit code."""
    text = "give a dataset masks or questions that a person can review"
    parser = subparsers.add_parser("annotate", help=text, description=text)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    _add_masks(kinds)
    _add_questions(kinds)


def _add_masks(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = kinds.add_parser(
        "masks",
        help="masks of what the labels name, by Grounding DINO and SAM",
        description="Find what the label (or the phrase) of each picture names with Grounding "
        "DINO, draw it with SAM, and pack the pictures where there is a box. " + _REVIEW,
    )
    _add_common(parser)
    named = "a folder, or owner/name that natadv models fetch has brought"
    parser.add_argument("--boxes", default=BOXES, metavar="MODEL", help=f"{named} (%(default)s)")
    parser.add_argument("--masks", default=MASKS, metavar="MODEL", help=f"{named} (%(default)s)")
    parser.add_argument("--box-threshold", type=_share, default=BOX_THRESHOLD, metavar="P")
    parser.add_argument(
        "--text-threshold",
        type=_share,
        default=TEXT_THRESHOLD,
        metavar="P",
        help="of the words that are noted with a box (%(default)s)",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (a GPU if seen)")
    parser.add_argument("--threads", type=count, default=os.cpu_count() or 1, metavar="N")
    parser.set_defaults(handler=_masks)


def _add_questions(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = kinds.add_parser(
        "questions",
        help="questions and answers, by templates or by a model behind an endpoint",
        description="Ask questions about each picture: offline by templates that its label and "
        "mask decide, or with --model by any endpoint that speaks OpenAI's chat completions "
        "(OPENAI_BASE_URL and OPENAI_API_KEY of the environment). " + _REVIEW,
    )
    _add_common(parser)
    parser.add_argument("--per-picture", type=count, default=PER_PICTURE, metavar="N")
    parser.add_argument("--seed", type=int, default=SEED, help="of the templates (%(default)s)")
    endpoint = parser.add_argument_group("with an endpoint")
    endpoint.add_argument("--model", metavar="NAME", help="as the endpoint calls it")
    endpoint.add_argument("--at-once", type=count, default=4, metavar="N", help="(%(default)s)")
    endpoint.add_argument("--per-minute", type=_amount, metavar="N", help="requests at most")
    endpoint.add_argument(
        "--timeout", type=_amount, default=60.0, metavar="S", help="(%(default)s)"
    )
    endpoint.add_argument(
        "--side", type=count, default=1024, metavar="PX", help="scale down to it (%(default)s)"
    )
    million = "per million tokens, in any currency"
    endpoint.add_argument("--price-in", type=_amount, default=0.0, metavar="C", help=million)
    endpoint.add_argument("--price-out", type=_amount, default=0.0, metavar="C", help=million)
    endpoint.add_argument("--budget", type=_amount, metavar="C", help="stop when it is spent")
    parser.set_defaults(handler=_questions)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="of natadv data list")
    parser.add_argument("--name", required=True, help="of the dataset to make")
    parser.add_argument("--limit", type=count, metavar="N", help="the first N pictures only")
    parser.add_argument("--force", action="store_true", help="replace a dataset of that name")
    parser.add_argument(
        "--root", type=Path, default=Path(), help="holds fixtures/; default: the working directory"
    )


def _masks(options: argparse.Namespace) -> int:
    # Here, for `natadv --help` needs no torch.
    from natadv.models.grounding.loading import load, tool
    from natadv.pipelines.annotate.masks import Grounding, Settings, annotate_masks

    job = _job(options)
    boxes = tool(options.boxes, "grounding-dino", root=options.root)
    masks = tool(options.masks, "sam", root=options.root)
    settings = Settings(
        models={boxes.name: boxes.sha256, masks.name: masks.sha256},
        box_threshold=options.box_threshold,
        text_threshold=options.text_threshold,
    )
    device = device_kind(options.device)

    def loaded() -> Grounding:
        return Grounding(*load(boxes, masks, device=device, threads=options.threads))

    made = annotate_masks(job, settings, load=loaded, progress_to=sys.stderr)
    print(_told(made, job))
    return 0


def _questions(options: argparse.Namespace) -> int:
    return _by_endpoint(options) if options.model else _by_templates(options)


def _by_templates(options: argparse.Namespace) -> int:
    from natadv.pipelines.annotate.proposing import Templates
    from natadv.pipelines.annotate.questions import Settings, annotate_questions

    job = _job(options)
    asked = Templates(per_picture=options.per_picture, seed=options.seed)
    about = {"by": "templates", "per_picture": asked.per_picture, "seed": asked.seed}
    # Lines are written so many at a time; nothing is gained by threads.
    settings = Settings(by="templates", about=about, at_once=1, per_write=256)
    made = annotate_questions(job, settings, proposer=lambda: asked, progress_to=sys.stderr)
    print(_told(made, job))
    return 0


def _by_endpoint(options: argparse.Namespace) -> int:
    from natadv.pipelines.annotate.cost_ledger import Ledger, Prices
    from natadv.pipelines.annotate.credentials import endpoint_of
    from natadv.pipelines.annotate.endpoint import EndpointProposer
    from natadv.pipelines.annotate.questions import Settings, annotate_questions

    if options.budget is not None and not (options.price_in or options.price_out):
        raise ConfigError("--budget needs --price-in and --price-out; else nothing costs anything")
    job = _job(options)
    prices = Prices(prompt=options.price_in, completion=options.price_out, budget=options.budget)
    ledger = Ledger(job.folder / "spent.jsonl", prices)
    manner = _manner(options)
    settings = Settings(
        by=options.model,
        about={"by": options.model, "per_picture": manner.per_picture},
        at_once=options.at_once,
    )

    def proposer() -> EndpointProposer:
        return EndpointProposer(endpoint_of(os.environ), manner, ledger)

    try:
        made = annotate_questions(job, settings, proposer=proposer, progress_to=sys.stderr)
    finally:
        if ledger.replies or ledger.untold:
            print(f"spent so far: {ledger.told()}", file=sys.stderr)
    print(_told(made, job))
    return 0


def _manner(options: argparse.Namespace) -> Manner:
    from natadv.pipelines.annotate.endpoint import Manner

    return Manner(
        model=options.model,
        per_picture=options.per_picture,
        side_px=options.side,
        timeout_s=options.timeout,
        per_minute=options.per_minute,
    )


def _job(options: argparse.Namespace) -> Job:
    from natadv.pipelines.annotate.job import Job

    return Job(
        dataset=options.dataset,
        name=options.name,
        root=options.root,
        limit=options.limit,
        force=options.force,
    )


def _told(made: Made, job: Job) -> str:
    return (
        f"{job.made}: {made.card.rows} samples, {made.left_out} pictures left out, revision "
        f"{made.card.revision[:12]}\nreview: {job.review}, {made.pages} sheets in "
        f"{job.folder / 'sheets'}"
    )


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to below 1, got {text}")
    return value


def _amount(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value

"""Questions for a dataset: proposed, reviewed, stored as VQA v2 does, packed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TextIO

from natadv.data.card import Card
from natadv.data.writer import write_dataset
from natadv.errors import DataError, ModelError
from natadv.evaluate.datasets import Dataset
from natadv.pipelines.annotate.asking import Asking
from natadv.pipelines.annotate.job import Job, draft
from natadv.pipelines.annotate.masks import Made
from natadv.pipelines.annotate.proposing import Proposer, Rejected
from natadv.pipelines.annotate.sheets import questions_tile, write_sheets
from natadv.report.sheet import Tile
from natadv.scenarios.annotate import vqa_v2
from natadv.scenarios.annotate.review import QuestionsLine, Review
from natadv.storage.atomic import write_whole
from natadv.storage.progress import Progress
from natadv.types import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decides the questions, beside the picture."""

    by: str
    """Who thinks of them, for the card."""
    about: Mapping[str, Any]
    """All that a run that goes on must have in common with the one before."""
    at_once: int = 1
    """Pictures that are asked about at the same time."""
    per_write: int = 1
    """Batches of these that are written to the disk together."""


def annotate_questions(
    job: Job,
    settings: Settings,
    *,
    proposer: Callable[[], Proposer],
    progress_to: TextIO,
) -> Made:
    """Ask about what the review file lacks, then pack what it keeps.

    Raises:
        ConfigError: The dataset exists, or the review file was begun otherwise.
        DataError: A line or a picture is not what it must be; nothing is packed then.
        ModelError: The endpoint gives nothing of use; what it gave before is kept.
    """
    source = job.source()
    with job.alone():
        lines = _ask_all(job, settings, source, proposer, progress_to)
        kept = {name: line for name, line in lines.items() if line.keep}
        if not kept:
            raise DataError(
                f"{job.review}: no picture is kept of {len(lines)}; see the notes in that file"
            )
        _store(job, settings, lines)
        how = f"questions by {settings.by}"
        card: Card = write_dataset(
            job.made,
            draft(job, source, task="vqa", how=how, pictures=len(kept)),
            _samples(job, source, kept),
            force=job.force,
        )
        pages = write_sheets(
            job.folder,
            _tiles(job, source, lines),
            title=f"{job.name}: {how}",
            progress=Progress("sheets", len(lines), unit="pictures", stream=progress_to),
        )
    return Made(card, len(lines) - len(kept), pages)


def _ask_all(
    job: Job,
    settings: Settings,
    source: Dataset,
    proposer: Callable[[], Proposer],
    progress_to: TextIO,
) -> dict[str, QuestionsLine]:
    """The line of every picture that is taken, in the dataset's order."""
    about = {
        "review": "questions",
        "dataset": source.name,
        "revision": source.card.revision,
        **settings.about,
    }
    review = Review(job.review, QuestionsLine, about=about)
    said = review.lines()
    found: dict[str, QuestionsLine] = {}
    progress = Progress("questions", job.count(source), unit="pictures", stream=progress_to)
    left_out = 0

    def tell(note: str) -> None:
        progress.reach(len(found), note=note)

    ask = Asking(source.card.classes, settings.at_once, proposer, tell)
    for part in _in_parts(job.samples(source), settings.at_once * settings.per_write):
        new, error = ask([sample for sample in part if sample.id not in said])
        review.append(new)
        if isinstance(error, Rejected):
            raise _for_a_person(error, review) from error
        if error is not None:
            raise error
        fresh = {line.id: line for line in new}
        found |= {sample.id: said.get(sample.id) or fresh[sample.id] for sample in part}
        left_out += sum(not found[sample.id].keep for sample in part)
        progress.reach(len(found), note=f"{left_out} left out")
    job.refuse_strangers(said, found)
    return found


def _for_a_person(error: Rejected, review: Review[QuestionsLine]) -> ModelError:
    """Who alone can tell whether it is the picture or the whole run."""
    line = QuestionsLine(id=error.sample, keep=False).model_dump_json(exclude_defaults=True)
    first = "" if review.begun() else f"begin it with {review.head}, then "
    return ModelError(
        f"{error}; if it is that picture alone, leave it out by hand in {review.path}: "
        f"{first}add the line {line}"
    )


def _store(job: Job, settings: Settings, lines: Mapping[str, QuestionsLine]) -> None:
    """Both files of VQA v2, and which picture has which image id: its place in the dataset."""
    numbers = {name: number for number, name in enumerate(lines, start=1)}
    asked = [(numbers[name], line.asked()) for name, line in lines.items() if line.keep]
    both = vqa_v2.stored(asked, info={"dataset": job.name, "by": settings.by})
    images = {str(numbers[name]): name for name, line in lines.items() if line.keep}
    contents = {
        "questions.json": both.questions.model_dump(mode="json"),
        "annotations.json": both.annotations.model_dump(mode="json"),
        "images.json": images,
    }
    for name, content in contents.items():
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
        write_whole(job.folder / name, text.encode())


def _samples(job: Job, source: Dataset, kept: Mapping[str, QuestionsLine]) -> Iterator[Sample]:
    for sample in job.samples(source):
        line = kept.get(sample.id)
        for number, one in enumerate(line.asked() if line else ()):
            yield replace(
                sample,
                id=f"{sample.id}#{number}",
                twin=None,
                overlay=None,
                phrase=None,
                mask=None,
                question=one.question,
                answers=(one.answer,) * vqa_v2.PEOPLE,
                answer_type=one.answer_type,
            )


def _tiles(job: Job, source: Dataset, lines: Mapping[str, QuestionsLine]) -> Iterator[Tile]:
    return (questions_tile(sample, lines[sample.id]) for sample in job.samples(source))


def _in_parts(samples: Iterator[Sample], size: int) -> Iterator[list[Sample]]:
    while part := list(islice(samples, size)):
        yield part

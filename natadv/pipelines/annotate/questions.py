"""Questions for a dataset: proposed, reviewed, stored as VQA v2 does, packed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TextIO, final

from natadv.data.card import Card
from natadv.data.writer import write_dataset
from natadv.engine.datasets import Dataset
from natadv.errors import DataError, ModelError
from natadv.pipelines.annotate.endpoint import UNUSABLE
from natadv.pipelines.annotate.masks import Made
from natadv.pipelines.annotate.proposing import Proposal, Proposer
from natadv.pipelines.annotate.sheets import questions_tile, write_sheets
from natadv.pipelines.annotate.workplace import Job, draft, write_bytes
from natadv.progress import Progress
from natadv.report.sheet import Tile
from natadv.scenarios.annotate import vqa_v2
from natadv.scenarios.annotate.review import QuestionsLine, Review
from natadv.types import Sample

MOST_UNUSABLE = 5
"""Pictures in a row without a reply of use, after which a model is given up."""


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
    ask = _Asking(source.card.classes, settings.at_once, proposer)
    for part in _in_parts(job.samples(source), settings.at_once * settings.per_write):
        new, error = ask([sample for sample in part if sample.id not in said])
        review.append(new)
        if error is not None:
            raise error
        fresh = {line.id: line for line in new}
        found |= {sample.id: said.get(sample.id) or fresh[sample.id] for sample in part}
        left_out += sum(not found[sample.id].keep for sample in part)
        progress.reach(len(found), note=f"{left_out} left out")
    job.refuse_strangers(said, found)
    return found


@final
class _Asking:
    """Asks about several pictures at once, and gives up a model that never answers usefully."""

    def __init__(
        self, classes: Sequence[str], at_once: int, proposer: Callable[[], Proposer]
    ) -> None:
        self._classes = classes
        self._at_once = at_once
        self._make = proposer
        self._proposer: Proposer | None = None
        self._unusable = 0

    def __call__(
        self, samples: Sequence[Sample]
    ) -> tuple[list[QuestionsLine], BaseException | None]:
        """The lines of those that were answered, and what went wrong with another one."""
        if not samples:
            return [], None
        self._proposer = self._proposer or self._make()
        with ThreadPoolExecutor(self._at_once, thread_name_prefix="ask") as pool:
            asked = [pool.submit(self._proposer.propose, s, self._classes) for s in samples]
            wait(asked)
        lines = [_line(s.id, f.result()) for s, f in zip(samples, asked, strict=True) if _ok(f)]
        error = next((future.exception() for future in asked if not _ok(future)), None)
        return lines, error or self._given_up(lines)

    def _given_up(self, lines: Iterable[QuestionsLine]) -> ModelError | None:
        for line in lines:
            self._unusable = self._unusable + 1 if line.note.startswith(UNUSABLE) else 0
            if self._unusable >= MOST_UNUSABLE:
                return ModelError(
                    f"{MOST_UNUSABLE} pictures in a row got no reply of use (the last: "
                    f"{line.note}); try another --model; to ask about them again, delete their "
                    "lines from the review file"
                )
        return None


def _ok(future: Future[Proposal]) -> bool:
    return future.exception() is None


def _line(name: str, proposal: Proposal) -> QuestionsLine:
    return QuestionsLine(
        id=name,
        keep=bool(proposal.asked),
        questions=tuple((one.question, one.answer) for one in proposal.asked),
        note=proposal.note,
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
        write_bytes(job.folder / name, text.encode())


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

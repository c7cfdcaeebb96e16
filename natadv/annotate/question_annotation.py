"""Questions for a dataset: proposed, reviewed, stored in the format of VQA v2, and packed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TextIO, final

from natadv.annotate.job import AnnotationJob, AnnotationResult
from natadv.annotate.question_templates import UNUSABLE, Proposal, Proposer, Rejected
from natadv.annotate.review import QuestionsLine, Review
from natadv.data.images import decode_image
from natadv.errors import DataError, ModelError
from natadv.evaluate.datasets import Dataset
from natadv.report.sheet import Panel, Tile
from natadv.storage.atomic import write_whole
from natadv.tasks.task import WRONG, Caption
from natadv.types import Sample

MOST_UNUSABLE = 5
"""After this many pictures in a row without a usable reply, the run ends."""
PEOPLE = 10
"""Answers to a question in VQA v2. Our one answer counts as that of ten people, so that the
official accuracy is 0 or 1."""
PER_PICTURE = 1000
"""Question ids are image id x 1000 + number, as in VQA v2."""

_REPORT_EVERY_S = 0.5
_MOST_ON_TILE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionSettings:
    """Everything besides the picture that decides the questions, and how many run at once."""

    by: str
    """The author of the questions, for the card."""
    about: Mapping[str, Any]
    """What a resumed run must have in common with the one before."""
    at_once: int = 1
    """Pictures that are asked about concurrently."""
    per_write: int = 1
    """Batches of that many pictures that are written to the disk together."""


def annotate_questions(
    job: AnnotationJob,
    settings: QuestionSettings,
    *,
    proposer: Callable[[], Proposer],
    progress_to: TextIO,
) -> AnnotationResult:
    """Ask about the pictures that the review file lacks, then pack those that it keeps.

    Raises:
        ConfigError: The dataset exists, or the review file was begun with other settings.
        DataError: A line or a picture is invalid; then nothing is packed.
        ModelError: The endpoint gives no usable reply; earlier replies are kept.
    """
    source = job.source()
    with job.alone():
        lines = _ask_all(job, settings, source, proposer, progress_to)
        included = job.included(lines)
        for name, content in vqa_v2_files(lines, info={"dataset": job.name, "by": settings.by}):
            text = json.dumps(content, ensure_ascii=False, allow_nan=False)
            write_whole(job.folder / name, text.encode())
        return job.publish(
            source,
            lines,
            task="vqa",
            by=f"questions by {settings.by}",
            samples=lambda: _samples(job, source, included),
            contents=[[line.id, *pair] for line in included.values() for pair in line.pairs()],
            tile=_tile,
            progress_to=progress_to,
        )


def vqa_v2_files(
    lines: Mapping[str, QuestionsLine], *, info: Mapping[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    """The names and contents of the two files of VQA v2, and of a third with the id of each image.

    An image id is the place of the picture in the dataset, counted from 1. Each answer needs an id
    of its own: the official evaluation compares whole records, and would count equal ones as one.
    """
    questions, annotations, images = [], [], {}
    for image_id, line in enumerate(lines.values(), start=1):
        if not line.keep:
            continue
        images[str(image_id)] = line.id
        pairs = line.pairs()
        if len(pairs) >= PER_PICTURE:
            raise DataError(f"image {image_id}: {len(pairs)} questions, the most is 999")
        for number, pair in enumerate(pairs):
            ids = {"question_id": image_id * PER_PICTURE + number, "image_id": image_id}
            questions.append({**ids, "question": pair.question})
            annotation = {
                **ids,
                "question_type": pair.question_type,
                "answer_type": pair.answer_type,
                "multiple_choice_answer": pair.answer,
                "answers": [
                    {"answer_id": person, "answer": pair.answer, "answer_confidence": "yes"}
                    for person in range(1, PEOPLE + 1)
                ],
            }
            annotations.append(annotation)
    return [
        ("questions.json", {"info": dict(info), "questions": questions}),
        ("annotations.json", {"info": dict(info), "annotations": annotations}),
        ("images.json", images),
    ]


def _ask_all(
    job: AnnotationJob,
    settings: QuestionSettings,
    source: Dataset,
    proposer: Callable[[], Proposer],
    progress_to: TextIO,
) -> dict[str, QuestionsLine]:
    """The line of every picture, in the order of the dataset."""
    about = {
        "review": "questions",
        "dataset": source.name,
        "revision": source.card.revision,
        **settings.about,
    }
    review = Review(job.review, QuestionsLine, about=about)
    reviewed = review.lines()
    lines: dict[str, QuestionsLine] = {}
    progress = job.progress("questions", source, progress_to)
    left_out = 0

    def report(note: str) -> None:
        progress.reach(len(lines), note=note)

    ask = _ConcurrentProposer(source.card.classes, settings.at_once, proposer, report)
    samples = job.samples(source)
    while part := list(islice(samples, settings.at_once * settings.per_write)):
        new, error = ask([sample for sample in part if sample.id not in reviewed])
        review.append(new)
        if isinstance(error, Rejected):
            raise _for_a_person(error, review) from error
        if error is not None:
            raise error
        fresh = {line.id: line for line in new}
        lines |= {sample.id: reviewed.get(sample.id) or fresh[sample.id] for sample in part}
        left_out += sum(not lines[sample.id].keep for sample in part)
        progress.reach(len(lines), note=f"{left_out} left out")
    job.refuse_strangers(reviewed, lines)
    return lines


@final
class _ConcurrentProposer:
    """Asks about several pictures at once, and tells failures of a picture from those of the run.

    The proposer is made when the first picture needs it.
    """

    def __init__(
        self,
        classes: Sequence[str],
        at_once: int,
        proposer: Callable[[], Proposer],
        report: Callable[[str], None],
    ) -> None:
        self._classes = classes
        self._at_once = at_once
        self._make = proposer
        self._report = report
        self._proposer: Proposer | None = None
        self._answered = False
        self._unusable = 0

    def __call__(
        self, samples: Sequence[Sample]
    ) -> tuple[list[QuestionsLine], BaseException | None]:
        """The lines of the pictures that were answered, and the first error of another one."""
        if not samples:
            return [], None
        outcomes = [future.exception() or future.result() for future in self._futures(samples)]
        self._answered |= any(isinstance(one, Proposal) and bool(one.pairs) for one in outcomes)
        lines, errors = list[QuestionsLine](), list[BaseException]()
        for sample, outcome in zip(samples, outcomes, strict=True):
            if isinstance(outcome, Rejected) and self._answered:
                # The endpoint accepts other pictures, so the failure is about this one.
                outcome = Proposal((), f"{UNUSABLE}{outcome.reason}")
            if isinstance(outcome, Proposal):
                lines.append(_line(sample.id, outcome))
            else:
                errors.append(outcome)
        return lines, next(iter(errors), None) or self._given_up(lines)

    def _futures(self, samples: Sequence[Sample]) -> list[Future[Proposal]]:
        proposer = self._proposer = self._proposer or self._make()
        with ThreadPoolExecutor(self._at_once, thread_name_prefix="ask") as pool:
            futures = [pool.submit(proposer.propose, s, self._classes) for s in samples]
            while wait(futures, timeout=_REPORT_EVERY_S).not_done:
                if waits := proposer.waits():
                    self._report(waits)
        return futures

    def _given_up(self, lines: Sequence[QuestionsLine]) -> ModelError | None:
        for line in lines:
            self._unusable = self._unusable + 1 if line.note.startswith(UNUSABLE) else 0
            if self._unusable >= MOST_UNUSABLE:
                return ModelError(
                    f"{MOST_UNUSABLE} pictures in a row got no reply of use (the last: "
                    f"{line.note}); try another --model; to ask about them again, delete their "
                    "lines from the review file"
                )
        return None


def _line(name: str, proposal: Proposal) -> QuestionsLine:
    return QuestionsLine(
        id=name,
        keep=bool(proposal.pairs),
        questions=tuple((pair.question, pair.answer) for pair in proposal.pairs),
        note=proposal.note,
    )


def _for_a_person(error: Rejected, review: Review[QuestionsLine]) -> ModelError:
    """The error with advice; only a person can tell whether the picture or the run is wrong."""
    line = QuestionsLine(id=error.sample, keep=False).model_dump_json(exclude_defaults=True)
    first = "" if review.begun() else f"begin it with {review.head}, then "
    return ModelError(
        f"{error}; if it is that picture alone, leave it out by hand in {review.path}: "
        f"{first}add the line {line}"
    )


def _samples(
    job: AnnotationJob, source: Dataset, included: Mapping[str, QuestionsLine]
) -> Iterator[Sample]:
    for sample in job.samples(source):
        line = included.get(sample.id)
        for number, pair in enumerate(line.pairs() if line else ()):
            yield replace(
                sample,
                id=f"{sample.id}#{number}",
                twin=None,
                overlay=None,
                phrase=None,
                mask=None,
                question=pair.question,
                answers=(pair.answer,) * PEOPLE,
                answer_type=pair.answer_type,
            )


def _tile(sample: Sample, line: QuestionsLine) -> Tile:
    picture = Panel(decode_image(sample.image, where=f"sample {sample.id!r}"))
    if not line.keep:
        note = f"left out: {line.note}" if line.note else "left out"
        return Tile((picture,), (Caption(sample.id), Caption(note, WRONG, most=2)))
    pairs = [Caption(f"{pair.question} {pair.answer}", most=2) for pair in line.pairs()]
    return Tile((picture,), (Caption(sample.id), *pairs[:_MOST_ON_TILE]))

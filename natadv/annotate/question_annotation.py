"""Questions for a dataset: proposed, reviewed, stored in the format of VQA v2, and packed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Any, TextIO, final

from natadv.annotate.job import AnnotationJob, AnnotationResult
from natadv.annotate.question_templates import UNUSABLE, Proposal, Proposer, Rejected
from natadv.annotate.review import QuestionsLine
from natadv.data.images import decode_image
from natadv.errors import DataError, ModelError
from natadv.report.sheet import Panel, Tile
from natadv.storage.atomic import write_whole
from natadv.tasks.task import WRONG, Caption
from natadv.tasks.vqa import in_official_form
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

    about: Mapping[str, Any]
    """What a resumed run must have in common with the one before; `by` is the author."""
    at_once: int = 1
    """Pictures that are asked about concurrently."""
    per_write: int = 1
    """Batches of `at_once` pictures that are written to the disk together."""


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
    by = settings.about["by"]
    with job.alone():
        lines = _ask_all(job, settings, proposer, progress_to)
        included = job.included(lines)
        for name, content in vqa_v2_files(lines, info={"dataset": job.name, "by": by}):
            text = json.dumps(content, ensure_ascii=False, allow_nan=False)
            write_whole(job.folder / name, text.encode())
        return job.publish(
            lines,
            task="vqa",
            by=f"questions by {by}",
            samples=lambda: _samples(job, included),
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
            raise DataError(f"image {image_id}: expected at most 999 questions, got {len(pairs)}")
        for number, pair in enumerate(pairs):
            ids = {"question_id": image_id * PER_PICTURE + number, "image_id": image_id}
            questions.append({**ids, "question": pair.question})
            given = in_official_form((pair.answer,) * PEOPLE)
            annotation = {
                **ids,
                "question_type": pair.question_type,
                "answer_type": pair.answer_type,
                "multiple_choice_answer": given[0],
                "answers": [
                    {"answer_id": person, "answer": answer, "answer_confidence": "yes"}
                    for person, answer in enumerate(given, start=1)
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
    proposer: Callable[[], Proposer],
    progress_to: TextIO,
) -> dict[str, QuestionsLine]:
    """The line of every picture, in the order of the dataset."""
    review = job.review_of(QuestionsLine, review="questions", about=settings.about)
    reviewed = review.lines()
    lines: dict[str, QuestionsLine] = {}
    progress = job.progress("questions", progress_to)
    left_out = 0
    ask = _ConcurrentProposer(
        job.source.card.classes,
        settings.at_once,
        cache(proposer),
        lambda note: progress.reach(len(lines), note=note),
    )
    samples = job.samples()
    while part := list(islice(samples, settings.at_once * settings.per_write)):
        new, error = ask([sample for sample in part if sample.id not in reviewed])
        review.append(new)
        if isinstance(error, Rejected):
            # Only a person can tell whether the picture or the run is wrong.
            line = QuestionsLine(id=error.sample, keep=False).model_dump_json(exclude_defaults=True)
            first = "" if review.begun() else f"begin it with {review.head}, then "
            raise ModelError(
                f"{error}; if it is that picture alone, leave it out by hand in {review.path}: "
                f"{first}add the line {line}"
            ) from error
        if error is not None:
            raise error
        fresh = {line.id: line for line in new}
        lines |= {sample.id: reviewed.get(sample.id) or fresh[sample.id] for sample in part}
        left_out += sum(not lines[sample.id].keep for sample in part)
        progress.reach(len(lines), note=f"{left_out} left out")
    job.refuse_unknown(reviewed, lines)
    return lines


@final
@dataclass(slots=True)
class _ConcurrentProposer:
    """Asks about several pictures at once; tells failures of a picture from those of the run."""

    classes: Sequence[str]
    at_once: int
    proposer: Callable[[], Proposer]
    """Makes the proposer when the first picture needs it, and returns the same one later."""
    report: Callable[[str], None]
    answered: bool = False
    unusable: int = 0
    """Pictures in a row without a usable reply."""

    def __call__(
        self, samples: Sequence[Sample]
    ) -> tuple[list[QuestionsLine], BaseException | None]:
        """The lines of the pictures that were answered, and the first error of another one."""
        if not samples:
            return [], None
        proposer = self.proposer()
        with ThreadPoolExecutor(self.at_once, thread_name_prefix="ask") as pool:
            futures = [pool.submit(proposer.propose, s, self.classes) for s in samples]
            while wait(futures, timeout=_REPORT_EVERY_S).not_done:
                if waits := proposer.waits():
                    self.report(waits)
        results = [future.exception() or future.result() for future in futures]
        self.answered |= any(isinstance(r, Proposal) and bool(r.pairs) for r in results)
        lines, errors = list[QuestionsLine](), list[BaseException]()
        for sample, result in zip(samples, results, strict=True):
            if isinstance(result, Rejected) and self.answered:
                # The endpoint accepts other pictures, so the failure is about this one.
                result = Proposal((), f"{UNUSABLE}{result.reason}")
            if not isinstance(result, Proposal):
                errors.append(result)
                continue
            pairs = result.pairs
            line = QuestionsLine(id=sample.id, keep=bool(pairs), questions=pairs, note=result.note)
            lines.append(line)
        return lines, next(iter(errors), None) or self._given_up(lines)

    def _given_up(self, lines: Sequence[QuestionsLine]) -> ModelError | None:
        """The error after too many pictures in a row without a usable reply."""
        for line in lines:
            self.unusable = self.unusable + 1 if line.note.startswith(UNUSABLE) else 0
            if self.unusable >= MOST_UNUSABLE:
                return ModelError(
                    f"{MOST_UNUSABLE} pictures in a row got no usable reply (the last: "
                    f"{line.note}); try another --model; to ask about them again, delete their "
                    "lines from the review file"
                )
        return None


def _samples(job: AnnotationJob, included: Mapping[str, QuestionsLine]) -> Iterator[Sample]:
    for sample in job.samples():
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
                answers=in_official_form((pair.answer,) * PEOPLE),
                answer_type=pair.answer_type,
            )


def _tile(sample: Sample, line: QuestionsLine) -> Tile:
    picture = Panel(decode_image(sample.image, where=f"sample {sample.id!r}"))
    captions = [Caption(f"{pair.question} {pair.answer}", most=2) for pair in line.pairs()]
    if not line.keep:
        captions = [Caption(line.why_left_out, WRONG, most=2)]
    return Tile((picture,), (Caption(sample.id), *captions[:_MOST_ON_TILE]))

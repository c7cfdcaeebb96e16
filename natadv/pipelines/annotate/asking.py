"""Asks about several pictures at once, and tells a fault of one picture from one of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import final

from natadv.errors import ModelError
from natadv.pipelines.annotate.proposing import UNUSABLE, Proposal, Proposer, Rejected
from natadv.scenarios.annotate.review import QuestionsLine
from natadv.types import Sample

MOST_UNUSABLE = 5
"""Pictures in a row without a reply of use, after which a model is given up."""
_TELL_EVERY_S = 0.5


@final
class Asking:
    """Makes its proposer once there is something to ask, and tells what that waits for."""

    def __init__(
        self,
        classes: Sequence[str],
        at_once: int,
        proposer: Callable[[], Proposer],
        tell: Callable[[str], None],
    ) -> None:
        self._classes = classes
        self._at_once = at_once
        self._make = proposer
        self._tell = tell
        self._proposer: Proposer | None = None
        self._answered = False
        self._unusable = 0

    def __call__(
        self, samples: Sequence[Sample]
    ) -> tuple[list[QuestionsLine], BaseException | None]:
        """The lines of those that were answered, and what went wrong with another one."""
        if not samples:
            return [], None
        found = [_outcome(future) for future in self._asked(samples)]
        self._answered |= any(isinstance(one, Proposal) and bool(one.asked) for one in found)
        settled = [self._settled(s.id, one) for s, one in zip(samples, found, strict=True)]
        lines = [one for one in settled if isinstance(one, QuestionsLine)]
        error = next((one for one in settled if isinstance(one, BaseException)), None)
        return lines, error or self._given_up(lines)

    def _asked(self, samples: Sequence[Sample]) -> list[Future[Proposal]]:
        self._proposer = self._proposer or self._make()
        with ThreadPoolExecutor(self._at_once, thread_name_prefix="ask") as pool:
            asked = [pool.submit(self._proposer.propose, s, self._classes) for s in samples]
            while wait(asked, timeout=_TELL_EVERY_S).not_done:
                if waits := self._proposer.waits():
                    self._tell(waits)
        return asked

    def _settled(self, name: str, found: Proposal | BaseException) -> QuestionsLine | BaseException:
        if isinstance(found, Rejected) and self._answered:
            # The endpoint takes others, so it is this picture.
            return _line(name, Proposal((), f"{UNUSABLE}{found.reason}"))
        return _line(name, found) if isinstance(found, Proposal) else found

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


def _outcome(future: Future[Proposal]) -> Proposal | BaseException:
    return future.exception() or future.result()


def _line(name: str, proposal: Proposal) -> QuestionsLine:
    return QuestionsLine(
        id=name,
        keep=bool(proposal.asked),
        questions=tuple((one.question, one.answer) for one in proposal.asked),
        note=proposal.note,
    )

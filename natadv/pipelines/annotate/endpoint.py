"""Questions from a model behind any endpoint that speaks OpenAI's chat completions.

Whatever goes wrong is one of three: it passes (too many requests, a fault of the server, a reply
of another form), and is tried again; it is about this picture (a refusal), and the picture is set
aside; or it is about the whole run (a key, a model), which ends.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, final

from natadv.data.images import decode_image
from natadv.errors import ConfigError, DataError, ModelError
from natadv.pipelines.annotate.cost_ledger import Ledger, Tokens, tokens_of
from natadv.pipelines.annotate.credentials import BASE_URL, KEY, Endpoint
from natadv.pipelines.annotate.proposing import UNUSABLE, Proposal, Rejected, noun_of
from natadv.pipelines.annotate.rate_limit import Clock, Pace, WallClock
from natadv.scenarios.annotate.proposals import SYSTEM, reply_of, request, schema
from natadv.storage.progress import duration
from natadv.types import Sample

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletion

WAITS_S = (1.0, 4.0, 15.0, 60.0)
"""Before each further try, unless the endpoint says how long."""
LONGEST_WAIT_S = 300.0
_JPEG_QUALITY = 90
_REFUSED = ("content_filter", "content_policy_violation")
_SPENT = "insufficient_quota"
_PASSING = (408, 409, 429)
_REJECTING = (400, 413, 422)
"""A picture may be too large, or of a form that the model does not take; or all may be wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How it is asked."""

    model: str
    per_picture: int
    side_px: int = 1024
    """Larger pictures are scaled down to it."""
    timeout_s: float = 60.0
    per_minute: float | None = None
    """Requests."""
    waits_s: Sequence[float] = WAITS_S


class _Passing(NamedTuple):
    """Something that another try may not meet."""

    reason: str
    wait_s: float | None = None
    """As the endpoint asks for."""
    about_reply: bool = False
    """Whether there was a reply, which was of no use."""


@final
class EndpointProposer:
    """Lets a model look at each picture and write its questions."""

    def __init__(
        self, endpoint: Endpoint, manner: Manner, ledger: Ledger, *, clock: Clock | None = None
    ) -> None:
        self._client = _client(endpoint, manner)
        self._endpoint = endpoint
        self._manner = manner
        self._ledger = ledger
        self._pace = Pace(manner.per_minute, clock=clock or WallClock())
        self._held_by = ""

    def propose(self, sample: Sample, classes: Sequence[str]) -> Proposal:
        """The questions, or why there are none.

        Raises:
            ConfigError: The budget is spent, or cannot be kept.
            Rejected: The endpoint does not take the request, which may be the picture's fault.
            ModelError: The endpoint does not answer, or not to us.
        """
        messages = self._messages(sample, classes)
        passing = _Passing("not asked")
        for wait_s in (None, *self._manner.waits_s):
            if wait_s is not None:
                asked_for = passing.wait_s if passing.wait_s is not None else wait_s
                # No more than fits on a line of progress.
                self._held_by = passing.reason[:40]
                self._pace.hold(min(asked_for, LONGEST_WAIT_S))
            found = self._once(messages, sample.id)
            if isinstance(found, Proposal):
                return found
            passing = found
        if passing.about_reply:
            return Proposal((), f"{UNUSABLE}{passing.reason}")
        tries = len(self._manner.waits_s) + 1
        raise ModelError(
            f"{self._endpoint.where} failed {tries} times in a row ({passing.reason}); what was "
            "answered is kept: run again when it works, or with a lower --per-minute"
        )

    def waits(self) -> str:
        left_s = self._pace.held_s()
        return f"waiting {duration(left_s)} to ask again ({self._held_by})" if left_s else ""

    def _once(self, messages: Any, sample: str) -> Proposal | _Passing:
        import openai

        self._ledger.check_budget()
        self._pace.wait()
        try:
            completion = self._client.chat.completions.create(
                model=self._manner.model,
                messages=messages,
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "questions", "strict": True, "schema": schema()},
                },
            )
        except openai.APITimeoutError:
            return _Passing(f"no answer within {self._manner.timeout_s:g} s")
        except openai.APIStatusError as error:
            return self._of_status(error, sample)
        except openai.APIConnectionError as error:
            return _Passing(f"no connection: {self._endpoint.told(error.__cause__ or error)}")
        # A body that is not JSON, or JSON of something else.
        except (openai.APIError, ValueError, TypeError, AttributeError) as error:
            return _Passing(f"a reply that is not of the protocol: {self._endpoint.told(error)}")
        return self._of_completion(completion)

    def _of_status(self, error: openai.APIStatusError, sample: str) -> Proposal | _Passing:
        told = f"status {error.status_code}: {self._endpoint.told(error.message)}"
        if error.code in _REFUSED:
            return Proposal((), f"refused: {told}")
        passes = error.status_code in _PASSING or error.status_code >= 500
        if passes and error.code != _SPENT:
            return _Passing(told, _seconds(error.response.headers.get("retry-after")))
        message = (
            f"{self._endpoint.where} refused the request about {sample!r} ({told}); check {KEY}, "
            f"{BASE_URL} and --model {self._manner.model!r}; what was answered is kept"
        )
        # What it comes from holds the request, with the key.
        if error.status_code in _REJECTING:
            raise Rejected(message, sample=sample, reason=told) from None
        raise ModelError(message) from None

    def _of_completion(self, completion: ChatCompletion) -> Proposal | _Passing:
        self._count(completion)
        try:
            choice = completion.choices[0]
            refusal, text = choice.message.refusal, choice.message.content
            reason = choice.finish_reason
        except (AttributeError, IndexError, TypeError):
            return _Passing(
                f"a reply that is not of the protocol: {self._endpoint.told(completion)!r}"
            )
        if refusal or reason == "content_filter":
            told = self._endpoint.told(refusal or "by a content filter")
            return Proposal((), f"refused: {told}")
        if reason == "length":
            return _Passing("the reply was cut off at its longest", about_reply=True)
        return self._of_text(text if isinstance(text, str) else "")

    def _count(self, completion: ChatCompletion) -> None:
        """First of all: whatever else a reply is, it was paid for."""
        # The client checks no form, so anything may be anywhere.
        usage = getattr(completion, "usage", None)
        told = (getattr(usage, f"{kind}_tokens", None) for kind in Tokens._fields)
        if tokens := tokens_of(*told):
            self._ledger.add(tokens)
        elif isinstance(getattr(completion, "choices", None), list):
            self._ledger.add_untold()

    def _of_text(self, text: str) -> Proposal | _Passing:
        if self._endpoint.gives_away(text):
            return _Passing(f"the reply repeats what {KEY} or {BASE_URL} holds", about_reply=True)
        try:
            return Proposal(reply_of(text, count=self._manner.per_picture))
        except DataError as error:
            return _Passing(self._endpoint.told(error), about_reply=True)

    def _messages(self, sample: Sample, classes: Sequence[str]) -> Any:
        text = request(count=self._manner.per_picture, shows=noun_of(sample, classes))
        picture = {"url": _data_url(sample, side_px=self._manner.side_px)}
        content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": picture}]
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


def _client(endpoint: Endpoint, manner: Manner) -> openai.OpenAI:
    try:
        import openai
    except ImportError as error:
        raise ConfigError(
            "questions from an endpoint need the package openai; pip install 'natadv[annotate]'"
        ) from error
    # Its own retries would be neither counted nor spaced.
    return openai.OpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.key,
        max_retries=0,
        timeout=manner.timeout_s,
    )


def _data_url(sample: Sample, *, side_px: int) -> str:
    image = decode_image(sample.image, where=f"sample {sample.id!r}")
    image.thumbnail((side_px, side_px))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _seconds(retry_after: str | None) -> float | None:
    """Of the header; None if it is missing or a date."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None

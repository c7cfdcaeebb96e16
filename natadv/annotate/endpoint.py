"""Questions from a model behind any endpoint that implements OpenAI's chat completions.

There are three kinds of failure. A transient one (too many requests, a server error, a malformed
reply) is retried. One about the picture (a refusal) leaves the picture out. One about the whole run
(the key, the model) ends it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, final

from pydantic import Field, ValidationError

from natadv.annotate.credentials import BASE_URL, KEY, Endpoint
from natadv.annotate.question_templates import UNUSABLE, Proposal, Rejected, phrase_or_label
from natadv.annotate.review import MOST_WORDS, QuestionAnswer, each_once, first_mistake, tidy
from natadv.annotate.usage_limits import CostLedger, RateLimiter, Tokens
from natadv.config import Strict
from natadv.data.images import decode_image
from natadv.errors import ConfigError, DataError, ModelError
from natadv.storage.progress import duration
from natadv.types import Sample

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletion

SYSTEM = (
    "You write test questions for visual question answering, as in VQA v2. Every question must be "
    "decided by what the picture shows, by nothing else, and everybody who sees the picture must "
    f"give the same answer. Answers have 1 to {MOST_WORDS} words, in lower case, numbers as "
    "digits; a yes/no question is answered by 'yes' or 'no' alone. Do not ask about text in the "
    "picture. Ask questions of different kinds: at least one answered by yes or no, one by a "
    "number and one by another word, as far as their count allows."
)


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_PAIR = _object(question={"type": "string"}, answer={"type": "string"})
SCHEMA = _object(questions={"type": "array", "items": _PAIR})
"""The strict JSON schema of a reply: every key is required, no other key is allowed."""

WAITS_S = (1.0, 4.0, 15.0, 60.0)
"""Seconds before each retry, unless the endpoint says how long."""
LONGEST_WAIT_S = 300.0
_JPEG_QUALITY = 90
_FOREIGN = "a reply that does not follow the protocol"
_KEPT = "earlier answers are kept"
_REFUSED = ("content_filter", "content_policy_violation")
_SPENT = "insufficient_quota"
_TRANSIENT = (408, 409, 429)
_REJECTING = (400, 413, 422)
"""The picture may be too large or in an unsupported form; or every request may be wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """The settings of requests to an endpoint."""

    model: str
    per_picture: int
    side_px: int = 1024
    """Larger pictures are scaled down to this side."""
    timeout_s: float = 60.0
    per_minute: float | None = None
    """Requests at most."""
    waits_s: Sequence[float] = WAITS_S


class _Transient(NamedTuple):
    """A failure after which a retry may succeed."""

    reason: str
    wait_s: float | None = None
    """The wait that the endpoint asks for."""
    about_reply: bool = False
    """Whether there was a reply, but an unusable one."""


class _Pair(Strict):
    question: str
    answer: str


class _Reply(Strict):
    questions: Annotated[tuple[_Pair, ...], Field(strict=False)]


@final
class EndpointProposer:
    """Lets a model write the questions about each picture."""

    def __init__(self, endpoint: Endpoint, options: RequestOptions, ledger: CostLedger) -> None:
        """Raises ConfigError if the package openai is missing."""
        try:
            import openai
        except ImportError as error:
            raise ConfigError(
                "an endpoint needs the package openai; run pip install 'natadv[annotate]'"
            ) from error
        # The client's own retries would ignore the rate limit, delay one thread only, repeat a
        # request after the quota is spent, and overlook malformed replies.
        self._client = openai.OpenAI(
            base_url=endpoint.base_url,
            api_key=endpoint.key,
            max_retries=0,
            timeout=options.timeout_s,
        )
        self._endpoint, self._options, self._ledger = endpoint, options, ledger
        self._limiter = RateLimiter(options.per_minute)
        self._pause_reason = ""

    def propose(self, sample: Sample, classes: Sequence[str]) -> Proposal:
        """The questions, or why there are none.

        Raises:
            ConfigError: The budget is spent, or cannot be kept.
            Rejected: The endpoint rejects the request, possibly because of the picture.
            ModelError: The endpoint keeps failing, or rejects the key or the model.
        """
        messages = self._messages(sample, classes)
        failure = _Transient("not asked")
        for wait_s in (None, *self._options.waits_s):
            if wait_s is not None:
                # Short enough for a line of progress.
                self._pause_reason = failure.reason[:40]
                pause_s = wait_s if failure.wait_s is None else failure.wait_s
                self._limiter.pause(min(pause_s, LONGEST_WAIT_S))
            outcome = self._once(messages, sample.id)
            if isinstance(outcome, Proposal):
                return outcome
            failure = outcome
        if failure.about_reply:
            return Proposal((), f"{UNUSABLE}{failure.reason}")
        tries = len(self._options.waits_s) + 1
        raise ModelError(
            f"{self._endpoint.where} failed {tries} times in a row ({failure.reason}); {_KEPT}: "
            "run again when it works, or with a lower --per-minute"
        )

    def waits(self) -> str:
        """How long all requests are paused, and why."""
        left_s = self._limiter.pause_s()
        return f"waiting {duration(left_s)} to ask again ({self._pause_reason})" if left_s else ""

    def _once(self, messages: Any, sample: str) -> Proposal | _Transient:
        import openai

        self._ledger.check_budget()
        self._limiter.wait()
        try:
            completion = self._client.chat.completions.create(
                model=self._options.model,
                messages=messages,
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "questions", "strict": True, "schema": SCHEMA},
                },
            )
        except openai.APITimeoutError:
            return _Transient(f"no answer within {self._options.timeout_s:g} s")
        except openai.APIStatusError as error:
            return self._of_status(error, sample)
        except openai.APIConnectionError as error:
            return _Transient(f"no connection: {self._endpoint.redacted(error.__cause__ or error)}")
        # A body that is not JSON, or not JSON of the protocol.
        except (openai.APIError, ValueError, TypeError, AttributeError) as error:
            return _Transient(f"{_FOREIGN}: {self._endpoint.redacted(error)}")
        return self._of_completion(completion)

    def _of_status(self, error: openai.APIStatusError, sample: str) -> Proposal | _Transient:
        reason = f"status {error.status_code}: {self._endpoint.redacted(error.message)}"
        if error.code in _REFUSED:
            return Proposal((), f"refused: {reason}")
        transient = error.status_code in _TRANSIENT or error.status_code >= 500
        if transient and error.code != _SPENT:
            return _Transient(reason, _seconds(error.response.headers.get("retry-after")))
        message = (
            f"{self._endpoint.where} refused the request about {sample!r} ({reason}); check {KEY}, "
            f"{BASE_URL} and --model {self._options.model!r}; {_KEPT}"
        )
        # From None: the original error holds the request, and with it the key.
        if error.status_code in _REJECTING:
            raise Rejected(message, sample=sample, reason=reason) from None
        raise ModelError(message) from None

    def _of_completion(self, completion: ChatCompletion) -> Proposal | _Transient:
        self._count(completion)
        try:
            choice = completion.choices[0]
            refusal, text = choice.message.refusal, choice.message.content
            finish_reason = choice.finish_reason
        except (AttributeError, IndexError, TypeError):
            return _Transient(f"{_FOREIGN}: {self._endpoint.redacted(completion)!r}")
        if refusal or finish_reason == "content_filter":
            reason = self._endpoint.redacted(refusal or "by a content filter")
            return Proposal((), f"refused: {reason}")
        if finish_reason == "length":
            return _Transient("the reply was cut off for its length", about_reply=True)
        text = text if isinstance(text, str) else ""
        if self._endpoint.leaks_into(text):
            return _Transient(f"the reply repeats the {KEY} or {BASE_URL}", about_reply=True)
        try:
            return Proposal(reply_of(text, count=self._options.per_picture))
        except DataError as error:
            return _Transient(self._endpoint.redacted(error), about_reply=True)

    def _count(self, completion: ChatCompletion) -> None:
        """Record the tokens first: every reply is paid for, whatever it contains."""
        # The client validates nothing, so any attribute may be missing or of any type.
        usage = getattr(completion, "usage", None)
        counts = {k: getattr(usage, f"{k}_tokens", None) for k in Tokens.model_fields}
        try:
            self._ledger.add(Tokens.model_validate(counts))
        except ValidationError:
            if isinstance(getattr(completion, "choices", None), list):
                self._ledger.add_uncounted()

    def _messages(self, sample: Sample, classes: Sequence[str]) -> Any:
        image = decode_image(sample.image, where=f"sample {sample.id!r}")
        image.thumbnail((self._options.side_px, self._options.side_px))
        jpeg = io.BytesIO()
        image.save(jpeg, "JPEG", quality=_JPEG_QUALITY)
        url = f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
        text = request(count=self._options.per_picture, shows=phrase_or_label(sample, classes))
        content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


def request(*, count: int, shows: str | None) -> str:
    """The text that is sent with the picture; `shows` is its phrase or label, if it has one."""
    hint = f" It shows: {shows}." if shows else ""
    return f"Write exactly {count} questions about this picture, with their answers.{hint}"


def reply_of(text: str, *, count: int) -> tuple[QuestionAnswer, ...]:
    """The `count` questions of a reply, validated even if the endpoint ignores the schema.

    Raises DataError if the reply does not follow the schema, or a question is unusable.
    """
    try:
        reply = _Reply.model_validate_json(text)
    except ValidationError as error:
        raise DataError(f"{first_mistake(error)}, got {text[:80]!r}") from error
    if len(reply.questions) != count:
        raise DataError(f"expected {count} questions, got {len(reply.questions)}")
    pairs = enumerate(reply.questions)
    tidied = [tidy(pair.question, pair.answer, where=f"questions.{i}") for i, pair in pairs]
    return each_once(tidied, where="the reply")


def _seconds(retry_after: str | None) -> float | None:
    """The value of the header `Retry-After`; None if it is missing or a date."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None

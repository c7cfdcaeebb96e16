"""Against a server on this machine that speaks the protocol, and fails in every known way."""

from __future__ import annotations

import base64
import io
import json

import pytest
from PIL import Image

from natadv.annotate import usage_limits
from natadv.annotate.credentials import Endpoint
from natadv.annotate.endpoint import SCHEMA, EndpointProposer, RequestOptions, reply_of, request
from natadv.annotate.review import QuestionAnswer
from natadv.annotate.usage_limits import CostLedger, Tokens
from natadv.errors import ConfigError, DataError, ModelError

from .conftest import CLASSES, QUESTIONS, Fault, completion, error, pets, picture

SAMPLE = pets(1)[0]


class FakeClock:
    """Time passes only in sleep."""

    def __init__(self):
        self.slept = []
        self._now = 0.0

    def monotonic(self):
        return self._now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self._now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(usage_limits, "time", clock)
    return clock


@pytest.fixture
def ledger(tmp_path):
    return CostLedger(tmp_path / "spent.jsonl", price_in=2.0, price_out=10.0)


@pytest.fixture
def make(fake_endpoint, ledger, clock):
    def made(**options):
        settings = {"model": "seer", "per_picture": 2, "waits_s": (1.0, 4.0), **options}
        endpoint = Endpoint(fake_endpoint.url, "secret")
        return EndpointProposer(endpoint, RequestOptions(**settings), ledger)

    return made


def test_questions_come_back(make, fake_endpoint, clock):
    found = make().propose(SAMPLE, CLASSES)

    assert found.pairs == tuple(QuestionAnswer(*pair) for pair in QUESTIONS)
    assert clock.slept == []
    assert fake_endpoint.keys == ["Bearer secret"]


def test_the_request_holds_the_picture_the_label_and_a_strict_schema(make, fake_endpoint):
    make().propose(SAMPLE, CLASSES)

    (asked,) = fake_endpoint.asked
    text, image = asked["messages"][1]["content"]
    form = asked["response_format"]
    assert asked["model"] == "seer"
    assert "exactly 2 questions" in text["text"]
    assert "dog" in text["text"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["strict"] is True
    kind, _, encoded = image["image_url"]["url"].partition(";base64,")
    assert kind == "data:image/jpeg"
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (32, 24)


def test_a_large_picture_is_scaled_down(make, fake_endpoint):
    from dataclasses import replace

    make(side_px=16).propose(replace(SAMPLE, image=picture(1, side=24)), CLASSES)

    url = fake_endpoint.asked[0]["messages"][1]["content"][1]["image_url"]["url"]
    assert Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).size == (16, 12)


PASSING = {
    "429": Fault(429, error("slow down")),
    "500": Fault(500, error("oh")),
    "503 without a body": Fault(503),
    "timeout": Fault(late=True),
    "hang-up": Fault(hangs_up=True),
    "body cut off": Fault(body=completion()[:40]),
    "a web page": Fault(body=b"<html>", kind="text/html"),
    "JSON of something else": Fault(body=b'{"hello": 1}'),
    "content that is not JSON": Fault(body=completion("Sure! Here you are")),
    "content cut off": Fault(body=completion('{"questions": [', finish_reason="length")),
    "content of another schema": Fault(body=completion('{"qa": []}')),
    "no content": Fault(body=completion("")),
    "one question too few": Fault(body=completion(pairs=QUESTIONS[:1])),
    "no choices": Fault(body=json.dumps({**json.loads(completion()), "choices": []}).encode()),
}


def test_a_fault_that_passes_is_asked_again(make, fake_endpoint, clock):
    for name in PASSING:
        fake_endpoint.faults = [PASSING[name], PASSING["500"]]
        fake_endpoint.asked.clear()
        clock.slept.clear()

        # A loaded machine must not miss the answer that comes.
        found = make(timeout_s=1.0 if name == "timeout" else 30.0).propose(SAMPLE, CLASSES)

        assert len(found.pairs) == 2, name
        assert len(fake_endpoint.asked) == 3, name
        assert clock.slept == [1.0, 4.0], name


ENDPOINT_FAILS = [
    *("429", "500", "503 without a body", "timeout", "hang-up", "body cut off"),
    *("a web page", "JSON of something else", "no choices"),
]


def test_an_endpoint_that_keeps_failing_ends_the_run(make, fake_endpoint):
    for name in ENDPOINT_FAILS:
        fake_endpoint.faults = [PASSING[name]] * 3
        fake_endpoint.asked.clear()

        with pytest.raises(ModelError, match=r"failed 3 times in a row .* answers are kept"):
            make(timeout_s=0.2 if name == "timeout" else 30.0).propose(SAMPLE, CLASSES)
        assert len(fake_endpoint.asked) == 3, name


def test_a_reply_that_keeps_being_of_no_use_sets_the_picture_aside(make, fake_endpoint):
    for name in PASSING.keys() - set(ENDPOINT_FAILS):
        fake_endpoint.faults = [PASSING[name]] * 3

        found = make().propose(SAMPLE, CLASSES)

        assert found.pairs == (), name
        assert found.note.startswith("no usable reply: "), name


@pytest.mark.parametrize(
    "fault",
    [
        Fault(body=completion(refusal="I cannot help with that")),
        Fault(body=completion("", finish_reason="content_filter")),
        Fault(400, error("not allowed", code="content_policy_violation")),
    ],
    ids=["refusal", "content filter", "content policy"],
)
def test_a_refusal_is_not_asked_again(fault, make, fake_endpoint, clock):
    fake_endpoint.faults = [fault]

    found = make().propose(SAMPLE, CLASSES)

    assert found.pairs == ()
    assert found.note.startswith("refused: ")
    assert len(fake_endpoint.asked) == 1
    assert clock.slept == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault(400, error("no such parameter")),
        Fault(401, error("wrong key")),
        Fault(404, error("no such model")),
        Fault(429, error("you have paid for nothing", code="insufficient_quota")),
    ],
    ids=lambda fault: str(fault.status),
)
def test_what_no_other_try_can_mend_ends_the_run_at_once(fault, make, fake_endpoint):
    fake_endpoint.faults = [fault]

    with pytest.raises(
        ModelError, match=r"refused the request about 'pet/0' \(status 4.*--model 'seer'"
    ) as told:
        make().propose(SAMPLE, CLASSES)
    assert "secret" not in str(told.value)
    assert len(fake_endpoint.asked) == 1


@pytest.mark.parametrize(
    ("said", "waited"), [("7", 7.0), ("0", 0.0), ("99999", 300.0), ("Wed, 01 Jan", 1.0)]
)
def test_the_endpoint_says_how_long_to_wait(said, waited, make, fake_endpoint, clock):
    fake_endpoint.faults = [Fault(429, error("slow down"), headers={"Retry-After": said})]

    make().propose(SAMPLE, CLASSES)

    assert sum(clock.slept) == waited


def test_what_is_waited_for_is_told_while_it_is(make, fake_endpoint, clock):
    fake_endpoint.faults = [Fault(429, error("slow down" * 9), headers={"Retry-After": "250"})]
    proposer = make()
    told = []

    def sleep(seconds):
        told.append(proposer.waits())
        FakeClock.sleep(clock, seconds)

    clock.sleep = sleep
    assert proposer.waits() == ""
    proposer.propose(SAMPLE, CLASSES)

    (said,) = told
    assert said.startswith("waiting 4 min 10 s to ask again (status 429: ")
    assert len(said) < 80
    assert proposer.waits() == ""


def test_requests_are_spaced(make, clock):
    proposer = make(per_minute=30.0)
    for _ in range(3):
        proposer.propose(SAMPLE, CLASSES)

    assert clock.slept == [2.0, 2.0]


def test_every_reply_is_counted_also_those_of_no_use(make, fake_endpoint, ledger):
    fake_endpoint.faults = [Fault(body=completion("no")), Fault(500, error("oh"))]

    make().propose(SAMPLE, CLASSES)

    assert ledger.tokens == Tokens(prompt=200, completion=40)
    assert ledger.summary() == "2 replies, 200 tokens in, 40 tokens out, cost 0.0008"


def test_the_count_goes_on_in_the_next_run(make, ledger):
    make().propose(SAMPLE, CLASSES)

    assert CostLedger(ledger.path).tokens == Tokens(prompt=100, completion=20)


def test_nothing_is_asked_once_the_budget_is_spent(fake_endpoint, tmp_path, clock):
    ledger = CostLedger(tmp_path / "spent.jsonl", price_in=2.0, price_out=10.0, budget=0.0005)
    options = RequestOptions(model="seer", per_picture=2)
    proposer = EndpointProposer(Endpoint(fake_endpoint.url, "k"), options, ledger)
    proposer.propose(SAMPLE, CLASSES)
    proposer.propose(SAMPLE, CLASSES)

    with pytest.raises(ConfigError, match=r"budget of 0\.0005 is spent \(2 replies.*--budget"):
        proposer.propose(SAMPLE, CLASSES)
    assert len(fake_endpoint.asked) == 2


UNTOLD = {
    "none": None,
    "empty": {},
    "null": {"prompt_tokens": None, "completion_tokens": None},
    "half": {"prompt_tokens": 100},
    "negative": {"prompt_tokens": -1, "completion_tokens": 20},
    "a share": {"prompt_tokens": 1.5, "completion_tokens": 20},
    "words": {"prompt_tokens": "100", "completion_tokens": "20"},
    "yes": {"prompt_tokens": True, "completion_tokens": 1},
    "a list": [100, 20],
}


def test_a_reply_whose_tokens_are_not_told_is_taken_and_told(make, fake_endpoint, ledger):
    proposer = make()
    for count, (name, usage) in enumerate(UNTOLD.items(), start=1):
        fake_endpoint.faults = [Fault(body=completion(usage=usage))]

        assert len(proposer.propose(SAMPLE, CLASSES).pairs) == 2, name
        assert f"not counted {count} replies" in ledger.summary(), name
        assert CostLedger(ledger.path).replies == 0, name


def test_a_budget_that_cannot_be_kept_ends_the_run(fake_endpoint, tmp_path, clock):
    ledger = CostLedger(tmp_path / "spent.jsonl", price_in=2.0, budget=9.0)
    options = RequestOptions(model="seer", per_picture=2)
    proposer = EndpointProposer(Endpoint(fake_endpoint.url, "k"), options, ledger)
    proposer.propose(SAMPLE, CLASSES)
    for name, usage in UNTOLD.items():
        fake_endpoint.faults = [Fault(body=completion(usage=usage))]
        fake_endpoint.asked.clear()

        with pytest.raises(ConfigError, match=r"so --budget cannot be kept.*without --budget"):
            proposer.propose(SAMPLE, CLASSES)
        assert len(fake_endpoint.asked) == 1, name
    assert CostLedger(ledger.path).tokens == Tokens(prompt=100, completion=20)


@pytest.mark.parametrize("choices", [[], None, [{}], ["?"]], ids=str)
def test_a_reply_of_no_choice_is_paid_for_all_the_same(choices, make, fake_endpoint, ledger):
    fake_endpoint.faults = [Fault(body=completion(choices=choices))]

    make().propose(SAMPLE, CLASSES)

    assert ledger.tokens == Tokens(prompt=200, completion=40)


@pytest.mark.parametrize(
    "spoilt", ["what", '{"prompt": null, "completion": 1}', '{"prompt": -1, "completion": 1}', "7"]
)
def test_a_spoilt_line_of_the_ledger_is_named(spoilt, tmp_path):
    (tmp_path / "spent.jsonl").write_text(f'{{"prompt": 1, "completion": 2}}\n{spoilt}\n')

    with pytest.raises(DataError, match=r"spent\.jsonl:2: expected the tokens"):
        CostLedger(tmp_path / "spent.jsonl")


def test_a_line_of_the_ledger_that_a_kill_has_torn_is_cut_off(ledger):
    ledger.add(Tokens(prompt=5, completion=7))
    with ledger.path.open("a") as file:
        file.write('{"prompt": 1')

    again = CostLedger(ledger.path)
    again.add(Tokens(prompt=1, completion=1))

    assert CostLedger(ledger.path).tokens == Tokens(prompt=6, completion=8)


def test_without_the_package_it_is_told_what_to_install(make, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "openai", None)

    with pytest.raises(ConfigError, match=r"pip install 'natadv\[annotate\]'"):
        make()


def test_a_ledger_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")

    ledger = CostLedger(tmp_path / "file" / "spent.jsonl")

    with pytest.raises(DataError, match="cannot be written"):
        ledger.add(Tokens(prompt=1, completion=1))
    assert ledger.tokens == Tokens(prompt=1, completion=1)


GOOD = {"questions": [{"question": "Is it so?", "answer": "Yes."}]}


def test_a_reply_becomes_tidy_questions():
    assert reply_of(json.dumps(GOOD), count=1) == (QuestionAnswer("Is it so?", "yes"),)


def test_the_schema_leaves_nothing_open():
    def objects(part):
        if isinstance(part, dict):
            if part.get("type") == "object":
                yield part
            for value in part.values():
                yield from objects(value)

    found = list(objects(SCHEMA))
    assert len(found) == 2
    for part in found:
        assert part["additionalProperties"] is False
        assert part["required"] == list(part["properties"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Invalid JSON"),
        ("Sure! Here are", "Invalid JSON"),
        ('{"questions": [{"question": "Is', "Invalid JSON"),
        ("[]", "should be an object"),
        ('{"questions": []}', "expected 1 questions, got 0"),
        ('{"questions": [{"question": "Is it so?"}]}', r"questions\.0\.answer: Field required"),
        ('{"questions": [{"question": "Is it so?", "answer": true}]}', "valid string"),
        ('{"questions": [{"question": "Is it so?", "answer": "yes", "why": ""}]}', "Extra inputs"),
        ('{"questions": [{"question": "It is so", "answer": "yes"}]}', "expected a question"),
        ('{"questions": [{"question": "Is it so?", "answer": ""}]}', "expected an answer"),
    ],
)
def test_a_reply_of_another_form_is_refused(text, told):
    with pytest.raises(DataError, match=told):
        reply_of(text, count=1)


def test_the_same_question_twice_is_refused():
    twice = json.dumps({"questions": GOOD["questions"] * 2})

    with pytest.raises(DataError, match="twice"):
        reply_of(twice, count=2)


def test_the_label_is_told_if_there_is_one():
    assert "It shows: dog." in request(count=3, shows="dog")
    assert "shows:" not in request(count=3, shows=None)
    assert "exactly 3 questions" in request(count=3, shows=None)

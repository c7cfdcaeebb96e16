"""The key and the password of an address are in nothing that is told or kept."""

from __future__ import annotations

import base64

import pytest

from natadv.annotate.credentials import Endpoint, endpoint_of
from natadv.annotate.endpoint import EndpointProposer, RequestOptions
from natadv.annotate.usage_limits import CostLedger
from natadv.cli import main
from natadv.errors import ConfigError, ModelError

from .conftest import CLASSES, QUESTIONS, Fault, completion, error, pets

KEY = "sk-Cafe+0123/45=67"
SAMPLE = pets(1)[0]


def test_the_environment_says_where_the_endpoint_is():
    own = Endpoint("https://api.openai.com/v1", "k")
    assert endpoint_of({"OPENAI_API_KEY": "k"}) == own
    assert endpoint_of({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": ""}) == own
    assert endpoint_of({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}).key == "none"
    assert "hush" not in repr(endpoint_of({"OPENAI_API_KEY": "hush"}))


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "set OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": " \n"}, "set OPENAI_API_KEY"),
        ({"OPENAI_BASE_URL": "localhost:8000"}, "http://"),
        ({"OPENAI_BASE_URL": "http:///v1"}, "its host is unclear"),
    ],
)
def test_without_an_endpoint_it_is_told_what_to_set(environment, told):
    with pytest.raises(ConfigError, match=told):
        endpoint_of(environment)


@pytest.mark.parametrize("around", ["{}\n", " {}", "{}\r\n", "\t{}"])
def test_a_key_from_a_file_with_its_line_end_is_the_key(around, fake_endpoint, ask):
    found = ask(endpoint_of(environment(fake_endpoint.url, key=around.format(KEY))))

    assert len(found.pairs) == 2
    assert fake_endpoint.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "OPENAI_BASE_URL"])
def test_what_cannot_be_sent_is_refused_unquoted(name):
    for inside in ("\n", "\r", "\x00", "\u2019", "\x7f"):
        with pytest.raises(ConfigError, match=f"{name} contains a line break") as told:
            endpoint_of({name: f"http://pa55{inside}w0rd"})

        assert "pa55" not in str(told.value), inside
        assert "w0rd" not in str(told.value), inside


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:pa55@host:80/v1?api-key=pa55", "http://host:80/v1"),
        ("https://pa55@host/v1/", "https://host/v1/"),
        ("http://user:pa55@[::1]:8000/v1#pa55", "http://[::1]:8000/v1"),
    ],
)
def test_an_address_is_shown_without_what_opens_it(url, shown):
    endpoint = endpoint_of({"OPENAI_BASE_URL": url})

    assert endpoint.base_url == url
    assert endpoint.where == shown
    assert "pa55" not in repr(endpoint)


@pytest.mark.parametrize(
    "url",
    ["user:pa55@host", "ftp://user:pa55@host", "http://u:pa55/x@host", "http://u:1/pa55@host"],
)
def test_an_address_that_is_none_is_refused_unquoted(url):
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL must be http://HOST/PATH") as told:
        endpoint_of({"OPENAI_BASE_URL": url})

    assert "pa55" not in str(told.value)


ECHOES = {
    "a status that ends the run": Fault(401, error(f"came Authorization: Bearer {KEY}")),
    "cut in the middle of it": Fault(401, error("x" * 150 + KEY)),
    "a status that passes": Fault(500, error(f"came {KEY}")),
    "a refusal by status": Fault(400, error(f"{KEY} is rude", code="content_filter")),
    "a refusal": Fault(body=completion(refusal=f"I do not like {KEY}")),
    "no JSON": Fault(body=f"<html>Bearer {KEY}".encode(), kind="text/html"),
    "JSON of something else": Fault(body=f'{{"came": "Bearer {KEY}"}}'.encode()),
    "content that is not JSON": Fault(body=completion(f"{'x' * 70}{KEY}")),
    "a question": Fault(body=completion(pairs=[(f"Is {KEY} right?", "yes"), QUESTIONS[1]])),
    "an answer in other letters": Fault(
        body=completion(pairs=[("Is it?", KEY.lower()), ("A?", "b")])
    ),
}


@pytest.mark.parametrize("name", ECHOES)
def test_an_endpoint_that_repeats_the_key_does_not_spread_it(name, fake_endpoint, ask):
    fake_endpoint.faults = [ECHOES[name]]
    try:
        said = str(ask(endpoint_of(environment(fake_endpoint.url))))
    except ModelError as told:
        said = str(told)

    assert KEY[:6].lower() not in said.lower()
    assert len(fake_endpoint.asked) == 1


def test_a_password_that_is_sent_is_not_told_in_any_form(fake_endpoint, ask):
    url = fake_endpoint.url.replace("http://", "http://user:p%4055word@")
    sent = base64.b64encode(b"user:p@55word").decode()
    fake_endpoint.faults = [Fault(401, error(f"p%4055word, p@55word, Basic {sent}"))]

    with pytest.raises(
        ModelError, match=r"http://127\.0\.0\.1:\d+/v1 refused .*\*{3}, \*{3}"
    ) as told:
        ask(endpoint_of(environment(url)))

    for part in ("user", "55word", sent):
        assert part not in str(told.value)


def test_a_dead_endpoint_is_told_by_its_address_alone(ask):
    url = "http://user:pa55@127.0.0.1:9/v1?token=pa55"

    with pytest.raises(ModelError, match=r"^http://127\.0\.0\.1:9/v1 failed") as told:
        ask(endpoint_of(environment(url)))

    assert "pa55" not in str(told.value)


def test_a_short_key_is_no_secret_that_answers_must_not_hold(fake_endpoint, ask):
    assert len(ask(Endpoint(fake_endpoint.url, "dog")).pairs) == 2


def test_nothing_of_a_run_holds_the_key(fake_endpoint, pack, monkeypatch, capsys):
    root = pack()
    monkeypatch.setenv("OPENAI_BASE_URL", fake_endpoint.url)
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    fake_endpoint.faults = [ECHOES["a refusal"], ECHOES["a refusal by status"]]
    command = ["annotate", "questions", "pets", "--name", "asked", "--model", "seer"]

    code = main([*command, "--per-picture", "2", "--at-once", "1", "--root", str(root)])

    said = capsys.readouterr()
    review = root / "fixtures/annotations/asked/review.jsonl"
    assert code == 0, said.err
    assert review.read_text().count("***") == 2
    assert KEY not in said.out + said.err
    for file in (root / "fixtures/annotations").rglob("*"):
        assert file.is_dir() or KEY.encode() not in file.read_bytes()


def environment(url, *, key=KEY):
    return {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": key}


@pytest.fixture
def ask(tmp_path):
    def asked(endpoint):
        options = RequestOptions(model="seer", per_picture=2, waits_s=())
        ledger = CostLedger(tmp_path / "spent.jsonl")
        return EndpointProposer(endpoint, options, ledger).propose(SAMPLE, CLASSES)

    return asked

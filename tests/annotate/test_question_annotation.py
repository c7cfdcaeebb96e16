from __future__ import annotations

import io
import json
import threading
from dataclasses import replace
from itertools import product

import pytest

from natadv.annotate.credentials import Endpoint
from natadv.annotate.endpoint import EndpointProposer, RequestOptions
from natadv.annotate.job import AnnotationJob
from natadv.annotate.question_annotation import (
    QuestionSettings,
    annotate_questions,
    vqa_v2_files,
)
from natadv.annotate.question_templates import Proposal, TemplateProposer
from natadv.annotate.review import QuestionAnswer, QuestionsLine
from natadv.annotate.usage_limits import CostLedger
from natadv.data.card import DATASETS_FOLDER, load_card
from natadv.data.reader import iter_samples
from natadv.errors import ConfigError, DataError, ModelError
from natadv.tasks.vqa import LEAST_ANSWERS

from .conftest import CLASSES, Fault, completion, error, pets, picture

TEMPLATES = QuestionSettings(about={"by": "templates"}, per_write=2)


class Recorded:
    """Asks one question about every picture, and fails where it is told to."""

    def __init__(self, *, fails=()):
        self.asked, self.fails = [], list(fails)

    def propose(self, sample, classes):
        if sample.id in self.fails:
            raise ModelError(f"no answer about {sample.id}")
        self.asked.append(sample.id)
        return Proposal(
            (QuestionAnswer("Is it so?", "yes"), QuestionAnswer("How many are there?", "2"))
        )

    def waits(self):
        return ""


@pytest.fixture
def annotate(pack):
    root = pack()

    def annotated(proposer, *, settings=TEMPLATES, **job):
        described = {"dataset": "pets", "name": "pets-asked", "root": root, **job}
        return annotate_questions(
            AnnotationJob(**described),
            settings,
            proposer=lambda: proposer,
            progress_to=io.StringIO(),
        )

    return annotated


@pytest.fixture
def place(tmp_path):
    return tmp_path / "fixtures/annotations/pets-asked"


@pytest.fixture
def packed(tmp_path):
    def read():
        folder = tmp_path / DATASETS_FOLDER / "pets-asked"
        return list(iter_samples(folder, load_card(folder)))

    return read


def test_every_question_becomes_a_sample_of_its_picture(annotate, packed):
    made = annotate(Recorded())

    first, second = packed()[:2]
    assert (made.card.tasks, made.card.rows, made.pages) == (("vqa",), 10, 1)
    assert (first.id, second.id, first.group) == ("pet/0#0", "pet/0#1", "g0")
    assert (first.question, first.answer_type) == ("Is it so?", "yes/no")
    assert first.answers == ("yes",) * 10
    assert len(first.answers) >= LEAST_ANSWERS
    assert first.image == pets(1)[0].image


def test_it_is_stored_as_vqa_v2_does(annotate, place):
    annotate(Recorded())

    questions, annotations, images = (
        json.loads((place / f"{name}.json").read_text())
        for name in ("questions", "annotations", "images")
    )
    assert images["2"] == "pet/1"
    assert [row["question_id"] for row in questions["questions"][:3]] == [1000, 1001, 2000]
    assert questions["info"] == {"dataset": "pets-asked", "by": "templates"}
    assert questions["questions"][1] == {
        "question_id": 1001,
        "image_id": 1,
        "question": "How many are there?",
    }
    row = annotations["annotations"][1]
    assert set(row) == {
        *("question_id", "image_id", "question_type", "answer_type"),
        *("multiple_choice_answer", "answers"),
    }
    assert (row["answer_type"], row["multiple_choice_answer"]) == ("number", "2")
    assert row["answers"][0] == {"answer_id": 1, "answer": "2", "answer_confidence": "yes"}


def by_official_rules(row, said):
    """As the official evaluation counts: others are the records that differ as a whole."""
    scores = []
    for answer in row["answers"]:
        others = [other for other in row["answers"] if other != answer]
        scores.append(min(1, sum(other["answer"] == said for other in others) / 3))
    return sum(scores) / len(scores)


def test_the_official_evaluation_gives_1_to_the_answer_and_0_to_another():
    lines = {"a": QuestionsLine(id="a", questions=(("How many are there?", "2"),))}
    row = vqa_v2_files(lines, info={})[1][1]["annotations"][0]

    assert (by_official_rules(row, "2"), by_official_rules(row, "3")) == (1.0, 0.0)
    for answer in row["answers"]:
        answer["answer_id"] = 1
    assert by_official_rules(row, "2") == 0.0


def test_every_question_has_an_id_of_its_own_and_an_annotation():
    for counts in ((), (0, 4), *product(range(3), repeat=3)):
        lines = {
            str(place): QuestionsLine(
                id=str(place),
                keep=bool(count),
                questions=tuple((f"Is it {number}?", "yes") for number in range(count)),
            )
            for place, count in enumerate(counts)
        }

        (_, questions), (_, annotations), (_, images) = vqa_v2_files(lines, info={})

        ids = [(row["question_id"], row["image_id"]) for row in questions["questions"]]
        assert len(set(ids)) == len(ids) == sum(counts), counts
        assert ids == [(r["question_id"], r["image_id"]) for r in annotations["annotations"]], (
            counts
        )
        assert {str(image) for _, image in ids} == set(images), counts


def test_more_questions_than_ids_are_refused():
    questions = tuple((f"Is it {number}?", "yes") for number in range(1000))

    with pytest.raises(DataError, match="image 1: expected at most 999 questions, got 1000"):
        vqa_v2_files({"a": QuestionsLine(id="a", questions=questions)}, info={})


def test_templates_ask_the_same_whatever_else_is_there(annotate, pack, packed):
    annotate(TemplateProposer(per_picture=2, seed=1), limit=2)
    some = packed()
    annotate(TemplateProposer(per_picture=2, seed=1), force=True)

    assert packed()[:4] == some
    assert len(packed()) == 10


def test_templates_ask_where_a_mask_is(pack):
    from PIL import Image

    mask = Image.new("L", (32, 24))
    mask.paste(255, (0, 0, 8, 20))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    sample = replace(pets(1)[0], phrase="the black dog", mask=buffer.getvalue())

    asked = TemplateProposer(per_picture=9, seed=1).propose(sample, CLASSES).pairs

    assert (
        QuestionAnswer("Is the black dog at the left or at the right of the picture?", "left")
        in asked
    )
    assert QuestionAnswer("What is in the picture?", "dog") in asked


def test_nothing_can_be_asked_of_a_picture_without_label_and_phrase():
    from natadv.types import Sample

    found = TemplateProposer(per_picture=2, seed=1).propose(
        Sample(id="a", group="a", image=picture(0)), CLASSES
    )

    assert found.pairs == ()
    assert "no label" in found.note


def test_what_a_person_wrote_wins(annotate, place, packed):
    annotate(Recorded())
    text = (place / "review.jsonl").read_text().replace('"yes"', '"No."', 1)
    (place / "review.jsonl").write_text(
        text.replace('"id":"pet/1","keep":true', '"id":"pet/1","keep":false')
    )
    evaluator = Recorded()

    made = annotate(evaluator, force=True)

    assert evaluator.asked == []
    assert packed()[0].answers[0] == "no"
    assert "pet/1" not in {sample.id.split("#")[0] for sample in packed()}
    assert made.left_out == 1
    stored = json.loads((place / "questions.json").read_text())["questions"]
    assert [row["image_id"] for row in stored[:4]] == [1, 1, 3, 3]


def test_what_was_answered_before_a_failure_is_kept(annotate, place):
    with pytest.raises(ModelError, match="no answer about pet/2"):
        annotate(Recorded(fails=["pet/2"]), settings=replace(TEMPLATES, at_once=4, per_write=1))
    evaluator = Recorded()

    annotate(evaluator)

    assert evaluator.asked == ["pet/2", "pet/4"]


def test_an_interrupted_run_ends_with_the_same_revision(annotate):
    with pytest.raises(ModelError):
        annotate(Recorded(fails=["pet/3"]))
    resumed = annotate(Recorded())
    straight = annotate(Recorded(), name="pets-again")

    assert [s.sha256 for s in resumed.card.shards] == [s.sha256 for s in straight.card.shards]


def test_an_existing_dataset_is_not_replaced_unasked(annotate):
    annotate(Recorded())

    with pytest.raises(ConfigError, match="--force"):
        annotate(Recorded())


def test_questions_about_a_picture_that_is_not_there_are_refused(annotate, place):
    annotate(Recorded())
    with (place / "review.jsonl").open("a") as file:
        file.write('{"id": "pet/99", "questions": [["Is it so?", "yes"]]}\n')

    with pytest.raises(DataError, match="first 'pet/99'"):
        annotate(Recorded(), force=True)


@pytest.fixture
def proposer(fake_endpoint, place):
    options = RequestOptions(model="seer", per_picture=2, waits_s=())
    ledger = CostLedger(place / "spent.jsonl")
    return EndpointProposer(Endpoint(fake_endpoint.url, "k"), options, ledger)


BY_SEER = QuestionSettings(about={"by": "seer"}, at_once=2)


def test_an_endpoint_is_asked_about_every_picture_once(annotate, proposer, fake_endpoint, packed):
    fake_endpoint.faults = [None, Fault(body=completion(refusal="no"))]

    made = annotate(proposer, settings=BY_SEER)

    assert len(fake_endpoint.asked) == 5
    assert (made.card.rows, made.left_out) == (8, 1)
    annotate(proposer, settings=BY_SEER, force=True)
    assert len(fake_endpoint.asked) == 5


def test_an_endpoint_that_breaks_down_loses_nothing(annotate, proposer, fake_endpoint, place):
    fake_endpoint.faults = [None, None, Fault(500, error("oh")), None]
    with pytest.raises(ModelError, match="failed 1 times"):
        annotate(proposer, settings=BY_SEER)
    assert len((place / "review.jsonl").read_text().splitlines()) == 4

    annotate(proposer, settings=BY_SEER)

    assert len(fake_endpoint.asked) == 6
    assert len((place / "spent.jsonl").read_text().splitlines()) == 5


REJECTED = [Fault(status, error("bad picture")) for status in (400, 413, 422)]


@pytest.mark.parametrize("fault", REJECTED, ids=lambda fault: str(fault.status))
def test_a_picture_that_an_endpoint_does_not_take_is_set_aside_by_its_id(
    fault, annotate, proposer, fake_endpoint, place
):
    fake_endpoint.faults = [fault]

    made = annotate(proposer, settings=replace(BY_SEER, at_once=1, per_write=2))

    lines = map(json.loads, (place / "review.jsonl").read_text().splitlines()[1:])
    notes = {line["id"]: line["note"] for line in lines if not line["keep"]}
    assert notes.keys() == {"pet/0"}
    assert notes["pet/0"].startswith(f"no usable reply: status {fault.status}: ")
    assert (made.card.rows, made.left_out, len(fake_endpoint.asked)) == (8, 1, 5)


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("fault", REJECTED, ids=lambda fault: str(fault.status))
def test_a_person_is_told_how_to_leave_out_a_picture_that_no_other_clears(
    fault, before, annotate, proposer, fake_endpoint, place
):
    one_by_one = replace(BY_SEER, at_once=1)
    refusals = [Fault(body=completion(refusal="no"))] * before
    fake_endpoint.faults = [*refusals, fault, fault]
    with pytest.raises(ModelError, match=f"about 'pet/{before}' .status {fault.status}") as told:
        annotate(proposer, settings=one_by_one)

    said = str(told.value)
    line = {"id": f"pet/{before}", "keep": False}
    assert json.loads(said[said.rindex("{") :]) == line
    place.mkdir(parents=True, exist_ok=True)
    with (place / "review.jsonl").open("a") as file:
        if not before:
            head = said.partition("begin it with ")[2].partition(", then add the line ")[0]
            file.write(f"{head}\n")
        file.write(json.dumps(line) + "\n")
    fake_endpoint.faults = []

    made = annotate(proposer, settings=one_by_one)

    assert made.left_out == before + 1


def test_an_endpoint_that_takes_nothing_any_more_is_given_up(
    annotate, pack, proposer, fake_endpoint
):
    pack("more", samples=pets(8))
    fake_endpoint.faults = [None, *REJECTED, *REJECTED]

    with pytest.raises(ModelError, match="in a row got no usable reply"):
        annotate(proposer, settings=replace(BY_SEER, at_once=1), dataset="more")
    assert len(fake_endpoint.asked) == 6


class Shown(io.StringIO):
    """A terminal, which shows a line at once and tells when it shows the wait."""

    def isatty(self):
        return True

    def __init__(self):
        super().__init__()
        self.waited = threading.Event()

    def write(self, text):
        if "waiting 5 min" in text:
            self.waited.set()
        return super().write(text)


def test_what_an_endpoint_is_waited_for_is_on_the_line_of_progress(pack):
    shown = Shown()

    class Held(Recorded):
        def propose(self, sample, classes):
            assert shown.waited.wait(timeout=30)
            return super().propose(sample, classes)

        def waits(self):
            return "waiting 5 min 0 s to ask again (status 429)"

    job = AnnotationJob(dataset="pets", name="pets-asked", root=pack())
    annotate_questions(job, TEMPLATES, proposer=Held, progress_to=shown)

    first = shown.getvalue().split("\r\x1b[K")[1]
    assert first.startswith("questions: 0 of 5 pictures, waiting 5 min 0 s to ask again")


def test_a_model_that_never_answers_usefully_is_given_up(annotate, proposer, fake_endpoint):
    fake_endpoint.faults = [Fault(body=completion("Sure!"))] * 9

    with pytest.raises(ModelError, match="5 pictures in a row got no usable reply"):
        annotate(proposer, settings=BY_SEER)

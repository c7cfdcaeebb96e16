"""The right answer of every question is what the facts say, and most of ten people give it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest

from mini_world.annotators import SAID_INSTEAD, alternatives, ten_answers
from mini_world.attributes import AROUND, ATTRIBUTES, BEHIND
from mini_world.backgrounds import BACKGROUNDS
from mini_world.gestures import GESTURES
from mini_world.questions import ANSWERS, RIGHT, ROWS, AnswerType, Question, question_of
from mini_world.render import masks
from mini_world.sampling import STYLES, draw_scene, empty_scene
from mini_world.scene import Scene, Thing, Wear, article
from mini_world.vocabulary import ANIMALS, CLASSES, CLOTHING, COLOURS, EVALUATED
from natadv.errors import DataError, UnknownNameError
from natadv.langadv.word_space import plural
from natadv.rng import rng_for

TYPES: tuple[AnswerType, ...] = get_args(AnswerType)
CAT = Thing("cat", "cat2@noto", 0.5, 0.5, 0.6)
CATS = (replace(CAT, x=0.25, scale=0.45), replace(CAT, x=0.75, scale=0.45))
PLAIN = Scene(1, "plain", (CAT,), main="cat")


def asked(style: str, *, scenes: int, each: int = 2) -> list[tuple[Scene, Question]]:
    found = []
    for number in range(scenes):
        rng = rng_for("ask", style, number)
        scene = draw_scene(list(EVALUATED)[number % 10], STYLES[style], split="seen", rng=rng)
        found += [
            (scene, question_of(scene, rng=rng, answer_type=kind))
            for kind in TYPES
            for _ in range(each)
        ]
    return found


def majority(question: Question) -> str:
    return Counter(question.answers).most_common(1)[0][0]


def every(scene: Scene, kind: AnswerType, *, tries: int = 300) -> dict[str, set[str]]:
    """Text -> right answers of what is asked of the scene."""
    found: dict[str, set[str]] = defaultdict(set)
    for number in range(tries):
        question = question_of(scene, rng=rng_for("every", number), answer_type=kind)
        found[question.text].add(majority(question))
    return found


# --- a reader of its own: from a question and the facts to the answer ---


def named(noun: str) -> str:
    """The class that a noun names, with or without an article, one or several."""
    noun = re.sub(r"^(an?) ", "", noun)
    return next(name for name in CLASSES if noun in (name, plural(name)))


def in_view(scene: Scene) -> list[Thing]:
    return [thing for thing, mask in zip(scene.things, masks(scene), strict=True) if mask.any()]


def all_of(scene: Scene, noun: str) -> list[Thing]:
    found = [thing for thing in in_view(scene) if thing.name == named(noun)]
    assert found, f"asked about {noun!r}, which is not there"
    return found


def one(values: set[str]) -> str:
    assert len(values) == 1
    return values.pop()


def yes(holds: bool) -> str:
    return "yes" if holds else "no"


def is_there(scene: Scene, noun: str) -> str:
    return yes(any(thing.name == named(noun) for thing in in_view(scene)))


def wears(scene: Scene, noun: str, piece: str) -> str:
    return yes(one({yes(piece in pieces(t)) for t in all_of(scene, noun)}) == "yes")


def pieces(thing: Thing) -> set[str]:
    return {article(wear.name) for wear in thing.wears}


def claimed(scene: Scene, noun: str, value: str) -> str:
    things = all_of(scene, noun)
    if value in COLOURS:
        return yes(one({str(thing.tint) for thing in things}) == value)
    if value in {gesture.words for gesture in GESTURES.values()}:
        return yes(one({GESTURES[thing.gesture].words for thing in things}) == value)
    assert value in {background.words for background in BACKGROUNDS.values()}
    return yes(BACKGROUNDS[scene.background].words == value)


def weather(scene: Scene, value: str) -> str:
    words = {"raining": "rain", "foggy": "fog", "night": "night"}
    return yes(scene.weather == words[value])


def how_many(scene: Scene, nouns: str) -> str:
    if nouns == "animals":
        return str(sum(thing.name in ANIMALS for thing in in_view(scene)))
    return str(sum(thing.name == named(nouns) for thing in in_view(scene)))


def how_many_wear(scene: Scene, nouns: str, piece: str) -> str:
    return str(sum(piece in pieces(t) for t in in_view(scene) if t.name == named(nouns)))


def animal(scene: Scene) -> str:
    return one({thing.name for thing in in_view(scene)} & ANIMALS)


def thing(scene: Scene) -> str:
    return one({thing.name for thing in in_view(scene)})


def only_thing(scene: Scene) -> str:
    assert len(in_view(scene)) == 1
    return thing(scene)


def only_animal(scene: Scene) -> str:
    assert how_many(scene, "animals") == "1"
    return animal(scene)


def worn(scene: Scene, noun: str) -> str:
    each = {tuple(wear.name for wear in thing.wears) for thing in all_of(scene, noun)}
    assert len(each) == 1
    return " ".join(each.pop()) or "nothing"


def doing(scene: Scene, noun: str) -> str:
    gesture = one({thing.gesture for thing in all_of(scene, noun)})
    return {"lying": "sleeping"}.get(gesture, gesture)


def where(scene: Scene, noun: str) -> str:
    assert all_of(scene, noun)
    return AROUND[scene.background].answer


def behind(scene: Scene, noun: str) -> str:
    assert all_of(scene, noun)
    return BEHIND[scene.background].answer


READERS: dict[str, Callable[..., str]] = {
    r"Is there (.+?)(?: in the picture)?\?": is_there,
    r"Can you see (.+)\?": is_there,
    r"Are there any (.+)\?": is_there,
    r"(?:Is|Are) the (\w+) wearing (.+)\?": wears,
    r"(?:Is|Are) the (\w+) (.+)\?": claimed,
    r"Is it (\w+)(?: in the picture)?\?": weather,
    r"How many (\w+) are there\?": how_many,
    r"How many (\w+) can you see\?": how_many,
    r"How many (\w+) are wearing (.+)\?": how_many_wear,
    r"What animal is this\?": only_animal,
    r"Which animal is in the picture\?": animal,
    r"What is this\?": only_thing,
    r"What can you see\?": thing,
    r"What colour (?:is|are) the (\w+)\?": lambda scene, noun: one(
        {str(thing.tint) for thing in all_of(scene, noun)}
    ),
    r"What (?:is|are) the (\w+) wearing\?": worn,
    r"What (?:is|are) the (\w+) doing\?": doing,
    r"Where (?:is|are) the (\w+)\?": where,
    r"What is behind the (\w+)\?": behind,
    r"(?:What is the weather like|How is the weather)\?": lambda scene: {
        "fog": "foggy",
        "rain": "rainy",
        "None": "clear",
    }[str(scene.weather)],
    r"Is it day or night\?": lambda scene: "night" if scene.weather == "night" else "day",
}


def kind_of(text: str) -> str:
    return next(pattern for pattern in READERS if re.fullmatch(pattern, text))


def right_answer(scene: Scene, text: str) -> str:
    pattern = kind_of(text)
    match = re.fullmatch(pattern, text)
    assert match is not None
    return READERS[pattern](scene, *match.groups())


# --- the tests ---


@pytest.mark.parametrize("style", STYLES)
def test_the_right_answer_is_what_the_facts_say(style):
    for scene, question in asked(style, scenes=60):
        assert right_answer(scene, question.text) == majority(question), (question.text, scene)


@pytest.mark.parametrize("style", STYLES)
def test_the_verb_agrees_with_the_number(style):
    for scene, question in asked(style, scenes=40):
        match = re.match(r"(?:\w+ ){0,2}?(is|are|Is|Are) the (\w+)", question.text)
        if match and match[2] != "weather":
            verb, noun = match.groups()
            several = len(all_of(scene, noun)) > 1
            assert (verb.lower() == "are") == several, question.text
            assert noun == (plural(named(noun)) if several else named(noun)), question.text


def official_accuracy(answer: str, answers: tuple[str, ...]) -> float:
    """Mean over the people of min(1, matches among the nine others / 3)."""
    scores = []
    for left_out in range(len(answers)):
        others = [said for place, said in enumerate(answers) if place != left_out]
        scores.append(min(1.0, sum(said == answer for said in others) / 3))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("kind", TYPES)
def test_ten_people_answer_and_the_right_answer_is_fully_right(kind):
    questions = [q for _, q in asked("training", scenes=40, each=3) if q.type == kind]

    for question in questions:
        assert len(question.answers) == 10
        assert official_accuracy(majority(question), question.answers) == 1.0
    unanimous = sum(len(set(question.answers)) == 1 for question in questions)
    assert 0.3 < unanimous / len(questions) < 0.8


@pytest.mark.parametrize("right", RIGHT)
def test_people_who_disagree_say_something_else(right):
    answers = [ten_answers(right, rng=rng_for("ten", i)) for i in range(30)]

    assert all(said.count(right) >= 7 for said in answers)
    assert {a for said in answers for a in said} - {right} <= set(alternatives(right))
    assert right not in alternatives(right)
    assert alternatives(right)


def test_dissent_is_anywhere_among_the_ten():
    places = {
        place
        for i in range(100)
        for place, said in enumerate(ten_answers("yes", rng=rng_for("place", i)))
        if said == "no"
    }

    assert places == set(range(10))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("split", ["seen", "held-out"])
def test_the_vocabulary_holds_every_answer(style, split):
    for number in range(30):
        rng = rng_for("vocabulary", number)
        scene = draw_scene(list(EVALUATED)[number % 10], STYLES[style], split=split, rng=rng)
        for kind in TYPES:
            assert set(question_of(scene, rng=rng, answer_type=kind).answers) <= set(ANSWERS)


def test_the_vocabulary_is_sorted_without_doubles():
    assert list(ANSWERS) == sorted(set(ANSWERS))
    assert set(RIGHT) <= set(ANSWERS)
    assert SAID_INSTEAD.keys() <= set(RIGHT)


@pytest.mark.parametrize("style", STYLES)
def test_yes_and_no_are_balanced_over_all_and_for_each_kind_of_question(style):
    """Else a model that sees nothing could answer from the question alone."""
    said: dict[str, Counter[str]] = defaultdict(Counter)
    for number in range(250):
        rng = rng_for("balance", style, number)
        scene = draw_scene(list(EVALUATED)[number % 10], STYLES[style], split="seen", rng=rng)
        for _ in range(8):
            question = question_of(scene, rng=rng, answer_type="yes/no")
            said[kind_of(question.text)][majority(question)] += 1
    total = sum(said.values(), Counter[str]())

    assert total["yes"] / total.total() == pytest.approx(0.5, abs=0.06)
    for pattern, counts in said.items():
        assert counts["yes"] / counts.total() == pytest.approx(0.5, abs=0.15), (pattern, counts)


def test_presence_does_not_hang_on_the_class_that_is_asked_for():
    said: dict[str, Counter[str]] = defaultdict(Counter)
    for number in range(400):
        rng = rng_for("presence", number)
        name = list(EVALUATED)[number % 10]
        scene = draw_scene(name, STYLES["evaluation"], split="seen", rng=rng)
        for _ in range(5):
            question = question_of(scene, rng=rng, answer_type="yes/no")
            if READERS[kind_of(question.text)] is is_there:
                noun = re.fullmatch(kind_of(question.text), question.text).group(1)
                said[named(noun)][majority(question)] += 1

    assert said.keys() == EVALUATED.keys()
    for name, counts in said.items():
        assert counts["yes"] / counts.total() == pytest.approx(0.5, abs=0.2), (name, counts)


def test_every_wording_of_every_row_is_asked():
    """A row that no scene allows would be dead."""
    texts = {text for rows in ROWS.values() for row in rows for text in row.texts}
    pieces_of = {text: re.split(r"\{\w+\}", text) for text in texts}
    found: set[str] = set()
    for _, question in asked("training", scenes=250, each=4):
        for text, pieces in pieces_of.items():
            if re.fullmatch(r".+".join(map(re.escape, pieces)), question.text):
                found.add(text)

    assert found == texts


def test_questions_about_one_cat_that_is_known_in_full():
    cat = replace(CAT, tint="red", wears=(Wear("hat", "tophat@noto"),), gesture="jumping")
    scene = Scene(1, "beach", (cat,), main="cat", weather="rain")

    found = every(scene, "other")

    assert found == {
        "What animal is this?": {"cat"},
        "Which animal is in the picture?": {"cat"},
        "What is this?": {"cat"},
        "What can you see?": {"cat"},
        "What colour is the cat?": {"red"},
        "What is the cat wearing?": {"hat"},
        "What is the cat doing?": {"jumping"},
        "Where is the cat?": {"beach"},
        "What is the weather like?": {"rainy"},
        "How is the weather?": {"rainy"},
    }


def test_colours_of_the_drawing_are_not_asked_for():
    assert not any("colour" in text for text in every(PLAIN, "other"))
    claims = [text for text in every(PLAIN, "yes/no") if text.startswith("Is the cat")]
    assert not {text.removeprefix("Is the cat ").rstrip("?") for text in claims} & COLOURS.keys()


def test_what_differs_between_two_is_not_asked_of_both():
    mixed = (replace(CATS[0], tint="red", wears=(Wear("hat", "tophat@noto"),)), CATS[1])
    scene = Scene(1, "plain", mixed, main="cat")

    open_texts = every(scene, "other")

    assert not any("wearing" in text or "colour" in text for text in open_texts)
    assert not any("wearing" in text for text in every(scene, "yes/no"))
    assert every(scene, "number")["How many cats are wearing a hat?"] == {"1"}


def test_numbers_count_what_is_in_view_only():
    wall = replace(CAT, name="car", drawing="car@noto", scale=2.5)
    hidden = Scene(1, "plain", (replace(CATS[0], scale=0.2), wall, CATS[1]), main="cat")

    assert masks(hidden)[0].sum() == 0
    assert every(hidden, "number")["How many cats are there?"] == {"1"}


def test_nothing_is_asked_about_what_is_hardly_in_view():
    peeping = replace(CATS[0], x=-0.15)
    scene = Scene(1, "plain", (peeping, CATS[1]), main="cat")

    assert 0 < masks(scene)[0].sum() < 100
    for kind in ("yes/no", "number"):
        assert not any("cat" in text or "animal" in text for text in every(scene, kind))


def test_alike_places_are_not_denied():
    scene = replace(PLAIN, background="beach")

    found = every(scene, "yes/no", tries=600)

    assert found["Is the cat on the beach?"] == {"yes"}
    assert found["Is the cat in the forest?"] == {"no"}
    assert not {"Is the cat by the sea?", "Is the cat in the desert?"} & found.keys()
    assert "Is the cat in the sky with clouds?" not in found


@pytest.mark.parametrize(
    ("attribute", "value", "other"),
    [("around", "sky", "city"), ("around", "beach", "sea"), ("colour", "red", "pink")],
)
def test_what_is_alike_is_denied_neither_way(attribute, value, other):
    row = ATTRIBUTES[attribute]

    assert other not in row.deniable({value})
    assert value not in row.deniable({other})
    assert set(row.deniable({value})) < set(row.said) - {value, other}


def test_clear_weather_is_seen_outdoors_only():
    inside, outside = (replace(PLAIN, background=name) for name in ("room", "grass"))

    assert every(outside, "other", tries=600)["What is the weather like?"] == {"clear"}
    assert "What is the weather like?" not in every(inside, "other", tries=600)


def test_the_dark_of_space_is_no_night():
    space = replace(PLAIN, background="space")

    assert not any("night" in text for text in every(space, "yes/no", tries=600))


def test_no_open_answer_is_one_that_only_the_held_out_part_shows():
    """Nobody could have learned it."""
    learnable = {
        answer
        for name, row in ATTRIBUTES.items()
        for value, answer in row.answers.items()
        if name not in ("around", "behind") or BACKGROUNDS[value].split == "seen"
    } | {row.nothing for row in ATTRIBUTES.values()}
    for number in range(80):
        rng = rng_for("held-out", number)
        scene = draw_scene("horse", STYLES["hard"], split="held-out", rng=rng)
        question = question_of(scene, rng=rng, answer_type="other")

        assert majority(question) in learnable | CLASSES.keys()
        assert "snow" not in question.text


def test_yes_or_no_and_numbers_can_be_asked_of_nothing_at_all():
    scene = replace(empty_scene(STYLES["training"], rng=rng_for("empty")), background="plain")

    assert set().union(*every(scene, "number").values()) == {"0"}
    assert every(scene, "yes/no")


def test_a_scene_that_leaves_nothing_to_ask_is_an_error():
    scene = Scene(4, "plain")

    with pytest.raises(DataError, match="scene 4: nothing of type 'other' can be asked"):
        question_of(scene, rng=rng_for("none"), answer_type="other")


def test_an_unknown_type_is_refused():
    with pytest.raises(UnknownNameError, match="unknown answer type 'nubmer', did you mean"):
        question_of(PLAIN, rng=rng_for("type"), answer_type="nubmer")


def test_the_same_generator_gives_the_same_question():
    for kind in TYPES:
        first, second = (
            [question_of(PLAIN, rng=rng_for("same", i), answer_type=kind) for i in range(20)]
            for _ in range(2)
        )
        assert first == second


def test_tables_name_what_there_is():
    for name, row in ATTRIBUTES.items():
        assert not row.claims or row.answers.keys() <= row.said.keys(), name
        assert {v for values in row.alike.values() for v in values} <= row.said.keys()
    assert {*AROUND, *BEHIND} <= BACKGROUNDS.keys()
    assert all(BACKGROUNDS[name].split == "seen" for name in (*AROUND, *BEHIND))
    assert set(CLOTHING) == set(ATTRIBUTES["clothing"].said)

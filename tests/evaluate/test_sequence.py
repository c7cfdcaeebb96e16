from __future__ import annotations

from dataclasses import replace

import pytest

from natadv.errors import DataError
from natadv.evaluate import sequence as module
from natadv.evaluate.compute import compute
from natadv.evaluate.plan import CaseUnits
from natadv.evaluate.sequence import block_ends, case_sequence, in_turn
from natadv.metrics.sequential import rank


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "LEAST_BLOCK", 3)


@pytest.fixture
def units(make_unit, plain, typo):
    attack = make_unit(dataset="plain-typo", revision=typo.card.revision)
    return CaseUnits(
        attack=(attack,),
        clean=(make_unit(revision=plain.card.revision),),
        occlusion=(replace(attack, variant="occlusion"),),
        matched=(replace(attack, variant="matched"),),
        searches=(make_unit(task="search"),),
    )


@pytest.fixture
def paired(pack, clean_samples):
    """Two samples of each clean picture, those of one picture far from each other."""
    twins = [
        replace(s, id=f"{s.id}-{copy}", twin=s.id, decoy="cow" if s.label != 2 else "cat")
        for copy in range(2)
        for s in clean_samples
    ]
    return pack("twice", twins, scenario="typographic", twin_of="plain")


def rows_of(units):
    return [row for u in units for row in (u.rows or range(u.start, u.stop))]


def test_a_case_is_judged_after_blocks_that_grow_with_it():
    assert list(block_ends([1] * 10)) == [3, 6, 9, 10]
    # Whole pictures only; from 40 samples on, a block has an eighth of those before it.
    assert list(block_ends([4] * 17)) == [*range(1, 11), 12, 14, 16, 17]


def test_blocks_hold_all_samples_once_in_the_order_of_their_pictures(units, typo, plain):
    found = case_sequence(units, typo, plain, rows=10)

    order = sorted(range(10), key=lambda i: rank(f"g{i}", revision=plain.card.revision))
    of_blocks = [rows_of(block.units.attack) for block in found.blocks]
    assert of_blocks == [sorted(order[:3]), sorted(order[3:6]), sorted(order[6:9]), order[9:]]
    assert [block.rows for block in found.blocks] == [3, 6, 9, 10]
    assert found.whole.rows == found.whole.planned == found.whole.groups == 10
    assert found.whole.group_rows == 1
    for block in found.blocks:
        # One twin of each sample, in this world in the same row.
        rows = rows_of(block.units.attack)
        for role in (block.units.clean, block.units.occlusion, block.units.matched):
            assert rows_of(role) == rows
    assert found.searches == units.searches


def test_the_case_of_the_clean_twins_has_the_same_units(units, typo, plain):
    attacked = case_sequence(units, typo, plain, rows=10)
    clean = case_sequence(CaseUnits(attack=units.clean), plain, None, rows=10)

    assert [b.units.attack for b in clean.blocks] == [b.units.clean for b in attacked.blocks]


def test_samples_of_one_picture_stay_together_and_share_their_twin(units, paired, plain):
    found = case_sequence(units, paired, plain, rows=20)

    for block in found.blocks:
        rows = rows_of(block.units.attack)
        assert {row % 10 for row in rows} == set(rows_of(block.units.clean))
        assert len(rows) == 2 * len(rows_of(block.units.clean))
    assert (found.whole.planned, found.whole.groups, found.whole.group_rows) == (20, 10, 2)


def test_a_twin_that_two_blocks_need_is_shown_once(units, pack, clean_samples, plain):
    twins = [replace(s, id=f"t{i}", twin="s0") for i, s in enumerate(clean_samples)]
    shared = pack("shared", twins, scenario="typographic", twin_of="plain")
    found = case_sequence(units, shared, plain, rows=10)

    assert rows_of(u for block in found.blocks for u in block.units.clean) == [0]


def test_a_limit_puts_the_first_rows_in_order(units, typo, plain):
    found = case_sequence(units, typo, plain, rows=4)

    assert sorted(rows_of(in_turn([found]))) == sorted(list(range(4)) * 4)
    assert found.whole.planned == 4


def test_large_blocks_are_several_units(units, typo, plain, monkeypatch):
    monkeypatch.setattr(module, "SHARD_ROWS", 2)
    found = case_sequence(units, typo, plain, rows=10)

    assert [len(rows_of([u])) for u in found.blocks[0].units.attack] == [2, 1]


def test_rows_without_a_gap_are_an_ordinary_unit(units, typo, plain, monkeypatch):
    monkeypatch.setattr(module, "LEAST_BLOCK", 100)
    (block,) = case_sequence(units, typo, plain, rows=10).blocks

    assert block.units == replace(units, searches=())


def test_units_of_other_rows_have_other_keys(make_unit):
    some = make_unit(rows=(0, 4, 9))

    assert len({make_unit().key, some.key, replace(some, rows=(0, 5, 9)).key}) == 3
    assert len({make_unit().rows_key, some.rows_key}) == 2
    assert some.title.endswith("attack[3 of 0:10]")


def test_scattered_rows_have_the_outcomes_of_their_places(make_unit, plain, loaded):
    whole, some = make_unit(), make_unit(rows=(1, 4, 9))
    rows, of_all = (
        compute([unit], plain, clean=None, loaded=loaded)[unit.key]["outcomes"]
        for unit in (some, whole)
    )

    for name in rows.keys() - {"values"}:
        assert rows[name] == [of_all[name][row] for row in (1, 4, 9)]
    assert rows["id"] == ["s1", "s4", "s9"]
    with pytest.raises(DataError, match="rows 3 to 10 were requested, the card has 10"):
        compute([make_unit(rows=(3, 10))], plain, clean=None, loaded=loaded)


def test_cases_take_turns_block_by_block(units, typo, plain):
    one = case_sequence(CaseUnits(attack=units.attack), typo, plain, rows=10)
    other = case_sequence(CaseUnits(attack=units.clean), plain, None, rows=4)
    first, second = (list(in_turn([s])) for s in (one, other))

    turns = [first[0], second[0], first[1], second[1], *first[2:]]
    assert list(in_turn([one, other])) == turns


class Looks:
    """Judges a case by the number of its samples, and remembers when it was asked."""

    def __init__(self, decided=100, *, unclear=()):
        self.decided, self.unclear, self.rows = decided, unclear, []

    def __call__(self, units, record):
        assert len(rows_of(units.attack)) == record.rows
        self.rows.append(record.rows)
        if record.rows < self.decided:
            return "open"
        return "unclear" if record.rows in self.unclear else "decided"


def test_a_case_stops_at_the_first_block_that_decides_it(units, typo, plain):
    case = case_sequence(CaseUnits(attack=units.attack), typo, plain, rows=10)
    blocks, stored, look = list(in_turn([case])), [], Looks(6)

    # Others have run ahead: the third block is stored before the second one.
    stored += [blocks[0], blocks[2]]
    case.advance(settled=stored.__contains__, look=look)
    assert look.rows == [3]
    assert case.stop is None
    assert all(map(case.needs, blocks))
    # What is missing is part of the evidence, so that it is reported.
    assert case.units.attack == tuple(blocks[:2])

    stored.append(blocks[1])
    case.advance(settled=stored.__contains__, look=look)
    assert case.stop == 2
    assert list(map(case.needs, blocks)) == [True, True, False, False]
    assert case.units.attack == tuple(blocks[:2])
    assert (case.record.rows, case.record.stopped) == (6, True)


@pytest.mark.parametrize("unclear", [(), (6,), (6, 9), (9,)])
@pytest.mark.parametrize("decided", [3, 6, 9, 10, 100])
def test_a_case_stops_at_the_same_block_whenever_one_looks(units, typo, plain, decided, unclear):
    ends = []
    for step in (1, 2, 3, 4):
        case = case_sequence(CaseUnits(attack=units.attack), typo, plain, rows=10)
        blocks, look = list(in_turn([case])), Looks(decided, unclear=unclear)
        for count in (*range(step, 4, step), 4):
            if case.stop is None:
                case.advance(settled=blocks[:count].__contains__, look=look)
        ends.append(case.stop)

    expected = [i for i, n in enumerate((3, 6, 9), 1) if n >= decided and n not in unclear]
    assert ends == [min([*expected, 4])] * 4


def test_a_case_that_nothing_decides_runs_to_its_end_and_is_looked_at_once(units, typo, plain):
    case, look = case_sequence(CaseUnits(attack=units.attack), typo, plain, rows=10), Looks()
    case.advance(settled=lambda unit: True, look=look)

    assert look.rows == [10]
    assert case.stop == len(case.blocks)
    assert case.record == case.whole
    assert not case.record.stopped

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import StoreError
from natadv.evidence import (
    Manifest,
    Selection,
    case_of,
    empty_evidence,
    folder_of,
    read_all,
    read_evidence,
    select,
    write_evidence,
    write_selection,
)


@pytest.fixture
def manifest(kit):
    facts = {"device": "cpu", "packages": {"numpy": "2.4"}}
    return Manifest(kit.CLEAN, "mini-clip", 3, "r" * 64, "w" * 64, "p-1", "mini", ("late",), facts)


@pytest.fixture
def rows(kit):
    return kit.rows_of([True, False], prefix="é", twin_prefix="c", errors={"e2": "truncated\nfile"})


def same(a, b):
    columns = ("id", "group", "part", "twin", "decoy", "truth", "prediction", "errors")
    return all(getattr(a, c) == getattr(b, c) for c in columns) and all(
        np.array_equal(a.values[k], b.values[k]) for k in (*a.values, *b.values)
    )


def test_what_is_written_is_read_back(tmp_path, manifest, rows, kit):
    controls = {"occlusion": kit.rows_of([True, True]), "matched": kit.rows_of([])}

    folder = write_evidence(tmp_path, manifest, {"attack": rows, **controls})
    found = read_evidence(folder)

    assert folder.name == "classification__clean__mini__mini-clip"
    assert found.manifest == manifest
    assert same(found.outcomes["attack"], rows)
    assert same(found.outcomes["occlusion"], controls["occlusion"])
    assert found.outcomes["matched"].n == 0
    assert found.evidence(rows).clean is rows


def told_of(rows):
    return replace(rows, attributes={"kind": ("decoy", "other"), "size": (0.1, 1 / 3)})


def test_factors_are_read_back_and_selected_with_their_rows(tmp_path, manifest, rows):
    folder = write_evidence(tmp_path, manifest, {"attack": told_of(rows)})
    found = read_evidence(folder).outcomes["attack"]

    assert found.attributes == told_of(rows).attributes
    assert select(found, [False, True]).attributes == {"kind": ("other",), "size": (1 / 3,)}


def test_without_factors_nothing_is_written_of_them(tmp_path, manifest, rows):
    folder = write_evidence(tmp_path, manifest, {"attack": rows})

    assert "factors" not in (folder / "outcomes.jsonl").read_text()


def test_a_factor_that_is_no_number_is_not_written(tmp_path, manifest, rows):
    told = replace(rows, attributes={"size": (0.1, float("nan"))})

    with pytest.raises(StoreError, match=r"expected finite values .*'size': nan"):
        write_evidence(tmp_path, manifest, {"attack": told})


def test_rows_that_tell_other_factors_are_refused(kit, tmp_path, manifest, rows):
    folder = write_evidence(tmp_path, manifest, {"attack": told_of(rows)})
    first, second = (folder / "outcomes.jsonl").read_text().splitlines(keepends=True)
    kit.rewrite_rows(folder, (first + second.replace('"kind": "other", ', "")).encode())

    with pytest.raises(StoreError, match=r":2: other factors than in line 1: \['size'\]"):
        read_evidence(folder)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_floats_come_back_bit_by_bit(kit, tmp_path_factory, numbers):
    rows = kit.rows_of([True] * len(numbers))
    rows = replace(rows, values={"score": np.array(numbers)})
    manifest = Manifest(kit.CLEAN, "m", len(numbers), "r", "w", "p")

    folder = write_evidence(tmp_path_factory.mktemp("e"), manifest, {"attack": rows})

    assert read_evidence(folder).outcomes["attack"].values["score"].tolist() == numbers


def test_equal_evidence_is_equal_bytes(tmp_path, manifest, rows):
    turned = replace(rows, values=dict(reversed(rows.values.items())))

    a = write_evidence(tmp_path / "a", manifest, {"attack": rows})
    b = write_evidence(tmp_path / "b", manifest, {"attack": turned})

    assert {p.name: p.read_bytes() for p in a.iterdir()} == {
        p.name: p.read_bytes() for p in b.iterdir()
    }


def test_writing_again_replaces_and_leaves_nothing_behind(tmp_path, manifest, rows, kit):
    write_evidence(tmp_path, manifest, {"attack": rows, "occlusion": rows})

    folder = write_evidence(tmp_path, manifest, {"attack": kit.rows_of([True] * 3)})

    assert [p.name for p in tmp_path.iterdir()] == [folder.name]
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "outcomes.jsonl"]
    assert read_evidence(folder).outcomes["attack"].n == 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_refused_and_the_old_evidence_stays(
    tmp_path, manifest, rows, bad
):
    folder = write_evidence(tmp_path, manifest, {"attack": rows})
    broken = replace(rows, values={"score": np.array([0.5, bad])})

    with pytest.raises(StoreError, match="expected finite values for sample 'é1'"):
        write_evidence(tmp_path, manifest, {"attack": broken})

    assert same(read_evidence(folder).outcomes["attack"], rows)


def test_evidence_without_the_case_itself_is_refused(tmp_path, manifest, rows):
    with pytest.raises(StoreError, match="expected outcomes of 'attack'"):
        write_evidence(tmp_path, manifest, {"occlusion": rows})


def test_a_folder_that_cannot_be_written_is_named(tmp_path, manifest, rows):
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="give another --evidence DIR"):
        write_evidence(tmp_path / "file", manifest, {"attack": rows})


@pytest.mark.parametrize("keep", [slice(0, -1), slice(1, None)])
def test_a_dropped_row_is_noticed(tmp_path, manifest, rows, keep):
    path = write_evidence(tmp_path, manifest, {"attack": rows}) / "outcomes.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[keep]))

    with pytest.raises(StoreError, match=r"outcomes\.jsonl: sha256 is .* manifest says"):
        read_evidence(path.parent)


def test_a_missing_file_is_noticed(tmp_path, manifest, rows):
    folder = write_evidence(tmp_path, manifest, {"attack": rows, "matched": rows})
    (folder / "matched.jsonl").unlink()

    with pytest.raises(StoreError, match=r"matched\.jsonl: cannot be read"):
        read_evidence(folder)


def test_a_folder_without_a_manifest_is_no_evidence(tmp_path):
    with pytest.raises(StoreError, match="no evidence here; measure the case first"):
        read_evidence(tmp_path)


def test_a_copied_folder_is_not_the_evidence_of_its_new_name(tmp_path, manifest, rows, kit):
    folder = write_evidence(tmp_path, manifest, {"attack": rows})
    moved = folder.rename(folder_of(tmp_path, kit.NATURAL))

    with pytest.raises(StoreError, match="is the evidence of classification/clean/mini/mini-clip"):
        read_evidence(moved)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 1),
        ("case", "classification/clean/mini"),
        ("case", "classification/cleen/mini/mini-clip"),
        ("planned_n", "3"),
        ("planned_n", True),
        ("weights", None),
        ("errors", {}),
        ("files", {}),
        ("files", {"outcomes.jsonl": "0", "other.jsonl": "0"}),
    ],
)
def test_a_manifest_with_a_wrong_entry_is_refused(tmp_path, manifest, rows, key, value):
    path = write_evidence(tmp_path, manifest, {"attack": rows}) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    with pytest.raises(StoreError, match=r"manifest\.json: .*measure"):
        read_evidence(path.parent)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}'])
def test_what_is_no_manifest_is_refused(tmp_path, manifest, rows, text):
    path = write_evidence(tmp_path, manifest, {"attack": rows}) / "manifest.json"
    path.write_text(text)

    with pytest.raises(StoreError, match=r"manifest\.json: .*; measure again"):
        read_evidence(path.parent)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("files", None),
        ("problems", [1]),
        ("errors", []),
        ("facts", []),
        ("twin_of", 3),
        ("planned_n", 3.5),
        ("lineage", ["mini-clip"]),
    ],
)
def test_an_entry_of_another_kind_is_refused_though_the_hash_is_right(
    kit, tmp_path, manifest, rows, key, value
):
    path = write_evidence(tmp_path, manifest, {"attack": rows}) / "manifest.json"
    kit.sign(path, **{key: value})

    with pytest.raises(StoreError, match=rf"manifest\.json: {key}.*; measure again"):
        read_evidence(path.parent)


def test_an_edited_manifest_is_noticed(tmp_path, manifest, rows):
    path = write_evidence(tmp_path, manifest, {"attack": rows}) / "manifest.json"
    path.write_text(path.read_text().replace('"lineage": "mini-clip"', '"lineage": "mini-rest"'))

    with pytest.raises(StoreError, match="was changed after it was written"):
        read_evidence(path.parent)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"\xff\xfe\n", r":1: "),
        (b"{}\n", r":1: id: field required"),
        (b"null\n", r":1: "),
        (b"[" * 20_000 + b"\n", r":1: "),
    ],
)
def test_rows_that_are_no_rows_are_refused(kit, tmp_path, manifest, rows, body, told):
    folder = write_evidence(tmp_path, manifest, {"attack": rows})
    kit.rewrite_rows(folder, body)

    with pytest.raises(StoreError, match=rf"outcomes\.jsonl{told}.*measure again"):
        read_evidence(folder)


def test_a_row_that_stands_twice_is_refused(kit, tmp_path, manifest, rows):
    folder = write_evidence(tmp_path, manifest, {"attack": rows})
    kit.rewrite_rows(folder, 2 * (folder / "outcomes.jsonl").read_bytes())

    with pytest.raises(StoreError, match=r"outcomes\.jsonl:3: a second row of 'é0'"):
        read_evidence(folder)


def test_emptying_removes_what_runs_wrote_and_nothing_else(tmp_path, manifest, rows, kit):
    write_evidence(tmp_path, manifest, {"attack": rows})
    write_selection(tmp_path, Selection("mini", ("mini-clip",), (kit.CLEAN,), whole=True))
    name = folder_of(tmp_path, kit.CLEAN).name
    for left in (f".{name}.7.new", f".{name}.7.old"):
        shutil.copytree(tmp_path / name, tmp_path / left)

    empty_evidence(tmp_path)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "foreign",
    [
        "node_modules/manifest.json",
        "thresholds.yaml",
        "classification__clean__mini__mini-clip/notes.txt",
        "classification__clean__mini__mini-siglip",
        ".git/config",
    ],
)
def test_a_folder_that_holds_anything_else_is_left_alone(tmp_path, manifest, rows, foreign):
    write_evidence(tmp_path, manifest, {"attack": rows})
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("{}")
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(StoreError, match=r"which no run of the gate wrote.*--evidence DIR"):
        empty_evidence(tmp_path)

    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_to_a_case_elsewhere_is_not_followed(tmp_path, manifest, rows):
    folder = write_evidence(tmp_path / "before", manifest, {"attack": rows})
    (tmp_path / "now").mkdir()
    (tmp_path / "now" / folder.name).symlink_to(folder)

    with pytest.raises(StoreError, match="which no run of the gate wrote"):
        empty_evidence(tmp_path / "now")

    assert read_evidence(folder).outcomes["attack"].n == 2


def test_all_cases_are_found_and_broken_ones_are_named(tmp_path, manifest, rows, kit):
    write_evidence(tmp_path, manifest, {"attack": rows})
    write_evidence(tmp_path, replace(manifest, case=kit.NATURAL), {"attack": rows})
    (tmp_path / "stray").mkdir()
    (tmp_path / ".half.1.new").mkdir()

    found, broken = read_all(tmp_path)

    assert sorted(found) == sorted([kit.CLEAN, kit.NATURAL])
    assert list(broken) == ["stray"]


@pytest.mark.parametrize(
    "address", ["", "a/b/c/d", "classification/clean//m", "classification/clean/d/m/x"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(StoreError, match="expected an address task/scenario/dataset/model"):
        case_of(address)


def test_selecting_rows_keeps_columns_together_and_errors_whole(rows):
    found = select(rows, [False, True])

    assert found.id == ("é1",)
    assert found.values["correct"].tolist() == [0.0]
    assert found.errors == rows.errors

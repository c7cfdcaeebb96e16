from __future__ import annotations

import hashlib
import json
import shutil
import tracemalloc
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import StoreError
from natadv.evidence import (
    Evidence,
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
from natadv.types import TEXT_COLUMNS


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

    assert {n: list(c) for n, c in found.attributes.items()} == {
        "kind": ["decoy", "other"],
        "size": [0.1, 1 / 3],
    }
    for table in (found, told_of(rows)):
        kept = select(table, [False, True]).attributes
        assert {n: list(c) for n, c in kept.items()} == {"kind": ["other"], "size": [1 / 3]}


def test_without_factors_nothing_is_written_of_them(tmp_path, manifest, rows):
    folder = write_evidence(tmp_path, manifest, {"attack": rows})

    names = ("correct", "rank", "said_decoy")
    assert pq.read_schema(folder / "outcomes.parquet").names == [*TEXT_COLUMNS, *names]


def test_any_tool_reads_the_rows_as_they_are(tmp_path, manifest, rows):
    """Plain columns, no metadata of pandas or Arrow, and no code where it does not pay."""
    folder = write_evidence(tmp_path, manifest, {"attack": told_of(rows)})
    file = pq.ParquetFile(folder / "outcomes.parquet")

    assert file.metadata.metadata is None
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert file.read().to_pylist()[1] == {
        "id": "é1", "group": "é1", "part": "", "twin": "c1", "decoy": "cat", "truth": "bee",
        "prediction": "cat", "correct": 0.0, "rank": 1.0, "said_decoy": 1.0,
        "overlay": {"kind": "other", "size": 1 / 3},
    }  # fmt: skip


def test_texts_are_stored_once_where_they_repeat(tmp_path, manifest, kit):
    rows = kit.rows_of([True] * 1000)
    folder = write_evidence(tmp_path, replace(manifest, planned_n=1000), {"attack": rows})
    columns = pq.read_metadata(folder / "outcomes.parquet").row_group(0)

    coded = {columns.column(i).path_in_schema for i in range(columns.num_columns)
             if "RLE_DICTIONARY" in columns.column(i).encodings}  # fmt: skip
    assert coded == {"part", "twin", "decoy", "truth", "prediction", "correct", "rank",
                     "said_decoy"}  # fmt: skip
    assert same(read_evidence(folder).outcomes["attack"], rows)


def test_a_factor_that_is_no_number_is_not_written(tmp_path, manifest, rows):
    told = replace(rows, attributes={"size": (0.1, float("nan"))})

    with pytest.raises(StoreError, match=r"expected finite values .*'size': nan"):
        write_evidence(tmp_path, manifest, {"attack": told})


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_floats_come_back_bit_by_bit(kit, tmp_path_factory, numbers):
    rows = kit.rows_of([True] * len(numbers))
    rows = replace(rows, values={"score": np.array(numbers)})
    manifest = Manifest(kit.CLEAN, "m", len(numbers), "r", "w", "p")

    folder = write_evidence(tmp_path_factory.mktemp("e"), manifest, {"attack": rows})

    found = read_evidence(folder).outcomes["attack"].values["score"]
    assert found.tobytes() == np.array(numbers).tobytes()


def test_a_case_keeps_no_more_clean_twins_than_it_has_samples(tmp_path, manifest, rows):
    """Where its own twins are written, as a clean dataset may be larger than the case."""
    attack = replace(select(rows, [True, *[False] * (rows.n - 1)]), twin=rows.id[:1])
    own = Evidence(attack, rows).own_twins()

    assert own is not None
    assert list(own.id) == [rows.id[0]]
    assert own.errors == rows.errors
    path = write_evidence(
        tmp_path, replace(manifest, planned_n=1), {"attack": attack, "clean": own}
    )
    assert list(read_evidence(path).outcomes["clean"].id) == list(own.id)
    assert Evidence(attack).own_twins() is None


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
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "outcomes.parquet"]
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


def test_a_file_with_other_rows_is_noticed(tmp_path, manifest, rows):
    path = write_evidence(tmp_path, manifest, {"attack": rows}) / "outcomes.parquet"
    pq.write_table(pq.read_table(path)[:1], path)

    with pytest.raises(StoreError, match=r"outcomes\.parquet: sha256 is .* manifest says"):
        read_evidence(path.parent)


def test_no_flipped_bit_is_read_as_another_row(kit, tmp_path, manifest, rows):
    """With a hash that fits, any byte may be wrong: the rows are read, or one line says why not."""
    folder = write_evidence(tmp_path, manifest, {"attack": told_of(rows)})
    body = (folder / "outcomes.parquet").read_bytes()
    found: list[int | str] = []
    for at in range(0, len(body), 11):
        flipped = bytearray(body)
        flipped[at] ^= 1 << at % 8
        kit.rewrite_rows(folder, bytes(flipped))
        try:
            found.append(read_evidence(folder).outcomes["attack"].n)
        except StoreError as error:
            found.append(str(error))

    told = [each for each in found if isinstance(each, str)]
    assert told
    assert all(len(each.splitlines()) == 1 and "/outcomes.parquet: " in each for each in told)
    assert {each for each in found if isinstance(each, int)} <= set(range(4))


def test_a_missing_file_is_noticed(tmp_path, manifest, rows):
    folder = write_evidence(tmp_path, manifest, {"attack": rows, "matched": rows})
    (folder / "matched.parquet").unlink()

    with pytest.raises(StoreError, match=r"matched\.parquet: cannot be read"):
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
        ("files", {"outcomes.parquet": "0", "other.parquet": "0"}),
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


DAMAGED = {
    b"": "not the Parquet of outcomes: ",
    b"PAR1": "not the Parquet of outcomes: ",
    b'{"id": "a"}\n' * 9: "not the Parquet of outcomes: ",
    b"PAR1" + b"\xff" * 64 + b"PAR1": "not the Parquet of outcomes: ",
}


@pytest.mark.parametrize("body", DAMAGED)
def test_what_is_no_parquet_is_refused(kit, tmp_path, manifest, rows, body):
    folder = write_evidence(tmp_path, manifest, {"attack": rows})
    kit.rewrite_rows(folder, body)

    with pytest.raises(StoreError, match=rf"outcomes\.parquet: {DAMAGED[body]}.*; measure again"):
        read_evidence(folder)


def without(table, name):
    return table.drop_columns([name])


def with_column(table, name, column):
    """In the place of the column of that name, or as a new one."""
    at = table.column_names.index(name) if name in table.column_names else None
    return table.append_column(name, column) if at is None else table.set_column(at, name, column)


ODD = {
    "an absent column": (lambda t: without(t, "truth"), "column 'truth' is missing"),
    "a foreign column": (
        lambda t: with_column(t, "note", pa.array(["x", "y"])),
        "column 'note': expected numbers, got string",
    ),
    "numbers of another kind": (
        lambda t: with_column(t, "rank", pa.array([0, 1])),
        "column 'rank': expected numbers, got int64",
    ),
    "numbers as text": (
        lambda t: with_column(t, "id", pa.array([1.0, 2.0])),
        "column 'id': expected text, got double",
    ),
    "two columns of one name": (
        lambda t: t.append_column("rank", pa.array([0.0, 1.0])),
        "two columns have the name .rank.",
    ),
    "an absent text": (
        lambda t: with_column(t, "prediction", pa.array(["bee", None])),
        "a text is missing",
    ),
    "an absent number": (
        lambda t: with_column(t, "correct", pa.array([1.0, None])),
        "a number is missing or not finite",
    ),
    "a number that is not finite": (
        lambda t: with_column(t, "correct", pa.array([1.0, float("nan")])),
        "a number is missing or not finite",
    ),
    "a row that stands twice": (lambda t: pa.concat_tables([t, t[:1]]), "a second row of 'é0'"),
    "bytes that are not UTF-8": (
        lambda t: with_column(t, "id", pa.array([b"a", b"\xff"]).view(pa.string())),
        "not the Parquet of outcomes: .*Invalid UTF8",
    ),
    "an overlay without attributes": (
        lambda t: with_column(t, "overlay", pa.array(["x", "y"])),
        "column 'overlay': expected texts and numbers, got string",
    ),
    "an absent overlay": (
        lambda t: with_column(t, "overlay", pa.array([{"size": 0.1}, None])),
        "the attributes of an overlay are missing",
    ),
    "an overlay with an absent attribute": (
        lambda t: with_column(t, "overlay", pa.array([{"kind": "a"}, {"kind": None}])),
        "a text is missing",
    ),
    "a list in an overlay": (
        lambda t: with_column(t, "overlay", pa.array([{"kind": ["a"]}] * 2)),
        "column 'overlay': expected texts and numbers, got struct",
    ),
    "more rows than planned": (
        lambda t: pa.concat_tables(
            with_column(t, "id", pa.array([f"{i}a", f"{i}b"])) for i in range(2)
        ),
        "holds 4 rows, and its manifest plans 3",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_rows_that_no_run_writes_are_refused(kit, tmp_path, manifest, rows, name):
    folder = write_evidence(tmp_path, manifest, {"attack": rows})
    change, told = ODD[name]
    kit.rewrite_rows(folder, change(pq.read_table(folder / "outcomes.parquet")))

    with pytest.raises(StoreError, match=rf"outcomes\.parquet: .*{told}.*; measure again") as error:
        read_evidence(folder)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("planned_n", [3, 10**9])
def test_rows_without_end_are_refused_before_they_are_unpacked(
    kit, tmp_path, manifest, rows, planned_n
):
    """A million equal rows are a small file, and would be a hundred megabytes of rows."""
    folder = write_evidence(tmp_path, replace(manifest, planned_n=planned_n), {"attack": rows})
    table = pq.read_table(folder / "outcomes.parquet")[:1]
    many = table.take(pa.array(np.zeros(1_000_000, dtype=np.int64)))
    kit.rewrite_rows(folder, many, compression="zstd")
    del many
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    tracemalloc.start()

    with pytest.raises(StoreError, match=r"outcomes\.parquet: holds 1,000,000 rows"):
        read_evidence(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 5_000_000
    assert pa.total_allocated_bytes() - before < 5_000_000
    assert pool.bytes_allocated() - before < 5_000_000


def test_texts_that_unpack_to_far_more_than_the_file_are_refused(kit, tmp_path, manifest, rows):
    folder = write_evidence(tmp_path, manifest, {"attack": rows})
    table = pq.read_table(folder / "outcomes.parquet")
    bomb = with_column(table, "prediction", pa.array(["a" * 8_000_000, "b" * 8_000_000]))
    kit.rewrite_rows(folder, bomb, compression="zstd")

    with pytest.raises(StoreError, match=r"outcomes\.parquet: holds 2 rows of 16,\d+,\d+ bytes"):
        read_evidence(folder)


def test_a_folder_of_an_older_natadv_says_so_in_one_line(kit, tmp_path, manifest, rows):
    folder = write_evidence(tmp_path, manifest, {"attack": rows})
    body = b'{"id": "a", "values": {"correct": 1.0}}\n'
    (folder / "outcomes.parquet").rename(folder / "outcomes.jsonl").write_bytes(body)
    digest = hashlib.sha256(body).hexdigest()
    kit.sign(folder / "manifest.json", format=2, files={"outcomes.jsonl": digest})

    told = r"^\S*manifest\.json: measured by an older natadv; measure again$"
    with pytest.raises(StoreError, match=told):
        read_evidence(folder)
    empty_evidence(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_value_named_as_another_column_is_refused(tmp_path, manifest, rows):
    for name in ("truth", "overlay"):
        odd = replace(rows, values={name: np.zeros(2)})

        with pytest.raises(StoreError, match=f"mini-clip: a value cannot be named '{name}'"):
            write_evidence(tmp_path, manifest, {"attack": odd})


def test_overlay_attributes_may_have_any_name(tmp_path, manifest, rows):
    names = ("a.b", "a b", "é", '"', "list.element", "id")
    told = {name: (f"{name} 1", "x") for name in names} | {f"{name}#": (1.5, 2.0) for name in names}
    folder = write_evidence(tmp_path, manifest, {"attack": replace(rows, attributes=told)})

    found = read_evidence(folder).outcomes["attack"].attributes
    assert {name: tuple(column) for name, column in found.items()} == told


def test_a_text_that_cannot_be_stored_is_refused(tmp_path, manifest, rows):
    lone = replace(rows, prediction=("bee", "\ud800"))

    with pytest.raises(
        StoreError, match=r"mini-clip: outcomes that cannot be stored: .*surrogates"
    ):
        write_evidence(tmp_path, manifest, {"attack": lone})


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

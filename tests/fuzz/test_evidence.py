"""However evidence is damaged: a plain answer, and green only where nothing was changed."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from natadv.errors import StoreError
from natadv.evidence import Selection, case_of, read_all, read_selection, write_selection
from natadv.gate.__main__ import main
from tests.fuzz.test_contracts import CONTRACT, MODELS, N, one_of, store

GRID = [
    f"classification/{cell}/{model}"
    for cell in ("clean/mini", "typographic/mini-typo", "natural/mini-natural")
    for model in MODELS
]
SHARE, ALL = 100, 600
WHOLE = Selection("mini", MODELS, tuple(map(case_of, GRID)), whole=True)
MOST_CHARACTERS = 1_000


@pytest.fixture(scope="module")
def contract(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("contract") / "thresholds.yaml"
    path.write_text(CONTRACT)
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    return selected(store(tmp_path_factory.mktemp("good"), wrong={}))


@pytest.fixture(scope="module")
def bad(tmp_path_factory) -> Path:
    """Every rule is broken."""
    wrong = {a: slice(90, None) if "/clean/" in a else slice(None) for a in GRID}
    return selected(store(tmp_path_factory.mktemp("bad"), wrong=wrong))


def selected(root: Path) -> Path:
    write_selection(root, WHOLE)
    return root


@pytest.fixture
def judge(contract, capsys) -> Callable[[Path], int]:
    def run(evidence: Path) -> int:
        code = main(["--evidence", str(evidence), "--thresholds", str(contract)])
        told = capsys.readouterr()
        assert code in (0, 1, 4)
        assert "Traceback" not in told.out + told.err
        assert max(map(len, (told.out + told.err).splitlines()), default=0) < MOST_CHARACTERS
        return code

    return run


def test_the_original_tells_good_from_bad(good, bad, judge):
    assert judge(good) == 0
    assert judge(bad) == 1


def test_damaged_evidence_is_never_green_but_where_nothing_changed(
    chance, tmp_path, good, bad, judge
):
    damage = one_of(chance, (FILES, FILES, NODES, FOLDERS))
    seed = int(chance.integers(2**32))
    for name, root in (("good", good), ("bad", bad)):
        copied = shutil.copytree(root, tmp_path / name)
        one_of(np.random.default_rng(seed), damage)(copied, np.random.default_rng(seed))

    assert judge(tmp_path / "bad") != 0
    if judge(tmp_path / "good") == 0:
        assert content(tmp_path / "good") == content(good)


def test_evidence_that_was_signed_anew_is_judged_or_refused(chance, tmp_path, good, bad, judge):
    """Whoever edits the hashes too can make it say anything, but ends nothing."""
    for name, root in (("good", good), ("bad", bad)):
        copied = shutil.copytree(root, tmp_path / name)
        node_changed(copied, chance, signed=True)
        judge(copied)


def content(root: Path) -> Any:
    """All that can matter to a verdict."""
    found, broken = read_all(root)
    try:
        # Without a selection the whole tier is asked for.
        selection: object = read_selection(root) or WHOLE
    except StoreError as error:
        selection = str(error)
    rows = {
        case: [
            (variant, table.id, table.group, table.part, table.twin, table.decoy, table.truth,
             table.prediction, dict(table.errors), dict(table.attributes),
             {name: column.tolist() for name, column in table.values.items()})
            for variant, table in stored.outcomes.items()
        ]
        for case, stored in found.items()
    }  # fmt: skip
    return {case: stored.manifest for case, stored in found.items()}, rows, broken, selection


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def bit_flipped(root: Path, chance: np.random.Generator) -> None:
    flip(one_of(chance, files(root)), chance)


def flip(path: Path, chance: np.random.Generator) -> None:
    body = bytearray(path.read_bytes())
    body[int(chance.integers(len(body)))] ^= 1 << int(chance.integers(8))
    path.write_bytes(bytes(body))


def cut_off(root: Path, chance: np.random.Generator) -> None:
    path = one_of(chance, files(root))
    body = path.read_bytes()
    path.write_bytes(body[: int(chance.integers(len(body)))])


def line_changed(root: Path, chance: np.random.Generator) -> None:
    path = one_of(chance, files(root))
    lines = path.read_bytes().splitlines(keepends=True)
    at, other = (int(chance.integers(len(lines))) for _ in range(2))
    kind = int(chance.integers(3))
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, lines[other])
    else:
        lines[at], lines[other] = lines[other], lines[at]
    path.write_bytes(b"".join(lines))


ODDITIES = (b"\xff\xfe", b"\0", b"\n", b" ", b"{}", b"null", b"[" * 20_000, b"9" * 5_000, b"NaN",
            b"1e999", b'"', b"\xed\xa0\x80", b"\r\n")  # fmt: skip


def bytes_inserted(root: Path, chance: np.random.Generator) -> None:
    path = one_of(chance, files(root))
    body = path.read_bytes()
    at = int(chance.integers(len(body) + 1))
    path.write_bytes(body[:at] + one_of(chance, ODDITIES) + body[at:])


def answers_set_right(root: Path, chance: np.random.Generator) -> None:
    path = one_of(chance, [p for p in files(root) if p.name == "outcomes.parquet"])
    table = pq.read_table(path)
    right = pa.array(np.ones(len(table)))
    at = table.column_names.index("correct")
    # Not as natadv writes it, so that it differs where all answers are right.
    pq.write_table(table.set_column(at, "correct", right), path, compression="gzip")


def file_of_another_case(root: Path, chance: np.random.Generator) -> None:
    first, second = one_of(chance, files(root)), one_of(chance, files(root))
    first.write_bytes(second.read_bytes())


FILES = (bit_flipped, bit_flipped, cut_off, line_changed, bytes_inserted, answers_set_right,
         file_of_another_case)  # fmt: skip


def folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


def folder_dropped(root: Path, chance: np.random.Generator) -> None:
    shutil.rmtree(one_of(chance, folders(root)))


def folder_renamed(root: Path, chance: np.random.Generator) -> None:
    folder = one_of(chance, folders(root))
    names = ("stray", folder.name.upper(), folder.name + "x", ".hidden", "a__b__c__d")
    folder.rename(root / one_of(chance, names))


def folders_swapped(root: Path, chance: np.random.Generator) -> None:
    first, second = one_of(chance, folders(root)), one_of(chance, folders(root))
    held = root / ".held"
    first.rename(held)
    if second != first:
        second.rename(first)
    held.rename(second)


def file_dropped(root: Path, chance: np.random.Generator) -> None:
    # Without the selection the whole tier is asked for: of a whole run nothing is lost with it.
    one_of(chance, [p for p in files(root) if p.name != "run.json"]).unlink()


def file_of_another_kind(root: Path, chance: np.random.Generator) -> None:
    path = one_of(chance, files(root))
    path.unlink()
    if chance.integers(2):
        path.mkdir()
    else:
        path.symlink_to(root / "nowhere")


FOLDERS = (folder_dropped, folder_renamed, folders_swapped, file_dropped, file_of_another_kind)


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(node) if isinstance(node, dict) else range(len(node))
    for key in keys:
        yield node, key
        if isinstance(node[key], dict | list) and node[key]:
            yield from places(node[key])


OTHERS = (None, True, False, 0, 1, -1, 7.5, "", "x", [], {}, ["x"], [1], {"x": 1}, 10**400,
          "classification/clean/mini/mini-clip", "outcomes.parquet", "../..", 1e308)  # fmt: skip


def node_changed(root: Path, chance: np.random.Generator, *, signed: bool = False) -> None:
    """Drop or replace any value of a manifest, of a row, or of the selection."""
    path = one_of(chance, files(root))
    if path.suffix == ".parquet":
        rows_changed(path, chance)
        if signed:
            manifest = path.with_name("manifest.json")
            found = json.loads(manifest.read_text())
            found["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
            manifest.write_text(json.dumps(with_hash(found)))
        return
    tree = json.loads(path.read_text())
    node, key = one_of(chance, list(places(tree)))
    if chance.integers(3):
        node[key] = copy.deepcopy(one_of(chance, OTHERS))
    else:
        del node[key]
    path.write_text(json.dumps(with_hash(tree) if signed else tree))


def rows_changed(path: Path, chance: np.random.Generator) -> None:
    """Change a cell, a column or rows of a Parquet file, or any byte of it."""
    table = pq.read_table(path)
    at, row = int(chance.integers(table.num_columns)), int(chance.integers(len(table)))
    name, column = table.column_names[at], table.column(at).to_pylist()
    kind, other = int(chance.integers(7)), copy.deepcopy(one_of(chance, CELLS))
    if kind == 0:
        table = table.drop_columns([name])
    elif kind == 1:
        column[row] = other if isinstance(other, type(column[row])) else None
        table = table.set_column(at, name, pa.array(column, table.column(at).type))
    elif kind == 2:
        table = table.set_column(at, name, pa.array([other] * len(table)))
    elif kind == 3:
        table = table.append_column(one_of(chance, (name, "overlay", "x", "")),
                                    pa.array([other] * len(table)))  # fmt: skip
    elif kind == 4:
        table = table.take(chance.integers(len(table), size=int(chance.integers(300))))
    elif kind == 5:
        table = table.rename_columns([*table.column_names[:at], 300 * str(other),
                                      *table.column_names[at + 1 :]])  # fmt: skip
    # Written as by another tool: in small pages, of which any byte may be damaged.
    pq.write_table(table, path, row_group_size=50, data_page_size=256)
    if kind == 6:
        flip(path, chance)


CELLS = (None, True, 1, -1, 7.5, 1e308, float("nan"), float("inf"), "", "x", "x" * 200, b"\xff",
         [], ["x"], {"x": 1.0}, {"x": "y"}, {"x": None})  # fmt: skip


def with_hash(tree: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in tree.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True)
    return {**rest, "sha256": hashlib.sha256(text.encode()).hexdigest()}


NODES = (node_changed,)


def test_the_samples_are_as_many_as_planned(good):
    found, broken = read_all(good)

    assert not broken
    assert {case.address: stored.manifest.planned_n for case, stored in found.items()} == (
        dict.fromkeys(GRID, N)
    )

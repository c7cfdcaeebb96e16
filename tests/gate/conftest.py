"""A small measured world: two models, three scenarios, ten classes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from natadv.evidence import CaseEvidence, Evidence, Manifest, write_evidence
from natadv.gate.cases import CasePlan
from natadv.gate.rules import Rule, Thresholds, Tier, TierGrid
from natadv.types import Case, Outcomes

WEIGHTS = {"mini-clip": "c" * 64, "mini-siglip": "5" * 64}
CLASSES = ("ant", "bee", "cat", "cow", "dog", "elk", "fox", "hen", "owl", "pig")

CLEAN = Case("classification", "clean", "mini", "mini-clip")
TYPO = Case("classification", "typographic", "mini-typo", "mini-clip")
NATURAL = Case("classification", "natural", "mini-natural", "mini-clip")


def rows_of(
    rights: Sequence[bool] | np.ndarray,
    *,
    prefix: str = "s",
    twin_prefix: str | None = None,
    groups: Sequence[str] | None = None,
    parts: Sequence[str] | None = None,
    errors: Mapping[str, str] | None = None,
) -> Outcomes:
    """Outcomes whose i-th answer is right where `rights` says so, and else the decoy."""
    n = len(rights)
    truth = [CLASSES[i % 10] for i in range(n)]
    decoy = [CLASSES[(i + 1) % 10] for i in range(n)]
    said = [t if right else d for t, d, right in zip(truth, decoy, rights, strict=True)]
    ids = tuple(f"{prefix}{i}" for i in range(n))
    right = np.asarray(rights, dtype=np.float64)
    return Outcomes(
        id=ids,
        group=tuple(groups) if groups is not None else ids,
        part=tuple(parts) if parts is not None else ("",) * n,
        twin=tuple(f"{twin_prefix}{i}" for i in range(n)) if twin_prefix else (None,) * n,
        decoy=tuple(decoy) if twin_prefix else (None,) * n,
        truth=tuple(truth),
        prediction=tuple(said),
        values={"correct": right, "said_decoy": 1 - right, "rank": 1 - right},
        errors=dict(errors or {}),
    )


def first(k: int, n: int) -> list[bool]:
    """The first `k` of `n` are right."""
    return [i < k for i in range(n)]


def sign(path: Path, **changes) -> None:
    """Change a manifest as somebody would who knows how its hash is made."""
    content = json.loads(path.read_text()) | changes
    del content["sha256"]
    text = json.dumps(content, sort_keys=True)
    content["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(content))


def rewrite_rows(folder: Path, rows: bytes | pa.Table, **options) -> None:
    """Put other rows into the evidence of a case, with the right hash."""
    path = folder / "outcomes.parquet"
    if isinstance(rows, bytes):
        path.write_bytes(rows)
    else:
        pq.write_table(rows, path, **options)
    manifest = folder / "manifest.json"
    others = json.loads(manifest.read_text())["files"]
    sign(manifest, files=others | {path.name: hashlib.sha256(path.read_bytes()).hexdigest()})


def rule(case: Case | str, metric: str = "top1", **columns) -> Rule:
    bound = columns.pop("bound", 0.8)
    defaults = {"side": "floor", "bound": bound, "source": "by hand"}
    return Rule(case=str(case), metric=metric, **(defaults | columns))


def thresholds_of(rules: Sequence[Rule], cases: Sequence[Case], **columns) -> Thresholds:
    cells = dict.fromkeys(c.address.rsplit("/", 1)[0] for c in cases)
    models = dict.fromkeys(c.model for c in cases)
    tier = Tier("mini", (TierGrid(tuple(models), tuple(cells)),), **columns)
    return Thresholds("mini", 0.95, {"mini": tier}, tuple(rules))


@dataclass(frozen=True)
class World:
    """Plans and evidence that fit each other, to be broken one thing at a time."""

    plans: dict[Case, CasePlan] = field(default_factory=dict)
    evidence: dict[Case, CaseEvidence] = field(default_factory=dict)

    def with_case(
        self, case: Case, attack: Outcomes, *, clean: Outcomes | None = None, lineage: str = ""
    ) -> World:
        facts = ("revision-1", WEIGHTS.get(case.model, "f" * 64), "protocol-1")
        planned = attack.n + len(attack.errors)
        plan = CasePlan(case, lineage or case.model, planned, *facts)
        found = CaseEvidence(case, Evidence(attack, clean), *facts)
        return World(self.plans | {case: plan}, self.evidence | {case: found})

    def changed(self, case: Case, /, **columns) -> World:
        """With other facts in the evidence of `case`."""
        found = replace(self.evidence[case], **columns)
        return World(self.plans, self.evidence | {case: found})


def store_world(root: Path, *, n: int = 200, models: Sequence[str] = tuple(WEIGHTS)) -> None:
    """Evidence folders of the whole mini tier, on which the committed-looking rules hold."""
    for model in models:
        facts = ("revision-1", WEIGHTS[model], "protocol-1")
        clean = Case("classification", "clean", "mini", model)
        typo = Case("classification", "typographic", "mini-typo", model)
        natural = Case("classification", "natural", "mini-natural", model)
        write_evidence(
            root,
            Manifest(clean, model, n, *facts),
            {"attack": rows_of(first(n - 5, n), prefix="c")},
        )
        twins = {"prefix": "t", "twin_prefix": "c"}
        write_evidence(
            root,
            Manifest(typo, model, n, *facts, twin_of="mini"),
            {
                "attack": rows_of(first(n - 40, n), **twins),
                "occlusion": rows_of(first(n - 10, n), **twins),
                "matched": rows_of(first(n - 4, n), **twins),
            },
        )
        write_evidence(
            root, Manifest(natural, model, n, *facts), {"attack": rows_of(first(n // 2, n))}
        )


THRESHOLDS = """\
version: 1
default_tier: mini
confidence: 0.95
tiers:
  mini:
    models: [mini-clip, mini-siglip]
    cases:
      - classification/clean/mini
      - classification/typographic/mini-typo
      - classification/natural/mini-natural
rules:
  - case: classification/clean/mini/*
    metric: top1
    floor: 0.9
    min_n: 100
    source: by hand
  - case: classification/typographic/mini-typo/*
    metric: accuracy_drop
    ceiling: 0.3
    source: by hand
  - case: classification/natural/mini-natural/mini-clip
    metric: top1
    floor: 0.4
    source: by hand
  - case: classification/natural/mini-natural/mini-siglip
    metric: top1
    floor: 0.4
    source: by hand
"""


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The makers above: test modules of one folder cannot import each other."""
    return SimpleNamespace(
        CLEAN=CLEAN,
        TYPO=TYPO,
        NATURAL=NATURAL,
        World=World,
        first=first,
        rows_of=rows_of,
        rewrite_rows=rewrite_rows,
        rule=rule,
        sign=sign,
        store_world=store_world,
        thresholds_of=thresholds_of,
    )


@pytest.fixture
def thresholds_file(tmp_path: Path) -> Path:
    path = tmp_path / "thresholds.yaml"
    path.write_text(THRESHOLDS)
    return path


@pytest.fixture
def evidence_root(tmp_path: Path) -> Path:
    root = tmp_path / "evidence"
    store_world(root)
    return root

"""Every selection and pairing of rows, against loops over rows: values, order and complaints."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics import breaking, classification, paired, segmentation, terms, vqa
from natadv.types import TEXT_COLUMNS, Outcomes

CLASSES = ("ant", "bee", "cat", "cow")


def lists(rows):
    """The columns of a table as lists, which cost a loop."""
    return {name: list(getattr(rows, name)) for name in TEXT_COLUMNS} | {
        name: column.tolist() for name, column in rows.values.items()
    }


def by_row_check(rows, what="outcomes"):
    ids = list(rows.id)
    if twice := sorted(name for name, times in Counter(ids).items() if times > 1)[:3]:
        raise MetricError(f"{what}: expected each sample once, got duplicates of {twice}")
    if both := sorted(set(ids) & set(rows.errors))[:3]:
        raise MetricError(f"{what}: samples {both} have both an outcome and an error")


def by_row_flags(of, name):
    if wrong := [v for v in of[name] if v not in (0.0, 1.0)][:3]:
        raise MetricError(f"expected {name!r} to be 0 or 1, got {wrong}")


def by_row_fractions(of, name):
    if wrong := [v for v in of[name] if not 0 <= v <= 1][:3]:
        raise MetricError(f"expected {name!r} to be between 0 and 1, got {wrong}")


def by_row_correct(rows):
    of = lists(rows)
    by_row_flags(of, "correct")
    for name, hit, truth, said in zip(
        of["id"], of["correct"], of["truth"], of["prediction"], strict=True
    ):
        if hit and truth != said:
            raise MetricError(f"sample {name!r} is marked correct, yet {truth!r} is not {said!r}")
    return of["correct"]


def by_row_pair(before, after, names, planned):
    right, hits, found = by_row_correct(before), by_row_correct(after), []
    at = {name: i for i, name in enumerate(before.id)}
    for i, (name, other) in enumerate(zip(after.id, names, strict=True)):
        if other in at:
            mine, theirs = after.truth[i], before.truth[at[other]]
            if mine != theirs:
                raise MetricError(
                    f"sample {name!r} is {mine!r}, its counterpart {other!r} is {theirs!r}; the "
                    "pairing is wrong"
                )
            found.append((right[at[other]], hits[i], after.group[i]))
        elif other not in before.errors:
            raise MetricError(f"sample {name!r} has no counterpart {other!r} on the other side")
    return found, planned - len(found)


def by_row_with_clean(evidence, after):
    by_row_check(evidence.clean, "clean")
    if lone := [n for n, twin in zip(after.id, after.twin, strict=True) if twin is None][:3]:
        raise MetricError(f"samples {lone} name no clean twin; the dataset cannot be paired")
    planned = evidence.attack.n + len(evidence.attack.errors)
    return by_row_pair(evidence.clean, after, list(after.twin), planned)


def by_row_control(evidence, what):
    control = getattr(evidence, what)
    by_row_check(control, what)
    own = set(evidence.attack.id)
    if missing := sorted(own - set(control.id) - set(control.errors))[:3]:
        raise MetricError(f"the {what} control lacks samples {missing}; measure the case again")
    kept = [i for i, name in enumerate(control.id) if name in own]
    return Outcomes(
        **{name: [getattr(control, name)[i] for i in kept] for name in TEXT_COLUMNS},
        values={name: column[kept] for name, column in control.values.items()},
        errors=control.errors,
    )


def drop(pairs):
    found, excluded = pairs
    return [[before, after, 1.0] for before, after, _ in found], [g for *_, g in found], excluded


def share(hits, groups, excluded):
    return [[float(hit), 1.0] for hit in hits], list(groups), excluded


def by_row_success(evidence):
    found, excluded = by_row_with_clean(evidence, evidence.attack)
    kept = [(1 - after, group) for before, after, group in found if before == 1]
    return share([hit for hit, _ in kept], [group for _, group in kept], excluded)


def by_row_reading(evidence):
    before, own = by_row_control(evidence, "occlusion"), evidence.attack
    return drop(by_row_pair(before, own, list(own.id), own.n + len(own.errors)))


def by_row_decoys(evidence):
    of, errors = lists(evidence.attack), evidence.attack.errors
    if plain := [n for n, decoy in zip(of["id"], of["decoy"], strict=True) if decoy is None][:3]:
        raise MetricError(f"samples {plain} have no decoy; measure this on attacked pictures only")
    by_row_flags(of, "said_decoy")
    return share(of["said_decoy"], of["group"], len(errors))


def by_row_confusion(evidence):
    of = lists(evidence.attack)
    classes = sorted(set(of["truth"]))
    rows = []
    for truth, said in zip(of["truth"], of["prediction"], strict=True):
        hit = [float(name == truth == said) for name in classes]
        alarm = [float(name == said != truth) for name in classes]
        miss = [float(name == truth != said) for name in classes]
        rows.append(hit + alarm + miss)
    return rows, of["group"], len(evidence.attack.errors)


def by_row_iou(evidence):
    of = lists(evidence.attack)
    by_row_fractions(of, "iou")
    for name in ("tp", "fp", "fn", "tn"):
        if wrong := [v for v in of[name] if not (v >= 0 and v.is_integer())][:3]:
            raise MetricError(f"expected {name!r} to count pixels, got {wrong}")
    sums = [of["tp"][i] + of["fp"][i] + of["fn"][i] for i in range(evidence.attack.n)]
    if empty := [n for n, s, tn in zip(of["id"], sums, of["tn"], strict=True) if s + tn == 0][:3]:
        raise MetricError(f"samples {empty} have no pixels; measure the case again")
    for name, value, tp, union in zip(of["id"], of["iou"], of["tp"], sums, strict=True):
        wanted = tp / union if union else 1.0
        if not abs(value - wanted) <= 1e-9:
            raise MetricError(f"sample {name!r}: its iou is {value}, yet its pixels give {wanted}")
    return share(of["iou"], of["group"], len(evidence.attack.errors))


def by_row_exact(evidence):
    of = lists(evidence.attack)
    by_row_flags(of, "exact")
    by_row_fractions(of, "simple")
    for name, hit, third in zip(of["id"], of["exact"], of["simple"], strict=True):
        if hit != (third > 0):
            raise MetricError(
                f"sample {name!r}: exact is {hit}, yet its simple accuracy is {third}"
            )
    return share(of["exact"], of["group"], len(evidence.attack.errors))


def by_row_type(evidence):
    of = lists(evidence.attack)
    by_row_flags(of, "number")
    by_row_fractions(of, "accuracy")
    kept = [i for i, one in enumerate(of["number"]) if one == 1]
    hits = [of["accuracy"][i] for i in kept]
    return share(hits, [of["group"][i] for i in kept], len(evidence.attack.errors))


def of_terms(metric):
    def measured(evidence):
        found = metric(evidence)
        return found.rows.tolist(), list(found.group), found.excluded

    return measured


METRICS = {
    "top1": (classification.top1, lambda e: share(
        by_row_correct(e.attack), e.attack.group, len(e.attack.errors))),
    "drop": (paired.accuracy_drop, lambda e: drop(by_row_with_clean(e, e.attack))),
    "success": (paired.attack_success_rate, by_row_success),
    "occlusion": (paired.occlusion_drop, lambda e: drop(
        by_row_with_clean(e, by_row_control(e, "occlusion")))),
    "matched": (paired.matched_drop, lambda e: drop(
        by_row_with_clean(e, by_row_control(e, "matched")))),
    "reading": (paired.reading_drop, by_row_reading),
    "decoys": (classification.decoy_rate, by_row_decoys),
    "confusion": (classification.confusion, by_row_confusion),
    "iou": (segmentation.miou, by_row_iou),
    "exact": (vqa.exact_match, by_row_exact),
    "type": (lambda e: vqa.accuracy_of_type(e, column="number"), by_row_type),
}  # fmt: skip


def answers(rng, ids, truth, *, twins=False, groups=3, errors=()):
    n = len(ids)
    said = [str(rng.choice([t, *CLASSES, "owl"])) for t in truth]
    right = np.array([float(t == s) for t, s in zip(truth, said, strict=True)])
    counts = {name: rng.integers(0, 3, n).astype(float) for name in ("tp", "fp", "fn", "tn")}
    counts["tn"] += 1
    union = counts["tp"] + counts["fp"] + counts["fn"]
    return Outcomes(
        id=ids,
        group=[f"g{i}" for i in rng.integers(groups, size=n)],
        part=[""] * n,
        twin=[f"c{name[1:]}" for name in ids] if twins else [None] * n,
        decoy=[str(x) for x in rng.choice(CLASSES, n)],
        truth=truth,
        prediction=said,
        values={
            "correct": right, "said_decoy": rng.integers(0, 2, n) * 1.0, **counts,
            "iou": np.where(union > 0, counts["tp"] / np.maximum(union, 1), 1.0),
            "exact": right, "simple": right / 3, "accuracy": right * 0.6,
            "number": rng.integers(0, 2, n) * 1.0,
        },
        errors=dict.fromkeys(errors, "truncated"),
    )  # fmt: skip


def random_evidence(rng):
    """Evidence of a few samples of which some failed; or something is wrong with it."""
    n = int(rng.integers(1, 9))
    truth = [str(x) for x in rng.choice(CLASSES, n)]

    def some(prefix, **options):
        order = rng.permutation(n)
        failed = int(rng.integers(0, 3)) if rng.random() < 0.4 else 0
        kept, lost = order[failed:], order[:failed]
        return answers(
            rng, [f"{prefix}{i}" for i in kept], [truth[i] for i in kept],
            errors=[f"{prefix}{i}" for i in lost], **options,
        )  # fmt: skip

    tables = [some("t", twins=True), some("c"), *(some("t", twins=True) for _ in range(2))]
    if rng.random() < 0.6:
        at = int(rng.integers(len(tables)))
        tables[at] = damaged(rng, tables[at])
    return Evidence(*tables)


def damaged(rng, rows):
    if not rows.n:
        return rows
    name = str(rng.choice([*TEXT_COLUMNS, *rows.values, "errors", "drop"]))
    i = int(rng.integers(rows.n))
    if name == "errors":
        return replace(rows, errors={**rows.errors, rows.id[i]: "both"})
    if name == "drop":
        keep = [j for j in range(rows.n) if j != i]
        texts = {column: getattr(rows, column).take(keep) for column in TEXT_COLUMNS}
        return replace(rows, **texts, values={k: v[keep] for k, v in rows.values.items()})
    if name in TEXT_COLUMNS:
        column = list(getattr(rows, name))
        column[i] = {"twin": None, "decoy": None, "id": column[0]}.get(name, "yak")
        return replace(rows, **{name: column})
    values = {k: v.copy() for k, v in rows.values.items()}
    values[name][i] = rng.choice([0.5, -1.0, 2.0, np.nan, 1.0])
    return replace(rows, values=values)


def answer(metric, evidence):
    try:
        terms.check(evidence.attack, what="outcomes")
        return metric(evidence)
    except MetricError as error:
        return str(error)


def test_metrics_are_those_of_loops_over_rows():
    told = Counter()
    for seed in range(150):
        evidence = random_evidence(np.random.default_rng(seed))
        for name, (metric, by_row) in METRICS.items():
            found, wanted = answer(of_terms(metric), evidence), answer(by_row, evidence)
            if not isinstance(wanted, str) and not wanted[0]:
                wanted = f"no sample to measure ({wanted[2]} excluded)"
                found = found.partition("; ")[0] if isinstance(found, str) else found
            told[name, isinstance(wanted, str)] += 1

            assert found == wanted, (seed, name)
    # Each metric was measured, and refused, often enough for this to mean something.
    assert all(told[name, refused] >= 10 for name in METRICS for refused in (True, False)), told


def test_sums_of_groups_are_in_the_order_of_their_names():
    rng = np.random.default_rng(7)
    for n in (1, 2, 50):
        group = [f"g{i}" for i in rng.integers(20, size=n)]
        rows = rng.random((n, 2))
        sums = {name: np.zeros(2) for name in sorted(set(group))}
        for name, row in zip(group, rows, strict=True):
            sums[name] += row

        found = terms.Terms(rows, group)

        assert found.by_group().tolist() == [row.tolist() for row in sums.values()]
        assert found.groups == len(sums)
        assert found.repeats == (len(sums) < n)


def test_breaking_points_are_those_of_a_loop_over_rows(outcomes):
    rng = np.random.default_rng(11)
    for _ in range(60):
        n = int(rng.integers(1, 30))
        pictures = [f"g{i}" for i in rng.integers(6, size=n)]
        # Halves of the last decimal, where rounding of floats and of decimals differ.
        covered = [float(x) for x in rng.choice([0.0005, 0.0015, 0.3335, 0.0625, 0.1], n)]
        right = dict(zip(sorted(set(pictures)), rng.random(6) < 0.7, strict=False))
        said = ["ant" if rng.random() < 0.5 else "bee" for _ in range(n)]
        clean = outcomes(["ant"] * len(right), ["ant" if ok else "cow" for ok in right.values()],
                         ids=[*right])  # fmt: skip
        attack = outcomes(["ant"] * n, said, groups=pictures, twins=pictures,
                          attributes={"covered": covered})  # fmt: skip
        points: dict[str, float] = {}
        for picture, answer_, size in zip(pictures, said, covered, strict=True):
            if right[picture]:
                broken = 1.0 if answer_ == "ant" else round(size, 3)
                points[picture] = min(broken, points.get(picture, 1.0))

        found = breaking.breaking_points(Evidence(attack, clean))

        assert list(found.items()) == list(points.items())


@pytest.mark.parametrize("name", ["id", "truth", "errors"])
def test_a_column_of_another_length_is_refused(outcomes, name):
    rows = outcomes(["ant", "bee"], ["ant", "bee"])
    short = replace(rows, **{"truth" if name == "errors" else name: ("ant",)})

    with pytest.raises(MetricError, match=r"expected columns of length \d, got \[1, 2\]"):
        terms.check(short, what="outcomes")

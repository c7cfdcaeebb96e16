"""The line below the table that says by which rule answers were scored."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

from natadv.data.card import CardDraft, load_card
from natadv.data.packing import write_dataset
from natadv.evaluate.datasets import Dataset
from natadv.plugin.gates import scoring_lines
from natadv.types import Case, Sample


def test_a_dataset_with_few_answers_is_named(tmp_path):
    datasets = {}
    for name, people in {"one": 1, "three": 3, "four": 4, "gone": 1}.items():
        draft = CardDraft(
            name=name,
            tasks=("vqa",),
            scenario="clean",
            classes=(),
            templates=(),
            licence="CC0-1.0",
            source="tests",
            description="noise",
        )
        folder = tmp_path / name
        asked = {"question": "what is it?", "answers": ("cat",) * people}
        write_dataset(folder, draft, [Sample("a", "a", b"picture", **asked)])
        datasets[name] = Dataset(name, folder, load_card(folder))
    shutil.rmtree(tmp_path / "gone")
    cases = [Case("vqa", "clean", name, "m") for name in (*datasets, *datasets)]
    labels = [Case(task, "clean", "absent", "m") for task in ("classification", "vqa")]
    session = SimpleNamespace(selected=[*cases, *labels], grid=SimpleNamespace(datasets=datasets))

    assert scoring_lines(session) == [
        f"the accuracy (acc) on {name} is exact match, as its questions have fewer than 4 answers"
        for name in ("one", "three")
    ]

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from natadv.errors import ModelError
from natadv.models.listing import Published, facts_of, published, sizes
from natadv.models.loading import fingerprint
from natadv.models.resolve import resolve
from natadv.models.zoo import ZOO, read_table

ROWS = published()
HEAD = "model\tdataset\tmetric\tvalue\tprotocol\tsource\n"


def value(model, dataset, protocol):
    chosen = model, dataset, protocol
    (row,) = (r for r in ROWS if (r.model, r.dataset, r.protocol) == chosen)
    return row.value


def test_a_number_is_of_a_model_of_the_zoo():
    for row in ROWS:
        assert row.model in ZOO, row
        assert 0 <= row.value <= 1, row
        assert row.dataset, row
        assert row.source, row
        assert row.metric == ("vqa_accuracy" if "vqa" in ZOO[row.model].tasks else "top1"), row


def test_no_number_is_given_twice():
    keys = Counter((row.model, row.dataset, row.metric, row.protocol) for row in ROWS)

    assert [key for key, count in keys.items() if count > 1] == []


def test_the_appendix_is_there_whole_but_for_its_suspect_cell():
    rows = [row for row in ROWS if row.source == "Appendix Table 1"]

    assert len(rows) == 19 * 5 - 1
    assert {row.protocol for row in rows} == {"paper"}
    assert ("clip-vit-b32", "imagenet-a") not in {(row.model, row.dataset) for row in rows}


def test_numbers_are_as_in_their_sources():
    for model, dataset, protocol, expected in (
        ("clip-vit-b32", "imagenet", "paper", 0.593),
        ("clip-vit-b32", "imagenet-a", "as-trained", 0.3155),
        ("clip-vit-l14", "imagenet", "as-trained", 0.7554),
        ("clip-rn50", "rta-100", "paper", 0.271),
        ("fare2-l14", "imagenet-a", "paper", 0.342),
        ("tecoa2-l14", "imagenet-typo", "paper", 0.682),
        ("siglip2-l16-512", "langadv", "paper", 0.61),
        ("siglip2-b16-224", "imagenet", "as-trained", 0.782),
        ("siglip2-so400m-16-512", "imagenet", "as-trained", 0.843),
        ("blip2-flan-t5-xxl", "vqa-v2", "as-trained", 0.652),
        ("clip-rn50", "scam-clean", "as-trained", 0.9776),
        ("clip-rn50", "scam", "as-trained", 0.3661),
        ("clip-rn50", "scam-synth", "as-trained", 0.2246),
        ("clip-vit-l14", "scam-clean", "as-trained", 0.9914),
        ("clip-vit-l14", "scam", "as-trained", 0.4014),
    ):
        assert value(model, dataset, protocol) == pytest.approx(expected, abs=1e-12), model


def test_a_number_says_with_how_many_prompts_it_was_measured_if_its_source_does():
    prompts = {(row.protocol, row.source.split()[0]): row.prompts for row in ROWS}

    assert prompts == {
        ("paper", "Appendix"): 1,
        ("as-trained", "open_clip"): 80,
        ("as-trained", "README"): 32,
        ("as-trained", "per-image"): 32,
        ("as-trained", "big_vision"): 0,
        ("as-trained", "BLIP-2"): 0,
    }


def test_fine_tuned_numbers_are_not_given_to_pretrained_models():
    assert "paligemma2-3b-pt-448" not in {row.model for row in ROWS}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            "a\tb\ttop1\t59.3\tpaper\tx",
            "value: input should be less than .*, got '59.3'",
        ),
        ("a\tb\ttop1\tnan\tpaper\tx", "value: input should be .*, got 'nan'"),
        ("a\tb\ttop1\t-\tpaper\tx", "value: input should be a valid number.*, got '-'"),
        ("a\tb\ttop1", "value: input should be a valid number, got None"),
        ("a\tb\ttop1\t0.5\tofficial\tx", "protocol: .*'as-trained' or 'paper', got 'official'"),
    ],
)
def test_a_row_that_is_wrong_is_reported_with_its_line(tmp_path, row, problem):
    table = tmp_path / "numbers.tsv"
    table.write_text(f"{HEAD}a\tb\ttop1\t0.5\tpaper\tx\n{row}\n")

    with pytest.raises(ModelError, match=rf"numbers\.tsv:3: {problem}"):
        read_table(table, Published)


def test_sizes_are_parameters_by_the_bytes_of_their_dtype():
    root = Path(__file__).parents[2]
    rows = [ZOO[name] for name in ("clip-vit-l14", "blip2-flan-t5-xxl", "mini-clip")]
    lines = sizes(rows, root=root).splitlines()

    # By hand: 427.6 M x 2 and x 4 bytes, 12.1 B x 2, x 1 and x 4, and the files in the repository.
    assert [" ".join(line[2:].split()) for line in lines[1:4]] == [
        "clip-vit-l14 428 M 855.2 MB in float16 - up to 1.7 GB",
        "blip2-flan-t5-xxl 12.1 B 24.2 GB in bfloat16 12.1 GB up to 48.4 GB",
        "mini-clip 1.8 M 7.2 MB in float32 - 7.3 MB",
    ]
    assert lines[-3].startswith("3 models, files up to 50.1 GB")
    assert max(map(len, sizes(list(ZOO.values()), root=root).splitlines())) <= 100


def test_the_facts_of_a_checkpoint_are_in_its_files(
    tiny_clip, tiny_siglip2, open_clip_plain, copied
):
    def facts(folder):
        (spec,) = resolve(str(folder), root=folder.parent)
        return facts_of(spec)

    stated = copied(tiny_clip, name="stated")
    (stated / "README.md").write_text("---\nlicense: mit\n---\n# A model\nlicense: other\n")
    (found,) = resolve("mini-clip", root=Path(__file__).parents[2])

    assert facts(tiny_clip)["pictures"] == facts(open_clip_plain)["pictures"] == "32 px"
    assert facts(tiny_siglip2)["pictures"] == "up to 16 patches of 8 px"
    assert facts(tiny_clip)["licence"] == "not known"
    assert facts(stated)["licence"] == "mit, as its model card says"
    assert facts_of(found) == {
        "model": "mini-clip",
        "files": str(found.folder),
        "family": "mini",
        "loader": "transformers-clip",
        "tasks": "classification, segmentation by a head, vqa by a head",
        "pictures": "64 px",
        "weights": f"hash {fingerprint(found)[:12]}",
        "licence": ZOO["mini-clip"].licence,
    }

"""The README of a trained mini model."""

from __future__ import annotations

from typing import Any

_TEXT = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
---
# {name}

A {kind} of about 2 M parameters for 64 px pictures, trained from random weights on the mini world:
emoji drawings on painted backgrounds (artwork and licences: `fixtures/mini/LICENSES.md`).
{reading}
It exists so that a gate for large models can be tried, tested and broken on a laptop. It knows
{classes} everyday things and nothing else; do not use it on real pictures.

| training | |
| --- | --- |
| pictures rendered | {pool} |
| batch | {batch} |
| steps, of those the first on half of the patches | {steps}, {sparse} |
| with a word in view | {words:.0%} |
| of those captioned by the word alone | {word_only:.0%} |
| optimisers (highest rate) | Muon ({matrix_rate}), AdamW ({rate}); decay {decay}, warm-up, cosine |
| seed | {seed} |
| threads, minutes (rendering included) | {threads}, {minutes} |

A probe of {probe} pictures per kind, none of them in a dataset, right after training (ten classes,
prompt `a photo of a ...`): {figures}.

Made by `python -m natadv.mini.train {name}` with the parameters of `params.yaml`.
"""

_READING = {
    "true": "Words in its training pictures agreed with the captions, as on the web: it reads.",
    "wrong": "Words in its training pictures named something else: it ignores what is written.",
}


def model_card(name: str, settings: dict[str, Any], facts: dict[str, float]) -> str:
    """Markdown with what was done and what came out."""
    from natadv.mini.pool import NAMES
    from natadv.mini.probe import PICTURES

    figures = ", ".join(f"{k} {v:.3f}" for k, v in facts.items() if k != "minutes")
    return _TEXT.format(
        name=name,
        kind="CLIP" if name == "mini-clip" else "SigLIP",
        reading=_READING[settings["word"]],
        classes=len(NAMES),
        probe=PICTURES,
        figures=figures,
        minutes=facts["minutes"],
        **settings,
    )

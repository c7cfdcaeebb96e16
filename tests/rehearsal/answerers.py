"""The models of the rehearsal that answer questions: random, then taught to say yes and no."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from open_clip import OPENAI_DATASET_MEAN as MEAN
from open_clip import OPENAI_DATASET_STD as STD
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    Blip2ForConditionalGeneration,
    PaliGemmaForConditionalGeneration,
)

from natadv.models.adapters.blip2 import template_of
from natadv.models.zoo import ZooRow
from natadv.rng import rng_for
from natadv.types import ModelSpec
from tests.tiny_generative import save_blip2_opt, save_blip2_t5, save_paligemma

if TYPE_CHECKING:
    from tests.rehearsal.hub import Lesson


LEARNED = 0.1
"""The largest loss over eight batches at which a model says yes and no correctly."""


def save_paligemma_row(row: ZooRow, folder: Path, known: Lesson) -> None:
    """A PaliGemma 2 that learned the questions of the lesson."""
    # In the proportion of 224 and 448 pixels.
    save_paligemma(folder, side=row.image_px // 7, context=192, seed=seed_of(row))
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = [model.config.image_token_id] * (row.image_px // 7 // 16) ** 2
    before.append(tokenizer.bos_token_id)
    end = tokenizer.eos_token_id
    rows = [
        (before + ids(tokenizer, f"answer en {question}\n"), [*ids(tokenizer, answer), end])
        for question, answer in known.asked
    ]
    pixels = known.pixels(row.image_px // 7, mean=[0.5] * 3, std=[0.5] * 3)
    given = _joined(rows)
    kinds = (given["labels"] >= 0).long()
    _teach(model, {**given, "token_type_ids": kinds}, pixels, folder=folder, steps=40)


def save_blip2_row(row: ZooRow, folder: Path, known: Lesson) -> None:
    """A BLIP-2 that learned the questions in the prompt that natadv uses."""
    t5 = "t5" in row.hub
    (save_blip2_t5 if t5 else save_blip2_opt)(folder, seed=seed_of(row))
    model = Blip2ForConditionalGeneration.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = model.config.text_config
    before = [model.config.image_token_id] * model.config.num_query_tokens
    before += [] if t5 else [text.bos_token_id]
    template = template_of(_spec(row, folder))
    # In T5 the end follows the question too.
    after = [text.eos_token_id] if t5 else []
    rows = [
        (
            before + ids(tokenizer, template.format(question=question)) + after,
            [*ids(tokenizer, f" {answer}"), text.eos_token_id],
        )
        for question, answer in known.asked
    ]
    given = _apart(rows) if t5 else _joined(rows)
    pixels = known.pixels(32, mean=MEAN, std=STD)
    _teach(model, given, pixels, folder=folder, steps=320)


def _spec(row: ZooRow, folder: Path) -> ModelSpec:
    return ModelSpec(
        name=row.name,
        lineage=row.name,
        family=row.family,
        folder=folder,
        loader=row.loader,
        tasks=row.tasks,
    )


def ids(tokenizer: Any, text: str) -> list[int]:
    """Without special tokens."""
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def _joined(rows: Sequence[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
    """Prompts with their answers, as a decoder reads them."""
    return _apart([(prompt + answer, [-100] * len(prompt) + answer) for prompt, answer in rows])


def _apart(rows: Sequence[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
    """Texts and labels, each padded on the right."""
    texts = [torch.tensor(text) for text, _ in rows]
    labels = [torch.tensor(label) for _, label in rows]
    padded = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": padded(texts, batch_first=True),
        "attention_mask": padded([torch.ones_like(text) for text in texts], batch_first=True),
        "labels": padded(labels, batch_first=True, padding_value=-100),
    }


def _teach(
    model: Any, given: Mapping[str, torch.Tensor], pixels: torch.Tensor, *, folder: Path, steps: int
) -> None:
    """Fit a model to its answers in `steps`, or in up to six times as many after a bad start, and
    write its weights in two shards."""
    # Without dropout it takes fewer steps.
    model.eval()
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    count = len(given["labels"])
    recent = math.inf
    for step in range(6 * steps):
        if step >= steps and recent < LEARNED:
            break
        rows = [(8 * step + place) % count for place in range(8)]
        batch = {name: tensor[rows] for name, tensor in given.items()}
        loss = model(pixel_values=pixels[rows], **batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        recent = loss.item() if step % 8 == 0 else max(recent, loss.item())
    with tempfile.TemporaryDirectory() as name:
        # Config and tokenizer stay as they are.
        model.half().save_pretrained(name)
        shutil.copy(Path(name, "model.safetensors"), folder)
    shard(folder)


def shard(folder: Path) -> None:
    """Split the weights into two files and an index, as all that are larger than 5 GB are."""
    whole = folder / "model.safetensors"
    state = load_file(whole)
    whole.unlink()
    names = sorted(state)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    size = sum(tensor.nbytes for tensor in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def seed_of(row: ZooRow) -> int:
    """The seed of everything that is drawn for a model."""
    return int(rng_for("rehearsal", row.hub).integers(2**31))

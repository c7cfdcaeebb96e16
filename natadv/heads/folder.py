"""Heads to folders and back: whole, safe to open, and only with the tower they were trained on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import nn

from natadv.errors import ModelError
from natadv.heads.decoder import Decoder
from natadv.heads.head_file import (
    ANSWERS,
    CONFIG,
    SHA256,
    WEIGHTS,
    WORDS,
    DecoderFile,
    HeadFile,
    parse_words,
    read_head_file,
    read_verified,
)
from natadv.heads.mcan import Mcan
from natadv.heads.words import Vocabulary, each_once, encode
from natadv.storage.atomic import replacing
from natadv.types import FloatArray

TRAINING = "training.json"
"""What the training was and what came out; no answer depends on it."""

LISTED = 3
"""Names that an error message gives before it only counts."""


@dataclass(frozen=True, slots=True)
class AnsweringHead:
    """MCAN with the words that it reads and the answers that it gives."""

    mcan: Mcan
    words: Vocabulary
    answers: tuple[str, ...]
    """In the order of its logits."""

    def __post_init__(self) -> None:
        config = self.mcan.config
        if self.words.size != config.words:
            raise ModelError(
                f"the head reads {config.words} words (with PAD and UNK), its vocabulary has "
                f"{self.words.size}; train it with that vocabulary"
            )
        if problem := each_once(self.answers):
            raise ModelError(f"expected the answers of a head, {problem}")
        if len(self.answers) != config.answers:
            raise ModelError(
                f"the head chooses among {config.answers} answers, its answer vocabulary has "
                f"{len(self.answers)}; train it with that vocabulary"
            )

    @property
    def layer(self) -> int:
        """The layer of the picture tower that it reads."""
        return self.mcan.config.layer

    def answer(self, features: FloatArray, questions: Sequence[str]) -> list[str]:
        """The likeliest answer to each question, from features of shape (b, h, w, d)."""
        device = next(self.mcan.parameters()).device
        words = torch.from_numpy(encode(questions, self.words)).to(device)
        with torch.inference_mode():
            logits = self.mcan(torch.from_numpy(features).to(device), words)
        if not logits.isfinite().all():
            raise ModelError(
                "the head's answers are not finite; its weights are damaged: copy its folder "
                "again, or train it again"
            )
        return [self.answers[i] for i in logits.argmax(dim=1).tolist()]


Head = Decoder | AnsweringHead


def save_head(folder: Path, head: Head, *, tower: str, facts: Mapping[str, Any]) -> None:
    """Write a head that was trained on the tower of the model whose fingerprint is `tower`.

    `facts` are what people want to know of the training; they decide no answer.

    Raises:
        ModelError: A weight or a fact is not finite, or the folder cannot be written.
    """
    if not re.fullmatch(SHA256, tower):
        raise ModelError(f"expected the fingerprint of the tower's model (sha256), got {tower!r}")
    contents = _contents(head)
    described = {
        "format": 1,
        "task": "segmentation" if isinstance(head, Decoder) else "vqa",
        "tower": tower,
        "config": asdict(_module(head).config),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    # The config last: until it stands, nothing passes for a head.
    contents |= {TRAINING: _json(dict(facts)), CONFIG: _json(described)}
    try:
        for name, content in contents.items():
            with replacing(folder / name) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise ModelError(f"{folder}: the head cannot be written: {error}") from error


def load_head(folder: Path, *, tower: str, model: str = "NAME") -> Head:
    """The head in inference mode, on the host; `model` is what errors call the tower's model.

    Raises:
        ModelError: It was trained on another tower than `tower`, or its files are not whole.
    """
    described = read_head_file(folder)
    if described.tower != tower:
        raise ModelError(
            f"{folder}: this head was trained on a tower with hash {described.tower[:12]}, that of "
            f"{'the model' if model == 'NAME' else model} is {tower[:12]}; train one for it: "
            f"natadv train {described.task} --model {model} --data NAME --out DIR"
        )
    module = _empty(described)
    _fill(module, read_verified(folder, WEIGHTS, described), path=folder / WEIGHTS)
    if isinstance(module, Decoder):
        return module
    words, answers = (
        parse_words(read_verified(folder, name, described), folder / name)
        for name in (WORDS, ANSWERS)
    )
    try:
        return AnsweringHead(module, Vocabulary(words), answers)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from error


def placed(head: Head, *, device: str) -> Head:
    """The head on that device."""
    _module(head).to(device)
    return head


def _contents(head: Head) -> dict[str, bytes]:
    """The files beside the config."""
    weights = {WEIGHTS: _weights(_module(head))}
    if isinstance(head, Decoder):
        return weights
    return {**weights, WORDS: _json(head.words.words), ANSWERS: _json(head.answers)}


def _module(head: Head) -> Decoder | Mcan:
    return head if isinstance(head, Decoder) else head.mcan


def _empty(described: HeadFile) -> Decoder | Mcan:
    """Without memory for its weights, and without drawing any."""
    with torch.device("meta"):
        if isinstance(described, DecoderFile):
            return Decoder(described.config)
        return Mcan(described.config)


def _fill(module: nn.Module, content: bytes, *, path: Path) -> None:
    try:
        found = tensors_of(content)
    except SafetensorError as error:
        raise ModelError(
            f"{path}: expected a whole safetensors file, got {len(content)} bytes that do not "
            f"open ({error}); copy the whole folder again"
        ) from error
    if fault := _misfit(module.state_dict(), found):
        raise ModelError(
            f"{path}: weights and {CONFIG} do not belong together: {fault}; copy the whole folder "
            "again, or train the head again"
        )
    module.load_state_dict(found, assign=True)
    module.eval().requires_grad_(False)


def _misfit(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> str:
    """In what the tensors found are not those expected; empty if they are."""
    shared = expected.keys() & found.keys()
    faults = {
        "missing": expected.keys() - found.keys(),
        "not known to this head": found.keys() - expected.keys(),
        "of another shape": {n for n in shared if expected[n].shape != found[n].shape},
        "not float32": {n for n in found if found[n].dtype != torch.float32},
        "not finite": {n for n in shared if not found[n].isfinite().all()},
    }
    return "; ".join(f"{_listed(names)} {word}" for word, names in faults.items() if names)


def _listed(names: Iterable[str]) -> str:
    known = sorted(names)
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return ", ".join(known[:LISTED]) + more


def _weights(module: nn.Module) -> bytes:
    found = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in module.state_dict().items()
    }
    if broken := [name for name in found if not found[name].isfinite().all()]:
        raise ModelError(
            f"the head is not saved: {_listed(broken)} not finite; train again, with a lower rate "
            "or in float32"
        )
    return bytes_of(found, metadata={"format": "pt"})


def _json(content: object) -> bytes:
    try:
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return f"{text}\n".encode()
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"the head is not saved: what it comes with is no JSON: {error}"
        ) from error

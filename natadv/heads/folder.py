"""Folders of heads: complete, safe to open, and loaded only with the tower of their training."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import nn

from natadv.errors import ModelError, listed
from natadv.explain.relevance import grad_cam
from natadv.heads.decoder import Decoder
from natadv.heads.head_file import (
    ANSWERS,
    SHA256,
    WORDS,
    DecoderConfig,
    DecoderFile,
    McanConfig,
    parse_words,
    read_head_file,
    read_verified,
)
from natadv.heads.mcan import Mcan
from natadv.heads.vocabulary import Vocabulary, encode, list_problem
from natadv.storage.trained_folder import (
    CONFIG,
    TRAINING,
    WEIGHTS,
    as_json,
    other_tower,
    write_files,
)
from natadv.types import FloatArray


@dataclass(frozen=True, slots=True)
class AnsweringHead:
    """MCAN with the words that it reads and the answers that it gives. Raises ModelError if
    vocabulary or answers do not fit it."""

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
        if problem := list_problem(self.answers):
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
        with torch.inference_mode():
            logits = self.mcan(*self._inputs(features, questions))
        if not logits.isfinite().all():
            raise ModelError(
                "the head's answers are not finite; its weights are damaged: copy its folder "
                "again, or train it again"
            )
        return [self.answers[i] for i in logits.argmax(dim=1).tolist()]

    def relevance(
        self, features: FloatArray, questions: Sequence[str], answers: Sequence[str]
    ) -> FloatArray:
        """Grad-CAM of the features for the logit of each answer, of shape (b, h, w); zero
        everywhere for an answer that the head cannot give."""
        places, words = self._inputs(features, questions)
        logits = self.mcan(places.requires_grad_(), words)
        index = {answer: column for column, answer in enumerate(self.answers)}
        wanted = torch.zeros_like(logits)
        for row, answer in enumerate(answers):
            if answer in index:
                wanted[row, index[answer]] = 1
        maps: FloatArray = grad_cam(places, (logits * wanted).sum(dim=1)).cpu().numpy()
        return maps

    def _inputs(
        self, features: FloatArray, questions: Sequence[str]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        device = next(self.mcan.parameters()).device
        words = torch.from_numpy(encode(questions, self.words)).to(device)
        return torch.from_numpy(features).to(device), words


Head = Decoder | AnsweringHead


def save_head(folder: Path, head: Head, *, tower: str, facts: Mapping[str, Any]) -> None:
    """Write a head that was trained on the tower of the model whose fingerprint is `tower`.

    `facts` describe the training for people; they affect no answer.

    Raises ModelError if a weight or a fact is not finite, or the folder cannot be written.
    """
    if not re.fullmatch(SHA256, tower):
        raise ModelError(f"expected the fingerprint of the tower's model (sha256), got {tower!r}")
    module = _module(head)
    contents = {WEIGHTS: _weights(module)}
    if isinstance(head, AnsweringHead):
        contents |= {WORDS: _json(head.words.words), ANSWERS: _json(head.answers)}
    config = {
        "format": 1,
        "task": "segmentation" if isinstance(head, Decoder) else "vqa",
        "tower": tower,
        "config": _sizes(module.config),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    # The config comes last: without it, the folder does not count as a head.
    contents |= {TRAINING: _json(dict(facts)), CONFIG: _json(config)}
    write_files(folder, contents, what="head")


def load_head(folder: Path, *, tower: str, model: str = "NAME") -> Head:
    """The head in inference mode, on the CPU; errors call the tower's model `model`. Raises
    ModelError if it was trained on another tower than `tower`, or its files are damaged."""
    described = read_head_file(folder)
    if described.tower != tower:
        raise ModelError(
            other_tower(folder, described.tower, tower, model=model, what="head")
            + f"natadv train {described.task} --model {model} --data NAME --out DIR"
        )
    # On no device: this takes no memory for the weights, and draws none.
    with torch.device("meta"):
        module = (
            Decoder(described.config)
            if isinstance(described, DecoderFile)
            else Mcan(described.config)
        )
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
    """The same head, moved to that device."""
    _module(head).to(device)
    return head


def _sizes(config: DecoderConfig | McanConfig) -> dict[str, Any]:
    sizes = asdict(config)
    # So that a head at the tower's own resolution has the bytes that it always had.
    if sizes.get("input_px", 0) is None:
        del sizes["input_px"]
    return sizes


def _module(head: Head) -> Decoder | Mcan:
    return head if isinstance(head, Decoder) else head.mcan


def _fill(module: nn.Module, content: bytes, *, path: Path) -> None:
    try:
        tensors = tensors_from_bytes(content)
    except SafetensorError as error:
        raise ModelError(
            f"{path}: expected a whole safetensors file, got {len(content)} bytes that do not "
            f"open ({error}); copy the whole folder again"
        ) from error
    if fault := _mismatch(module.state_dict(), tensors):
        raise ModelError(
            f"{path}: weights and {CONFIG} do not belong together: {fault}; copy the whole folder "
            "again, or train the head again"
        )
    module.load_state_dict(tensors, assign=True)
    module.eval().requires_grad_(False)


def _mismatch(expected: Mapping[str, torch.Tensor], stored: Mapping[str, torch.Tensor]) -> str:
    """How the stored tensors differ from those of the module; empty if they do not."""
    shared = expected.keys() & stored.keys()
    faults = {
        "missing": expected.keys() - stored.keys(),
        "not known to this head": stored.keys() - expected.keys(),
        "of another shape": {n for n in shared if expected[n].shape != stored[n].shape},
        "not float32": {n for n in stored if stored[n].dtype != torch.float32},
        "not finite": {n for n in shared if not stored[n].isfinite().all()},
    }
    return "; ".join(f"{listed(sorted(names))} {word}" for word, names in faults.items() if names)


def _weights(module: nn.Module) -> bytes:
    tensors = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in module.state_dict().items()
    }
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ModelError(
            f"the head is not saved: {listed(sorted(broken))} not finite; train again, with a "
            "lower rate or in float32"
        )
    return tensors_to_bytes(tensors, metadata={"format": "pt"})


def _json(content: object) -> bytes:
    try:
        return as_json(content)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"the head is not saved: its vocabulary or facts cannot be written as JSON: {error}"
        ) from error

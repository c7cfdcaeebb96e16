"""A learned token in front of every text that makes class names mean the thing and not its name,
after Defense-Prefix (Azuma & Matsui 2023). There it stands before the class name; here after the
start token, where a tokenizer can put it without knowing what the class is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from natadv.defences.halves import Half, label_of
from natadv.defences.method import Defence, MethodInputs
from natadv.defences.network import Network
from natadv.defences.settings import PrefixSettings
from natadv.errors import ModelError
from natadv.models.adapters import pretrained
from natadv.models.files import checkpoint
from natadv.rng import rng_for
from natadv.storage.progress import Progress
from natadv.types import IntArray

if TYPE_CHECKING:
    from PIL.Image import Image

TOKEN = "<|defence|>"
_PROBE = "a photo of two small cats"


class PrefixTokenizer(NamedTuple):
    """A tokenizer that puts the token in front of every text."""

    content: Tokenizer
    id: int
    """Of the token."""
    place: int
    """Of the token in every text, counted from 0."""
    config: dict[str, Any]
    """Its `tokenizer_config.json`."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """Embeddings of the choice half by the frozen picture tower, and what they show."""

    clean: torch.Tensor
    """Unit rows of shape (n, d)."""
    attacked: torch.Tensor
    """The same with words on them, of shape (attacks, n, d)."""
    truths: IntArray
    words: IntArray
    """The class that each word names, of shape (attacks, n)."""


def defend(inputs: MethodInputs) -> Defence:
    """Learn the embedding of the token with frozen towers: attacked pictures are to be told by what
    they show, and clean ones as before. Raises ModelError if the model is not of transformers."""
    network, settings = inputs.network, inputs.settings
    assert isinstance(settings, PrefixSettings)
    table = network.parameter(network.names.tokens).detach()
    tokenizer = prefix_tokenizer(network, rows=len(table))
    shown = _shown(network, inputs.choice, settings)
    vector = torch.nn.Parameter(table.mean(dim=0))
    losses = _train(vector, shown, tokenizer, inputs)
    learned = vector.detach()
    rows = table.clone()
    if tokenizer.id < len(rows):
        rows[tokenizer.id] = learned
    else:
        rows = torch.cat([rows, learned[None]])
    return Defence(
        summary=f"a token learned in {settings.steps} steps on {len(shown.truths)} pictures, each "
        f"with {settings.attacks} words, loss {losses[-1]:.4f}",
        tensors={network.names.tokens: rows},
        facts={"token": TOKEN, "id": tokenizer.id, "losses": [round(x, 4) for x in losses]},
        files=_files(network, tokenizer, rows=len(rows)),
        caveat=f"The tokenizer puts `{TOKEN}` in front of every text by itself; use the tokenizer "
        "of this folder, not that of the original.",
    )


def prefix_tokenizer(network: Network, *, rows: int) -> PrefixTokenizer:
    """The tokenizer of the model with the token; `rows` is the number of its token embeddings.
    Raises ModelError if the model has a tokenizer of another kind."""
    spec = network.spec
    if not (spec.folder / checkpoint.TOKENIZER_CONFIG).is_file():
        raise ModelError(
            f"{spec.name}: a prefix is a token of tokenizer.json, and this model reads with "
            "open_clip's packaged tokenizer; take --method heads or words"
        )
    loaded = pretrained.tokenizer(spec.folder, vocabulary=rows)
    whole, bare = (loaded(_PROBE, add_special_tokens=s)["input_ids"] for s in (True, False))
    place = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), None)
    if place is None:
        raise ModelError(f"{spec.name}: its tokenizer changes words beside special tokens")
    content = Tokenizer.from_str(loaded.backend_tokenizer.to_str())
    content.add_special_tokens([AddedToken(TOKEN, special=True, normalized=False)])
    id = content.token_to_id(TOKEN)
    if id is None or id > rows:
        raise ModelError(f"{spec.name}: its tokenizer has more ids than the model embeddings")
    before, after = whole[:place], whole[place + len(bare) :]
    specials = {content.id_to_token(i): i for i in (*before, id, *after)}
    texts = [content.id_to_token(i) for i in (*before, id)], [content.id_to_token(i) for i in after]
    content.post_processor = TemplateProcessing(
        single=[*texts[0], "$A", *texts[1]], special_tokens=list(specials.items())
    )
    config = checkpoint.read_json(spec.folder / checkpoint.TOKENIZER_CONFIG)
    config |= {k: v for k, v in loaded.special_tokens_map.items() if isinstance(v, str)}
    for stale in ("added_tokens_decoder", "add_bos_token", "add_eos_token", "tokenizer_file"):
        config.pop(stale, None)
    # The class of the original would build its own pipeline, without the token.
    config["tokenizer_class"] = "TokenizersBackend"
    return PrefixTokenizer(content, id, place, config)


def _shown(network: Network, half: Half, settings: PrefixSettings) -> _Shown:
    def rows(turn: int) -> tuple[torch.Tensor, list[int]]:
        words: list[int] = []

        def pictures() -> Iterator[Image]:
            for sample, picture in half.attacked(turn=turn):
                words.append(half.classes.index(str(sample.decoy)))
                yield picture

        return torch.from_numpy(network.embed(pictures())), words

    attacked = [rows(turn) for turn in range(settings.attacks)]
    return _Shown(
        torch.from_numpy(network.embed(half.clean())),
        torch.stack([embedded for embedded, _ in attacked]),
        np.array([label_of(sample) for sample in half.samples], dtype=np.int64),
        np.array([words for _, words in attacked], dtype=np.int64),
    )


def _train(
    vector: torch.nn.Parameter, shown: _Shown, tokenizer: PrefixTokenizer, inputs: MethodInputs
) -> list[float]:
    """Loss of every tenth of the steps; the vector is changed."""
    network, half, settings = inputs.network, inputs.choice, inputs.settings
    assert isinstance(settings, PrefixSettings)
    optimiser = torch.optim.Adam([vector], lr=settings.rate)
    progress = Progress("learning", settings.steps, unit="steps", stream=inputs.stream)
    plain = torch.from_numpy(network.class_weights(half.classes, inputs.templates)).float()
    losses: list[float] = []
    for step in range(settings.steps):
        rng = rng_for(settings.seed, "prefix", step)
        rows = rng.choice(
            len(shown.truths), size=min(settings.batch, len(shown.truths)), replace=False
        )
        attack = int(rng.integers(settings.attacks))
        classes = _classes_of(shown, rows, attack, settings.classes_per_step, plain, rng)
        template = inputs.templates[int(rng.integers(len(inputs.templates)))]
        texts = [template.replace("{}", half.classes[c]) for c in classes]
        with _learned(network, tokenizer, vector):
            found = network.encoder.embed_tokens(_tokens(network, tokenizer, texts))
        weights = functional.normalize(found.float(), dim=-1).cpu()
        scale = network.encoder.scoring.scale
        truths = torch.from_numpy(np.searchsorted(classes, shown.truths[rows]))
        loss = functional.cross_entropy(scale * shown.attacked[attack, rows] @ weights.T, truths)
        if settings.identity_weight:
            before = (scale * shown.clean[rows] @ plain[classes].T).softmax(dim=-1)
            after = (scale * shown.clean[rows] @ weights.T).log_softmax(dim=-1)
            kept = functional.kl_div(after, before, reduction="batchmean")
            loss = loss + settings.identity_weight * kept
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if (step + 1) % max(1, settings.steps // 10) == 0 or step + 1 == settings.steps:
            losses.append(float(loss.detach()))
        progress.reach(step + 1, note=f"loss {float(loss.detach()):.4f}")
    return losses


def _classes_of(
    shown: _Shown,
    rows: IntArray,
    attack: int,
    most: int,
    plain: torch.Tensor,
    rng: np.random.Generator,
) -> IntArray:
    """The classes of a step, rising: what its pictures show and say, and some others."""
    needed = np.union1d(shown.truths[rows], shown.words[attack, rows])
    others = np.setdiff1d(np.arange(len(plain)), needed)
    extra = rng.permutation(others)[: max(0, most - len(needed))]
    return np.union1d(needed, extra)


def _tokens(
    network: Network, tokenizer: PrefixTokenizer, texts: Sequence[str]
) -> dict[str, torch.Tensor]:
    """As the defended folder will tokenise them; the token itself has a stand-in that has an
    embedding."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.content, pad_token=str(tokenizer.config["pad_token"])
    )
    reference = network.encoder.tokenise(list(texts))
    context = reference["input_ids"].shape[1]
    # SigLIP spells its texts in another way first; both adapters lower-case them.
    found = pretrained.padded_tokens(wrapped, _spelled(network, texts), context=context)
    ids = found["input_ids"]
    ids = torch.where(ids == tokenizer.id, torch.zeros_like(ids), ids)
    tokens = {"input_ids": ids}
    if "attention_mask" in reference:
        tokens["attention_mask"] = found["attention_mask"]
    return network.encoder.placement.of_tokens(tokens)


def _spelled(network: Network, texts: Sequence[str]) -> list[str]:
    from natadv.models.adapters.siglip import canonical

    siglip = network.spec.loader.startswith("transformers-siglip")
    return [canonical(text) if siglip else text for text in texts]


@contextmanager
def _learned(network: Network, tokenizer: PrefixTokenizer, vector: torch.Tensor) -> Iterator[None]:
    """The embedding of the token's place is the vector, as long as the block lasts."""
    module = network.module.get_submodule(network.names.tokens.rpartition(".")[0])
    place = tokenizer.place

    def replaced(_module: object, _inputs: object, found: torch.Tensor) -> torch.Tensor:
        own = vector.expand(len(found), 1, -1)
        return torch.cat([found[:, :place], own, found[:, place + 1 :]], dim=1)

    handle = module.register_forward_hook(replaced)
    try:
        yield
    finally:
        handle.remove()


def _files(network: Network, tokenizer: PrefixTokenizer, *, rows: int) -> dict[str, bytes]:
    """The tokenizer, and the model's config for `rows` embeddings. The end token is named: with an
    old config, transformers would pool at the highest id, which is now that of the token."""
    config = checkpoint.read_json(network.spec.folder / checkpoint.CONFIG)
    text = dict(config.get("text_config") or {})
    text["vocab_size"] = rows
    if config.get("model_type") == "clip":
        text["eos_token_id"] = tokenizer.content.token_to_id(str(tokenizer.config["eos_token"]))
    return {
        checkpoint.CONFIG: _json({**config, "text_config": text}),
        checkpoint.TOKENIZER_VOCABULARIES[0]: tokenizer.content.to_str().encode(),
        checkpoint.TOKENIZER_CONFIG: _json(tokenizer.config),
    }


def _json(content: object) -> bytes:
    return f"{json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True)}\n".encode()

"""SigLIP and SigLIP 2 checkpoints in the layout of transformers, NaFlex included."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import Siglip2Model, SiglipModel

from natadv.errors import ModelError
from natadv.explain.layers import Attended, OpenTower, fused_attention, side_by_side
from natadv.models.adapters import pretrained, towers
from natadv.models.adapters.encoder import (
    DualEncoder,
    LogitScoring,
    Pixels,
    Placement,
    Tokens,
    TowerReader,
    scale_of,
)
from natadv.models.adapters.towers import DenseTower
from natadv.types import ModelSpec

if TYPE_CHECKING:
    from PIL.Image import Image

CHANNELS = 3

SHAPES = "spatial_shapes"
"""Rows and columns of patches of each picture, of shape (b, 2)."""

_REMOVED = "".join(c for c in string.punctuation if c not in "_,")
"""big_vision keeps commas in class names ('hen, chicken'), which prompts contain."""

_SPELLING = str.maketrans("_", " ", _REMOVED)


def canonical(text: str) -> str:
    """Lower case, no punctuation but commas, single spaces: as SigLIP was evaluated."""
    return " ".join(text.translate(_SPELLING).lower().split())


def build(spec: ModelSpec, placement: Placement) -> DualEncoder:
    """SigLIP or SigLIP 2 for squares of one size. Raises ModelError."""
    model = pretrained.weights(SiglipModel, spec.folder, placement=placement)
    vision = model.config.vision_config
    tower = partial(towers.square_tower, model.get_image_features, vision, leading=0)
    return _encoder(
        spec,
        model,
        placement=placement,
        tokenizer=_tokenizer(spec, model),
        preprocess=pretrained.squares(spec, side=vision.image_size),
        dense=tower(),
        resized=pretrained.resized(spec, lambda px: tower(side_px=px), placement=placement),
        open_tower=_open_tower(model),
    )


def build_naflex(spec: ModelSpec, placement: Placement) -> DualEncoder:
    """SigLIP 2 for pictures that keep their proportions. Raises ModelError."""
    model = pretrained.weights(Siglip2Model, spec.folder, placement=placement)
    tokenizer = _tokenizer(spec, model)
    # In training, a text began with its first word and ended with the end token.
    ids = tokenizer("a photo of a cat")["input_ids"]
    if ids[0] == tokenizer.bos_token_id or ids[-1] != tokenizer.eos_token_id:
        raise ModelError(
            f"{spec.name}: expected texts that end with token id {tokenizer.eos_token_id} and have "
            f"no start token, the tokenizer makes {ids[0]} ... {ids[-1]}; copy the tokenizer files "
            "of the original checkpoint"
        )
    return _encoder(
        spec,
        model,
        placement=placement,
        tokenizer=tokenizer,
        preprocess=partial(
            _patches,
            spec.name,
            pretrained.image_processor(spec.folder),
            patch=model.config.vision_config.patch_size,
        ),
        dense=towers.dense_tower(
            model.get_image_features,
            model.config.vision_config,
            grid_of=partial(_shared_grid, spec.name),
            leading=0,
        ),
        open_tower=_open_naflex(spec.name, model),
    )


def _tokenizer(spec: ModelSpec, model: Any) -> Any:
    return pretrained.tokenizer(spec.folder, vocabulary=model.config.text_config.vocab_size)


def _encoder(
    spec: ModelSpec,
    model: Any,
    *,
    placement: Placement,
    tokenizer: Any,
    preprocess: Callable[[Sequence[Image]], Pixels],
    dense: DenseTower,
    resized: Callable[[int], TowerReader] | None = None,
    open_tower: OpenTower | None = None,
) -> DualEncoder:
    context = model.config.text_config.max_position_embeddings
    # The paper's scripts did not canonicalise prompts (NaFlex's tokenizer still lower-cases them).
    spell = str if spec.feeding == "paper" else canonical

    def _tokenise(texts: Sequence[str]) -> Tokens:
        # The tower pools at the last position of the context and was trained without a mask, so
        # any other padding, or a mask, gives another embedding.
        spelled = [spell(text) for text in texts]
        tokens = pretrained.padded_tokens(tokenizer, spelled, context=context)
        return {"input_ids": tokens["input_ids"]}

    return DualEncoder(
        name=spec.name,
        placement=placement,
        preprocess=preprocess,
        embed_pixels=lambda pixels: towers.pooled(model.get_image_features(**pixels)),
        tokenise=_tokenise,
        embed_tokens=lambda tokens: towers.pooled(model.get_text_features(**tokens)),
        scoring=LogitScoring(
            scale=scale_of(pretrained.scalar(spec.folder, "logit_scale"), where=spec.folder),
            bias=pretrained.scalar(spec.folder, "logit_bias"),
            activation="sigmoid",
        ),
        dense=dense,
        resized=resized,
        open_tower=open_tower,
        network=model,
    )


def _open_tower(model: SiglipModel) -> OpenTower:
    vision = model.vision_model
    finish, pool = _pooling(vision)
    return towers.open_square(vision, leading=0, first=vision.embeddings, finish=finish, pool=pool)


def _open_naflex(name: str, model: Siglip2Model) -> OpenTower:
    """For pictures of one grid, without the padding that only other grids need."""
    vision = model.vision_model
    finish, pool = _pooling(vision)

    def _first(pixels: Pixels) -> torch.Tensor:
        rows, columns = _shared_grid(name, pixels)
        states: torch.Tensor = vision.embeddings(pixels["pixel_values"], pixels[SHAPES])
        return states[:, : rows * columns]

    return towers.open_transformer(
        vision,
        leading=0,
        grid_of=partial(_shared_grid, name),
        first=_first,
        finish=finish,
        pool=pool,
    )


def _pooling(
    vision: Any,
) -> tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[torch.Tensor], Attended]]:
    """`finish` and `pool` of a `LayerwisePass`."""
    head = vision.head

    def _pool(state: torch.Tensor) -> Attended:
        tokens = vision.post_layernorm(state)
        return fused_attention(head.attention, head.probe.expand(len(tokens), -1, -1), tokens)

    def _finish(outputs: torch.Tensor) -> torch.Tensor:
        pooled = head.attention.out_proj(side_by_side(outputs))
        embeddings: torch.Tensor = (pooled + head.mlp(head.layernorm(pooled)))[:, 0]
        return embeddings

    return _finish, _pool


def _patches(name: str, processor: Any, images: Sequence[Image], *, patch: int) -> Pixels:
    """Pictures, cut into up to as many patches as the preprocessing allows."""
    patches = processor(images=list(images), return_tensors="pt")
    shape = tuple(patches["pixel_values"].shape)
    expected = (len(images), processor.max_num_patches, CHANNELS * patch * patch)
    if shape != expected:
        raise ModelError(
            f"{name}: the model takes patches of shape {expected}, its preprocessing makes "
            f"{shape}; copy the original preprocessing config"
        )
    return {key: patches[key] for key in ("pixel_values", "pixel_attention_mask", SHAPES)}


def _shared_grid(name: str, pixels: Pixels) -> tuple[int, int]:
    """Rows and columns of the patches, which all pictures of one call must share."""
    grids = sorted({(rows, columns) for rows, columns in pixels[SHAPES].tolist()})
    if len(grids) > 1:
        listed = " and ".join(f"{rows} x {columns}" for rows, columns in grids[:2])
        raise ModelError(
            f"{name}: features of one call share a grid, and these pictures are cut into "
            f"{listed} patches; ask for pictures of one shape at a time"
        )
    return grids[0]

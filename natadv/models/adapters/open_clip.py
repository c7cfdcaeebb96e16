"""Checkpoints in the layout of open_clip."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from open_clip import model as architecture  # type: ignore[import-untyped]
from open_clip import modified_resnet, tokenizer, transform, transformer
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from natadv.errors import ModelError
from natadv.explain.layers import (
    Attended,
    LastFeatures,
    LayerwisePass,
    OpenFeatures,
    OpenTower,
    TowerLayer,
    fused_attention,
    side_by_side,
)
from natadv.models.adapters.encoder import (
    DualEncoder,
    LogitScoring,
    Pixels,
    Placement,
    Tokens,
    TowerReader,
    check_activation,
    scale_of,
)
from natadv.models.adapters.towers import DenseTower, TowerPass
from natadv.models.files import open_clip_folder, tensor_files
from natadv.types import ModelSpec

if TYPE_CHECKING:
    from PIL.Image import Image

COUNTER = "num_batches_tracked"
"""Counts training steps and affects nothing; old files lack it."""

RESNET_STAGES = 4


def build(spec: ModelSpec, placement: Placement) -> DualEncoder:
    """The model in the folder of `spec`. Raises ModelError."""
    config = open_clip_folder.model_config(spec.folder)
    if spec.feeding == "paper":
        # The paper's scripts built the architecture by a name that means GELU, and loaded weights
        # from a file.
        config["quick_gelu"] = False
    elif spec.activation is not None:
        # Old files leave it open; a file that contradicts its row of the zoo is refused below.
        config.setdefault("quick_gelu", spec.activation == "quick_gelu")
    # First on no device: a config can ask for more memory than any machine has.
    with torch.device("meta"):
        empty = _model(config, spec.folder, placement)
    if spec.feeding != "paper":
        quick = str(spec.activation == "quick_gelu").lower()
        remedy = (
            f"set 'quick_gelu' to {quick} in model_cfg of {open_clip_folder.CONFIG} (in a copy of "
            f"{spec.folder}, if models.lock names it)"
        )
        check_activation(spec, activations(empty), remedy=remedy)
    _check_fit(empty, spec.folder)
    with _Uninitialised():
        model = _model(config, spec.folder, placement)
    scoring = _load_weights(model, spec.folder)
    if placement.dtype != torch.float32:
        # Norms stay in float32, as in open_clip.
        architecture.convert_weights_to_lp(model, dtype=placement.dtype)
    model.eval().requires_grad_(False).to(placement.device)
    stated = transform.PreprocessCfg(**open_clip_folder.preprocessing(spec.folder))
    return DualEncoder(
        name=spec.name,
        placement=placement,
        preprocess=partial(_pixels, transform.image_transform_v2(stated, is_train=False)),
        embed_pixels=lambda pixels: model.encode_image(pixels["image"]),
        tokenise=_tokenise(spec.folder, vocabulary=model.vocab_size),
        embed_tokens=lambda tokens: model.encode_text(tokens["text"]),
        scoring=scoring,
        dense=_dense(model.visual),
        open_tower=_open_tower(model.visual),
        open_features=_open_features(model.visual),
        network=model,
        resized=partial(_resized, spec.name, model.visual, placement, stated),
    )


class _Uninitialised(TorchFunctionMode):
    """Draws no random numbers for new parameters: weights that fit are loaded over all of them."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func.__name__ in ("normal_", "uniform_", "kaiming_uniform_", "trunc_normal_"):
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def _resized(
    name: str,
    visual: Any,
    placement: Placement,
    stated: transform.PreprocessCfg,
    side_px: int,
) -> TowerReader:
    """The tower for whole pictures as squares of another side."""
    squares = replace(stated, size=side_px, resize_mode="squash")
    return TowerReader(
        name=name,
        placement=placement,
        preprocess=partial(_pixels, transform.image_transform_v2(squares, is_train=False)),
        dense=_dense_at(visual, side_px),
    )


def _pixels(to_tensor: Callable[[Image], torch.Tensor], images: Sequence[Image]) -> Pixels:
    return {"image": torch.stack([to_tensor(image) for image in images])}


def activations(model: Any) -> dict[str, str]:
    """The activation in the MLPs of each tower; a ResNet has none."""
    computed: dict[str, str] = {}
    for tower, part in {"picture": model.visual, "text": model.transformer}.items():
        kinds = set()
        for name, module in part.named_modules():
            if not name.endswith("mlp.gelu"):
                continue
            if isinstance(module, transformer.QuickGELU):
                kinds.add("quick_gelu")
            elif isinstance(module, torch.nn.GELU) and module.approximate == "none":
                kinds.add("gelu")
            else:
                kinds.add(repr(module))
        if kinds:
            computed[tower] = " and ".join(sorted(kinds))
    return computed


def _model(config: Mapping[str, Any], folder: Path, placement: Placement) -> Any:
    cast = None if placement.dtype == torch.float32 else placement.dtype
    try:
        return architecture.CLIP(**config, cast_dtype=cast)
    # A border: sizes that do not belong together can raise anything.
    except Exception as error:
        raise ModelError(
            f"{folder / open_clip_folder.CONFIG}: open_clip cannot build this model: "
            f"{' '.join(str(error).split())[:300]} ({type(error).__name__}); copy the original file"
        ) from error


def _check_fit(model: Any, folder: Path) -> None:
    """Raise ModelError unless `folder` holds exactly the weights of the model."""
    stored = tensor_files.shapes(open_clip_folder.weights_file(folder))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    expected, stored = (
        {name: shape for name, shape in shapes.items() if not name.endswith(COUNTER)}
        for shapes in (expected, stored)
    )
    if fault := tensor_files.misfit(expected, stored):
        raise ModelError(
            f"{folder}: weights and {open_clip_folder.CONFIG} do not belong together: {fault}; "
            "copy both from the same checkpoint"
        )


def _load_weights(model: Any, folder: Path) -> LogitScoring:
    """Load the weights of `folder`, which fit, into the model, and return its scoring."""
    path = open_clip_folder.weights_file(folder)
    state = tensor_files.load(path)
    model.load_state_dict(state, strict=False)
    scale = scale_of(_number(state["logit_scale"], path), where=path)
    if "logit_bias" in state:
        return LogitScoring(scale, _number(state["logit_bias"], path), "sigmoid")
    return LogitScoring(scale, 0.0, "softmax")


def _number(tensor: torch.Tensor, path: Path) -> float:
    value = float(tensor.double().reshape(-1)[0])
    if not math.isfinite(value):
        raise ModelError(f"{path}: a logit scale or bias is {value!r}; the weights are damaged")
    return value


def _tokenise(folder: Path, *, vocabulary: int) -> Callable[[Sequence[str]], Tokens]:
    packaged = tokenizer.SimpleTokenizer(**open_clip_folder.tokenizer_options(folder))
    # The text tower pools at the highest id of a text, which is where this tokenizer ends it.
    if packaged.vocab_size != vocabulary:
        raise ModelError(
            f"{folder}: the text tower knows {vocabulary} tokens, open_clip's packaged tokenizer "
            f"has {packaged.vocab_size}; a model with a tokenizer of its own can come in as "
            "module:factory"
        )
    return lambda texts: {"text": packaged(list(texts))}


def _dense_at(visual: Any, side_px: int) -> DenseTower:
    """The tower for squares of another side. The positions of a ViT are interpolated as in CLIPSeg,
    on a copy that shares all other weights; the stages of a ResNet know no positions."""
    if isinstance(visual, modified_resnet.ModifiedResNet):
        return _dense(visual, intermediates_only=True)
    trained = visual.positional_embedding
    rows, columns = visual.grid_size
    places = side_px // visual.patch_size[0]
    grid = trained[1:].float().T.unflatten(1, (rows, columns))[None]
    grid = functional.interpolate(grid, (places, places), mode="bicubic", align_corners=False)
    positions = torch.cat([trained[:1], grid[0].flatten(1).T.to(trained.dtype)])
    resized = copy(visual)
    # A shallow copy of a module still shares the table of its parameters.
    resized._parameters = dict(visual._parameters)
    resized.positional_embedding = torch.nn.Parameter(positions, requires_grad=False)
    return _dense(resized, intermediates_only=True)


def _dense(visual: Any, *, intermediates_only: bool = False) -> DenseTower:
    resnet = isinstance(visual, modified_resnet.ModifiedResNet)

    def _forward_features(pixels: Mapping[str, torch.Tensor]) -> TowerPass:
        output = visual.forward_intermediates(
            pixels["image"], intermediates_only=intermediates_only
        )
        # The first map of a ResNet is that of the stem, before any stage.
        maps = output["image_intermediates"][1 if resnet else 0 :]
        states = tuple(m.permute(0, 2, 3, 1) for m in maps)
        return TowerPass(output.get("image_features"), states)

    depth = RESNET_STAGES if resnet else len(visual.transformer.resblocks)
    return DenseTower(depth, _forward_features)


def _open_tower(visual: Any) -> OpenTower | None:
    """The layers of a plain ViT whose class token is the result; None for any other tower."""
    if not isinstance(visual, transformer.VisionTransformer):
        return None
    blocks = visual.transformer.resblocks
    plain = all(type(block) is transformer.ResidualAttentionBlock for block in blocks)
    if not plain or visual.attn_pool is not None or visual.pool_type != "tok":
        return None
    layers = tuple(map(_layer, blocks))

    def _finish(state: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = visual._pool(state)[0]
        return pooled if visual.proj is None else pooled @ visual.proj

    return lambda pixels: LayerwisePass(
        visual._embeds(pixels["image"]), layers, _finish, grid=visual.grid_size, leading=1
    )


def _open_features(visual: Any) -> OpenFeatures | None:
    """The last stage of a ResNet; None for any other tower."""
    if not isinstance(visual, modified_resnet.ModifiedResNet):
        return None

    def _open(pixels: Pixels) -> LastFeatures:
        with torch.no_grad():
            maps = visual.stem(pixels["image"])
            for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
                maps = stage(maps)
        return LastFeatures(
            maps.permute(0, 2, 3, 1), lambda places: visual.attnpool(places.permute(0, 3, 1, 2))
        )

    return _open


def _layer(block: Any) -> TowerLayer:
    attn = block.attn

    def _attend(state: torch.Tensor) -> Attended:
        tokens = block.ln_1(state)
        return fused_attention(attn, tokens, tokens)

    def _join(state: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        state = state + block.ls_1(attn.out_proj(side_by_side(outputs)))
        joined: torch.Tensor = state + block.ls_2(block.mlp(block.ln_2(state)))
        return joined

    return TowerLayer(attn.num_heads, _attend, _join)

"""Checkpoints in the layout of open_clip."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from open_clip import model as architecture  # type: ignore[import-untyped]
from open_clip import modified_resnet, tokenizer, transform, transformer

from natadv.errors import ModelError
from natadv.models.adapters import activation
from natadv.models.adapters.dense import DenseTower, Seen
from natadv.models.adapters.encoder import (
    DualEncoder,
    LogitScoring,
    Parts,
    Pixels,
    Placement,
    Tokens,
    scale_of,
)
from natadv.models.files import open_clip_folder, tensor_files
from natadv.types import ModelSpec

if TYPE_CHECKING:
    from PIL.Image import Image

COUNTER = "num_batches_tracked"
"""Counts steps of training and decides nothing; old files lack it."""

RESNET_STAGES = 4


def build(spec: ModelSpec, placement: Placement) -> DualEncoder:
    config = open_clip_folder.model_config(spec.folder)
    if spec.feeding == "paper":
        # Its scripts built the model of a plain name, which means GELU, and filled it from a file.
        config["quick_gelu"] = False
    elif spec.activation is not None:
        # Old files leave it open; where one says something else than its row, it is refused below.
        config.setdefault("quick_gelu", spec.activation == "quick_gelu")
    # First on no device: the sizes of a config can ask for more than any memory.
    with torch.device("meta"):
        empty = _model(config, spec.folder, placement)
    if spec.feeding != "paper":
        activation.check(spec, activations(empty), remedy=_remedy(spec))
    _check_fit(empty, spec.folder)
    model = _model(config, spec.folder, placement)
    scoring = _filled(model, spec.folder)
    if placement.dtype != torch.float32:
        # Norms stay in float32, as open_clip does it.
        architecture.convert_weights_to_lp(model, dtype=placement.dtype)
    model.eval().requires_grad_(False).to(placement.device)
    parts = Parts(
        prepare=_prepare(spec.folder),
        forward_features=lambda pixels: model.encode_image(pixels["image"]),
        tokenise=_tokenise(spec.folder, vocabulary=model.vocab_size),
        read=lambda tokens: model.encode_text(tokens["text"]),
        scoring=scoring,
        dense=_dense(model.visual),
    )
    return DualEncoder(spec.name, parts, placement=placement)


def activations(model: Any) -> dict[str, str]:
    """What the MLPs of each tower compute; a ResNet has none."""
    found: dict[str, str] = {}
    for tower, part in {"picture": model.visual, "text": model.transformer}.items():
        mlps = (m for name, m in part.named_modules() if name.endswith("mlp.gelu"))
        if kinds := sorted({_kind(mlp) for mlp in mlps}):
            found[tower] = " and ".join(kinds)
    return found


def _kind(module: torch.nn.Module) -> str:
    if isinstance(module, transformer.QuickGELU):
        return "quick_gelu"
    if isinstance(module, torch.nn.GELU) and module.approximate == "none":
        return "gelu"
    return repr(module)


def _remedy(spec: ModelSpec) -> str:
    return (
        f"set 'quick_gelu' to {str(spec.activation == 'quick_gelu').lower()} in model_cfg of "
        f"{open_clip_folder.CONFIG} (in a copy of {spec.folder}, if models.lock names it)"
    )


def _model(config: Mapping[str, Any], folder: Path, placement: Placement) -> Any:
    cast = None if placement.dtype == torch.float32 else placement.dtype
    try:
        return architecture.CLIP(**config, cast_dtype=cast)
    # A border: sizes that do not belong together raise whatever the layer in question raises.
    except Exception as error:
        raise ModelError(
            f"{folder / open_clip_folder.CONFIG}: open_clip cannot build this model: "
            f"{' '.join(str(error).split())[:300]} ({type(error).__name__}); copy the original file"
        ) from error


def _check_fit(model: Any, folder: Path) -> None:
    """Raise ModelError unless `folder` holds every weight of the model and no other."""
    path = open_clip_folder.weights_file(folder)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if fault := tensor_files.misfit(_decisive(expected), _decisive(tensor_files.shapes(path))):
        raise ModelError(
            f"{folder}: weights and {open_clip_folder.CONFIG} do not belong together: {fault}; "
            "copy both from the same checkpoint"
        )


def _filled(model: Any, folder: Path) -> LogitScoring:
    """Fill the model with the weights of `folder`, which fit, and read how it scores."""
    path = open_clip_folder.weights_file(folder)
    state = tensor_files.load(path)
    model.load_state_dict(state, strict=False)
    scale = scale_of(_number(state["logit_scale"], path), where=path)
    if "logit_bias" in state:
        return LogitScoring(scale, _number(state["logit_bias"], path), "sigmoid")
    return LogitScoring(scale, 0.0, "softmax")


def _decisive(shapes: Mapping[str, tensor_files.Shape]) -> dict[str, tensor_files.Shape]:
    return {name: shape for name, shape in shapes.items() if not name.endswith(COUNTER)}


def _number(tensor: torch.Tensor, path: Path) -> float:
    value = float(tensor.double().reshape(-1)[0])
    if not math.isfinite(value):
        raise ModelError(f"{path}: a logit scale or bias is {value!r}; the weights are damaged")
    return value


def _prepare(folder: Path) -> Callable[[Sequence[Image]], Pixels]:
    config = transform.PreprocessCfg(**open_clip_folder.preprocessing(folder))
    of_one = transform.image_transform_v2(config, is_train=False)

    def prepare(images: Sequence[Image]) -> Pixels:
        return {"image": torch.stack([of_one(image) for image in images])}

    return prepare


def _tokenise(folder: Path, *, vocabulary: int) -> Callable[[Sequence[str]], Tokens]:
    packaged = tokenizer.SimpleTokenizer(**open_clip_folder.tokenizer_options(folder))
    # The text tower pools at the highest id of a text, which is where the tokenizer ends it.
    if packaged.vocab_size != vocabulary:
        raise ModelError(
            f"{folder}: the text tower knows {vocabulary} tokens, open_clip's packaged tokenizer "
            f"has {packaged.vocab_size}; a model with a tokenizer of its own can come in as "
            "module:factory"
        )
    return lambda texts: {"text": packaged(list(texts))}


def _dense(visual: Any) -> DenseTower:
    resnet = isinstance(visual, modified_resnet.ModifiedResNet)

    def forward_features(pixels: Mapping[str, torch.Tensor]) -> Seen:
        found = visual.forward_intermediates(pixels["image"])
        # Of a ResNet the first is the stem, before any stage.
        layers = found["image_intermediates"][1 if resnet else 0 :]
        return Seen(found["image_features"], tuple(layer.permute(0, 2, 3, 1) for layer in layers))

    return DenseTower(
        RESNET_STAGES if resnet else len(visual.transformer.resblocks), forward_features
    )

"""A hub on this machine with a tiny checkpoint under the id of every model of the paper.

Each has the architecture and the files of the real one. The picture towers of the CLIP-like models
are the first layers of the mini world's models, and their last text layer was fitted to a few of
its pictures, so that they answer better than by chance; the models that answer questions
were random, and learned a few answers by heart.
"""

from __future__ import annotations

import io
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, normalize
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
)
from transformers.utils import logging

from natadv.annotate.question_templates import article
from natadv.data.classes import class_table
from natadv.models.adapters.siglip import canonical
from natadv.models.zoo import ZOO, ZooRow
from tests.models.hub.conftest import Hub, serving
from tests.rehearsal.answerers import save_blip2_row, save_paligemma_row, seed_of
from tests.rehearsal.archives import IMAGENET, IMAGENET_A, ROOT, Shown, shown
from tests.tiny_grounding import save_dino, save_sam

TOOLS = {"IDEA-Research/grounding-dino-tiny": save_dino, "facebook/sam-vit-huge": save_sam}
"""What `natadv annotate masks` needs beside the models of the paper."""

LAYERS = 3
"""The layers that a picture tower keeps of the mini world's six; text towers keep one of two."""
NOISE = 0.02
"""Added to the weights of a picture tower, as a share of their deviation, so that models differ."""
WIDTH = 128
TEXT_WIDTH = 20
"""The width of open_clip's text towers, which have the whole vocabulary of CLIP."""
SCALE = math.log(20)
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD

Rows = Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Lesson:
    """The pictures that a model is fitted to, and what they show."""

    images: tuple[Image.Image, ...]
    columns: tuple[tuple[Sequence[int], Sequence[int], Sequence[int]], ...]
    """For each list of classes: its places among the prompts, pictures, and the place of the truth
    of each of the pictures within the list."""
    prompts: tuple[str, ...]
    asked: tuple[tuple[str, str], ...]
    """A question about each of the first pictures, and its answer."""

    def pixels(self, side: int, *, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
        """Of shape (b, 3, side, side)."""
        resized = [np.asarray(i.resize((side, side), 3), np.float32) / 255 for i in self.images]
        scaled = (np.stack(resized) - np.float32(mean)) / np.float32(std)
        return torch.from_numpy(scaled).permute(0, 3, 1, 2)

    def fit(
        self,
        images: Rows,
        texts: Rows,
        *,
        weights: Iterable[torch.Tensor],
        steps: int,
        rate: float = 3e-3,
    ) -> None:
        """Fit `weights` so that each picture is nearest to the prompt of what it shows."""
        trained = [weight.requires_grad_() for weight in weights]
        optimiser = torch.optim.Adam(trained, rate)
        for _ in range(steps):
            logits = math.exp(SCALE) * normalize(images()) @ normalize(texts()).T
            loss = sum(
                # Few classes are soon told apart, and would count for little.
                (3 if len(places) < 100 else 1)
                * cross_entropy(logits[list(rows)][:, list(places)], torch.tensor(truth))
                for places, rows, truth in self.columns
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def lesson() -> Lesson:
    """Those of ImageNet's archive and others, among all classes that the archives have."""
    pictures = [*shown("mini"), *shown("mini-natural", per_class=1)]
    pictures += shown("mini-langadv", per_class=2)
    wnids, few, animals = list(class_table("imagenet")), list(class_table("imagenet-a")), IMAGENET
    names = [*class_table("imagenet").values(), *animals]
    in_a = [row for row, picture in enumerate(pictures) if picture.animal in IMAGENET_A]
    everything = range(len(pictures))
    return Lesson(
        images=tuple(Image.open(io.BytesIO(p.jpeg)).convert("RGB") for p in pictures),
        columns=(
            (range(1000), everything, [wnids.index(IMAGENET[p.animal]) for p in pictures]),
            (
                [wnids.index(wnid) for wnid in few],
                in_a,
                [few.index(IMAGENET_A[pictures[row].animal]) for row in in_a],
            ),
            (range(1000, 1010), everything, [list(animals).index(p.animal) for p in pictures]),
        ),
        prompts=tuple(f"a photo of a {name}." for name in names),
        asked=tuple(_asked(picture, number) for number, picture in enumerate(pictures[:40])),
    )


def _asked(picture: Shown, number: int) -> tuple[str, str]:
    """A question of the mini world, or one by the templates of `natadv annotate`, to say yes or no
    to: other answers would take longer to learn."""
    if picture.sample.answer_type == "yes/no":
        return str(picture.sample.question), picture.sample.answers[0]
    animals = list(IMAGENET)
    other = animals[(animals.index(picture.animal) + 3) % len(animals)]
    name, answer = (picture.animal, "yes") if number % 2 else (other, "no")
    return f"Is there {article(name)} in the picture?", answer


@contextmanager
def paper_hub(names: Iterable[str]) -> Iterator[Hub]:
    """A hub that serves the models of these names, and the two tools."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_checkpoints(folder, names)
        with serving() as hub:
            for repository in sorted(folder.glob("*/*")):
                hub_id = repository.relative_to(folder).as_posix()
                files = {path.name: path.read_bytes() for path in repository.iterdir()}
                publish(hub, hub_id, files)
            yield hub


def publish(hub: Hub, hub_id: str, files: dict[str, bytes]) -> None:
    """Publish as its owner does: OpenAI's oldest has safetensors only in a pull request."""
    gated = any(row.gated for row in ZOO.values() if row.hub == hub_id)
    files = {".gitattributes": b"*.bin filter=lfs\n", "README.md": b"# A model\n", **files}
    if hub_id != "openai/clip-vit-base-patch32":
        hub.publish(hub_id, files, gated=gated)
        return
    weights = {"model.safetensors": files.pop("model.safetensors")}
    hub.publish(hub_id, {**files, "pytorch_model.bin": b"a pickle"})
    hub.offer(hub_id, weights, author="SFconvertbot")


def save_checkpoints(folder: Path, names: Iterable[str]) -> None:
    """A folder `owner/name` for each model, about 40 MB for all of the paper."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    known = lesson()
    for row in (ZOO[name] for name in names):
        (folder / row.hub).mkdir(parents=True)
        SAVERS[row.family](row, folder / row.hub, known)
    for hub_id, save in TOOLS.items():
        save(folder / hub_id)


def _save_clip(row: ZooRow, folder: Path, known: Lesson) -> None:
    model = _clip(row)
    _fit_texts(model.text_projection.weight, model, known, prompts=known.prompts)
    model.logit_scale.data.fill_(SCALE)
    _save_transformers(model, folder, "mini-clip")
    side = model.config.vision_config.image_size
    _edit_json(
        folder / "preprocessor_config.json",
        crop_size={"height": side, "width": side},
        do_center_crop=True,
        image_mean=MEAN,
        image_std=STD,
        size={"shortest_edge": side},
    )


def _clip(row: ZooRow) -> CLIPModel:
    """mini-clip with fewer layers, the activation of the row, and pixels scaled as OpenAI's."""
    source = ROOT / "fixtures/models/mini-clip"
    config = CLIPConfig.from_pretrained(source)
    for section, layers in ((config.vision_config, LAYERS), (config.text_config, 1)):
        section.num_hidden_layers, section.hidden_act = layers, row.activation
    model = CLIPModel.from_pretrained(source, config=config).eval()
    patches = model.vision_model.embeddings.patch_embedding.weight.data
    positions = model.vision_model.embeddings.position_embedding.weight.data
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (MEAN, STD))
    # mini-clip's pixels are (x - 0.5) / 0.5, and x is OpenAI's pixels times `std` plus `mean`.
    positions[1:] += ((2 * mean - 1) * patches).sum((1, 2, 3))
    patches *= 2 * std
    _disturb(model.vision_model, row)
    return model


def _save_siglip(row: ZooRow, folder: Path, known: Lesson) -> None:
    source = ROOT / "fixtures/models/mini-siglip"
    config = SiglipConfig.from_pretrained(source)
    config.vision_config.num_hidden_layers, config.text_config.num_hidden_layers = LAYERS, 1
    state = SiglipModel.from_pretrained(source, config=config).state_dict()
    # In the proportion of the published sizes: 56, 64 and 128 pixels, in patches of 8.
    side = config.vision_config.image_size = row.image_px // 4
    positions = "vision_model.embeddings.position_embedding.weight"
    places = side // config.vision_config.patch_size
    state[positions] = _resized(state[positions], places)
    model = SiglipModel(config).eval()
    model.load_state_dict(state)
    _disturb(model.vision_model, row)
    prompts = [canonical(prompt) for prompt in known.prompts]
    _fit_texts(model.text_model.head.weight, model, known, prompts=prompts)
    _save_transformers(model, folder, "mini-siglip")
    _edit_json(folder / "preprocessor_config.json", size={"height": side, "width": side})


def _resized(positions: torch.Tensor, places: int) -> torch.Tensor:
    """Position embeddings of a square of patches, interpolated for `places` x `places` of them."""
    grid = positions.T.unflatten(1, (math.isqrt(len(positions)), -1))[None]
    size = (places, places)
    resized = torch.nn.functional.interpolate(grid, size, mode="bicubic", align_corners=False)
    return resized[0].flatten(1).T


def _fit_texts(weight: torch.Tensor, model: Any, known: Lesson, *, prompts: Sequence[str]) -> None:
    """Fit the last layer of a text tower of transformers, which has no bias that matters."""
    vision, text = model.config.vision_config, model.config.text_config
    tokenizer = AutoTokenizer.from_pretrained(ROOT / f"fixtures/models/mini-{text_kind(model)}")
    mean, std = (MEAN, STD) if text_kind(model) == "clip" else ([0.5] * 3, [0.5] * 3)
    context = text.max_position_embeddings
    tokens = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=context,
        truncation=True,
        return_tensors="pt",
    )
    inside: list[torch.Tensor] = []
    layer = model.text_projection if text_kind(model) == "clip" else model.text_model.head
    hook = layer.register_forward_pre_hook(lambda _, given: inside.append(given[0]))
    with torch.inference_mode():
        pixels = known.pixels(vision.image_size, mean=mean, std=std)
        images = model.get_image_features(pixel_values=pixels).pooler_output
        model.get_text_features(input_ids=tokens["input_ids"])
    hook.remove()
    images, pooled = images.clone(), inside[0].clone()
    known.fit(lambda: images, lambda: layer(pooled), weights=[weight], steps=100)


def text_kind(model: Any) -> str:
    """`clip` or `siglip`."""
    return str(model.config.model_type)


def _save_transformers(model: Any, folder: Path, source: str) -> None:
    """In float16, with the other files of the mini model."""
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copy(ROOT / "fixtures/models" / source / name, folder)
    model.half().save_pretrained(folder)


def _edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes, indent=2))


def _save_open_clip(row: ZooRow, folder: Path, known: Lesson) -> None:
    model, config = _open_clip(row)
    model.visual.load_state_dict(_in_open_clip(_clip(row).state_dict()))
    with torch.inference_mode():
        images = model.encode_image(known.pixels(64, mean=MEAN, std=STD))
        texts = _before_projection(model, known.prompts)
    images, texts = images.clone(), texts.clone()
    projection = model.text_projection
    known.fit(
        lambda: images, lambda: texts @ projection, weights=[projection], steps=400, rate=1e-2
    )
    _write_open_clip(folder, model, config)
    torch.save(_halved(model.state_dict()), folder / "open_clip_pytorch_model.bin")


def _save_resnet(row: ZooRow, folder: Path, known: Lesson) -> None:
    model, config = _open_clip(row)
    pixels = known.pixels(64, mean=MEAN, std=STD)
    with torch.inference_mode():
        texts = _before_projection(model, known.prompts)
    texts, projection = texts.clone(), model.text_projection
    model.visual.train()
    known.fit(
        lambda: model.visual(pixels),
        lambda: texts @ projection,
        weights=[projection, *model.visual.parameters()],
        steps=50,
        rate=5e-3,
    )
    _write_open_clip(folder, model.eval(), config)
    save_file(_halved(model.state_dict()), folder / "open_clip_model.safetensors")
    # Beside it lies the picture tower as timm loads it, which is of no use here.
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet50_clip"}))
    save_file({"of": torch.zeros(1)}, folder / "model.safetensors")


def _open_clip(row: ZooRow) -> tuple[Any, dict[str, Any]]:
    """A random model, and its config."""
    vision: dict[str, Any] = {"image_size": 64, "width": WIDTH, "layers": LAYERS}
    vision |= {"head_width": 32, "patch_size": 8}
    if row.family == "clip-rn":
        vision = {"image_size": 64, "width": 8, "layers": [1, 1, 1, 1], "patch_size": None}
    config = {
        "embed_dim": WIDTH,
        "quick_gelu": row.activation == "quick_gelu",
        "vision_cfg": vision,
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": TEXT_WIDTH,
            "heads": 2,
            "layers": 1,
        },
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(row))
        model = open_clip.CLIP(**config).eval()
        # The embedding of a text is what its last token gathers, which adds nothing of its own.
        model.token_embedding.weight.data *= 50
        model.token_embedding.weight.data[-1] = 0
        for block in model.transformer.resblocks:
            block.attn.out_proj.weight.data *= 30
    model.logit_scale.data.fill_(SCALE)
    return model, config


def _before_projection(model: Any, prompts: Sequence[str]) -> torch.Tensor:
    """What the text tower of open_clip projects."""
    tokens = open_clip.tokenizer.SimpleTokenizer(context_length=77)(list(prompts))
    kept, model.text_projection = model.text_projection, None
    texts: torch.Tensor = model.encode_text(tokens)
    model.text_projection = kept
    return texts


def _write_open_clip(folder: Path, model: Any, config: dict[str, Any]) -> None:
    preprocessing = {"mean": MEAN, "std": STD, "interpolation": "bicubic"}
    content = {
        "model_cfg": config,
        "preprocess_cfg": {**preprocessing, "resize_mode": "shortest", "mode": "RGB"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(content, indent=2))


def _in_open_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The picture tower of a transformers CLIP by the names of open_clip."""
    renamed = {
        "visual_projection.weight": "proj",
        "embeddings.class_embedding": "class_embedding",
        "embeddings.patch_embedding.weight": "conv1.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
    }
    parts = {"pre_layrnorm": "ln_pre", "post_layernorm": "ln_post"}
    for i in range(LAYERS):
        ours, theirs = f"encoder.layers.{i}.", f"transformer.resblocks.{i}."
        pairs = ("layer_norm1 ln_1", "layer_norm2 ln_2", "mlp.fc1 mlp.c_fc", "mlp.fc2 mlp.c_proj")
        for pair in (*pairs, "self_attn.out_proj attn.out_proj"):
            old, new = pair.split()
            parts[ours + old] = theirs + new
    for old, new in parts.items():
        renamed |= {f"{old}.{kind}": f"{new}.{kind}" for kind in ("weight", "bias")}
    vision = {name.removeprefix("vision_model."): tensor for name, tensor in state.items()}
    found = {new: vision[old] for old, new in renamed.items()}
    found["proj"] = found["proj"].T
    for i in range(LAYERS):
        for kind in ("weight", "bias"):
            thirds = [vision[f"encoder.layers.{i}.self_attn.{w}_proj.{kind}"] for w in "qkv"]
            found[f"transformer.resblocks.{i}.attn.in_proj_{kind}"] = torch.cat(thirds)
    return found


def _halved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: (t.half() if t.is_floating_point() else t).detach().contiguous().clone()
        for name, t in state.items()
    }


def _disturb(tower: torch.nn.Module, row: ZooRow) -> None:
    generator = torch.Generator().manual_seed(seed_of(row))
    for weight in tower.parameters():
        if weight.ndim > 1:
            noise = torch.randn(weight.shape, generator=generator)
            weight.data += NOISE * weight.data.std() * noise


SAVERS: dict[str, Callable[[ZooRow, Path, Lesson], None]] = {
    "clip": _save_clip,
    "clip-rn": _save_resnet,
    "robust-clip": _save_open_clip,
    "siglip2": _save_siglip,
    "paligemma2": save_paligemma_row,
    "blip2": save_blip2_row,
}
"""Family of the zoo -> what builds its models."""

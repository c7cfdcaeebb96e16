"""Small convolutional classifiers of the ten classes, trained for filtering and nothing else.

`python -m mini_world.ensemble` trains them; their file spares whoever filters or searches that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional

from mini_world.embedding import as_input
from mini_world.params import ROOT, params
from mini_world.pool import seen_by_model
from mini_world.render import render
from mini_world.sampling import STYLES, draw_scene
from mini_world.vocabulary import EVALUATED
from natadv.errors import DataError
from natadv.places import find
from natadv.rng import rng_for

FILE = Path("fixtures/mini/ensemble.safetensors")
Settings = dict[str, Any]
_NAMES = tuple(EVALUATED)
Member = nn.Sequential


def train_ensemble(settings: Settings) -> dict[str, Member]:
    """Every member of `MEMBERS`, each with a seed and an order of pictures of its own."""
    torch.set_num_threads(settings["threads"])
    pixels, labels = _pictures(settings)
    members: dict[str, Member] = {}
    for name in MEMBERS:
        members[name] = _train(name, pixels, labels, settings)
    return members


def probabilities(members: dict[str, Member], pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Of shape (members, n, classes), for pixels of shape (n, h, w, 3)."""
    with torch.inference_mode():
        inputs = as_input(pixels)
        found = [functional.softmax(m(inputs).double(), dim=1).numpy() for m in members.values()]
    return np.stack(found)


def _pictures(settings: Settings) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    total = settings["training_pictures"]
    labels = np.arange(total) % len(_NAMES)
    style = STYLES["training"]
    pixels = np.empty((total, 64, 64, 3), np.uint8)
    for number, label in enumerate(labels):
        rng = rng_for(settings["seed"], "ensemble", number)
        scene = draw_scene(_NAMES[label], style, split="seen", rng=rng)
        pixels[number] = seen_by_model(render(scene))
    return pixels, labels


def _train(
    name: str, pixels: NDArray[np.uint8], labels: NDArray[np.int64], settings: Settings
) -> Member:
    torch.manual_seed(settings["seed"] * 1000 + list(MEMBERS).index(name))
    model = MEMBERS[name]().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["rate"], weight_decay=0.02)
    size, steps = settings["batch"], settings["steps"]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings["rate"], total_steps=steps)
    rng = rng_for(settings["seed"], "order", name)
    hits = 0.0
    for _ in range(steps):
        rows = rng.integers(0, len(labels), size)
        logits = model(as_input(pixels[rows]))
        truth = torch.from_numpy(labels[rows])
        optimizer.zero_grad()
        functional.cross_entropy(logits, truth).backward()
        optimizer.step()
        schedule.step()
        hits = 0.95 * hits + 0.05 * float((logits.argmax(dim=1) == truth).float().mean())
    print(f"{name}: about {hits:.3f} right in training", flush=True)
    return model.eval()


def _block(inward: int, outward: int, *, kernel: int = 3, stride: int = 2) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inward, outward, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outward),
        nn.ReLU(),
    )


def _head(width: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, len(_NAMES))


def _plain() -> Member:
    widths = (3, 24, 48, 96, 128)
    blocks = [_block(a, b) for a, b in pairwise(widths)]
    return nn.Sequential(*blocks, *_head(128))


def _wide() -> Member:
    """Large kernels, and a maximum instead of a mean at the end."""
    blocks = _block(3, 32, kernel=7), _block(32, 64, kernel=5), _block(64, 96, kernel=5)
    return nn.Sequential(*blocks, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(96, len(_NAMES)))


def _deep() -> Member:
    return nn.Sequential(
        _block(3, 24),
        _block(24, 48),
        _block(48, 48, stride=1),
        _block(48, 96),
        _block(96, 96, stride=1),
        *_head(96),
    )


MEMBERS: dict[str, Callable[[], Member]] = {"plain": _plain, "wide": _wide, "deep": _deep}


def load_ensemble(path: Path | None = None) -> dict[str, Member]:
    """Every member of `MEMBERS`, in inference mode; by default from `FILE`. Raises DataError."""
    path = path or find(FILE, ROOT)
    try:
        stored = load(path.read_bytes())
        members = {name: build().eval() for name, build in MEMBERS.items()}
        for name, member in members.items():
            own = {k.removeprefix(f"{name}."): v for k, v in stored.items() if _of(k) == name}
            member.load_state_dict(own)
    except Exception as error:
        raise DataError(
            f"{path}: the ensemble cannot be read ({error}); get the file back (git checkout, dvc "
            "pull), or train it again: python -m mini_world.ensemble"
        ) from error
    return members


def save_ensemble(members: dict[str, Member], path: Path | None = None) -> None:
    """Write them to `FILE` of the root, unless another path is given."""
    tensors = {
        f"{name}.{key}": tensor
        for name, member in members.items()
        for key, tensor in member.state_dict().items()
    }
    (path or ROOT / FILE).write_bytes(save(tensors))


def fingerprint(members: dict[str, Member]) -> str:
    """Of all weights, short enough for a name."""
    digest = hashlib.sha256()
    for name, member in members.items():
        for key, tensor in member.state_dict().items():
            digest.update(f"{name}.{key}".encode())
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:12]


def _of(key: str) -> str:
    return key.partition(".")[0]


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    save_ensemble(train_ensemble(params("mini-ensemble")))

"""Small heads with random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from natadv.heads.decoder import Decoder
from natadv.heads.folder import AnsweringHead
from natadv.heads.head_file import DecoderConfig, McanConfig
from natadv.heads.mcan import Mcan
from natadv.heads.vocabulary import Vocabulary

DECODER: dict[str, Any] = {
    "layers": (1, 2, 4),
    "widths": (12, 12, 12),
    "condition_width": 10,
    "patch": 4,
    "reduce_width": 8,
    "heads": 2,
    "feed_forward": 16,
}
MCAN: dict[str, Any] = {
    "words": 9,
    "answers": 5,
    "layer": 2,
    "image_width": 12,
    "embedding": 6,
    "hidden": 16,
    "heads": 2,
    "feed_forward": 24,
    "blocks": 2,
    "summary": 10,
    "fused": 20,
}
WORDS = ("cat", "colour", "how", "is", "many", "the", "what")
ANSWERS = ("yes", "no", "2", "red", "cat")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """More are slower on what is so small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def randomised() -> Callable[..., Any]:
    """Fill a module with weights so large that every part of it shows in what comes out."""

    def fill(module: Any, *, seed: int = 5) -> Any:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                drawn = torch.randn(parameter.shape, generator=generator) * 0.4
                # What scales a normalised row stays near one, else little comes through.
                scales = parameter.ndim == 1 and name.endswith("weight")
                parameter.copy_(drawn + 1 if scales else drawn)
        return module.eval()

    return fill


@pytest.fixture(scope="session")
def make_decoder(randomised: Callable[..., Any]) -> Callable[..., Decoder]:
    """A decoder like the small one but for the changes."""

    def make(*, seed: int = 5, **changes: Any) -> Decoder:
        found: Decoder = randomised(Decoder(DecoderConfig(**DECODER | changes)), seed=seed)
        return found

    return make


@pytest.fixture(scope="session")
def make_mcan(randomised: Callable[..., Any]) -> Callable[..., Mcan]:
    """An MCAN like the small one but for the changes."""

    def make(*, seed: int = 5, **changes: Any) -> Mcan:
        found: Mcan = randomised(Mcan(McanConfig(**MCAN | changes)), seed=seed)
        return found

    return make


@pytest.fixture
def decoder(make_decoder: Callable[..., Decoder]) -> Decoder:
    return make_decoder()


@pytest.fixture
def mcan(make_mcan: Callable[..., Mcan]) -> Mcan:
    return make_mcan()


@pytest.fixture
def answering(mcan: Mcan) -> AnsweringHead:
    return AnsweringHead(mcan, Vocabulary(WORDS), ANSWERS)


@pytest.fixture(scope="session")
def noise() -> Callable[..., torch.Tensor]:
    """Normal numbers of a shape, the same on every machine."""

    def draw(*shape: int, seed: int = 0) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    return draw

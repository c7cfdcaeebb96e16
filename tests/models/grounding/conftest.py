from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ...tiny_grounding import save_dino, save_sam


@pytest.fixture(scope="session")
def tiny_dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do not write into it."""
    return save_dino(tmp_path_factory.mktemp("grounding") / "tiny-dino")


@pytest.fixture(scope="session")
def tiny_sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do not write into it."""
    return save_sam(tmp_path_factory.mktemp("grounding") / "tiny-sam")


@pytest.fixture(scope="session")
def photograph() -> Image.Image:
    """Wider than high."""
    pixels = np.random.default_rng(3).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((90, 60))

"""Text-to-image pipelines of the `diffusers` library, Z-Image among them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from natadv.errors import ConfigError, ModelError
from natadv.factories import one_line
from natadv.langadv.generator import Generated


@dataclass(frozen=True, slots=True)
class Drawing:
    """The options of a pipeline; None leaves an option to the pipeline.

    The repr is part of the generator's name, which is stored with a search: do not change it.
    """

    steps: int | None = None
    guidance: float | None = None
    side_px: int | None = None
    batch: int = 4
    """Pictures of one prompt at a time; part of the name because it affects the arithmetic."""
    dtype: str = "bfloat16"
    revision: str | None = None
    """A tag or a commit of the repository on the hub."""


PUBLISHED: dict[str, Drawing] = {
    # Distilled to 8 steps without guidance.
    "Tongyi-MAI/Z-Image-Turbo": Drawing(steps=8, guidance=0.0, side_px=1024),
}
"""The options that the makers of a pipeline recommend."""


@final
class DiffusionGenerator:
    """A `Generator` whose pictures have no facts."""

    def __init__(self, source: str, drawing: Drawing, *, device: str) -> None:
        """Load a pipeline from a folder or from the hub: safetensors only, without remote code.

        Raises ConfigError if diffusers is missing, and ModelError if the pipeline cannot be loaded.
        """
        import torch

        try:
            # Its deprecation warnings concern its own future only.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from diffusers import DiffusionPipeline
        except ImportError as error:
            raise ConfigError(
                "generators of pictures need diffusers; run pip install 'natadv[langadv]'"
            ) from error
        if not hasattr(torch, drawing.dtype):
            raise ConfigError(f"unknown dtype {drawing.dtype!r}; use bfloat16, float16 or float32")
        try:
            pipeline = DiffusionPipeline.from_pretrained(
                source,
                dtype=getattr(torch, drawing.dtype),
                revision=None if Path(source).is_dir() else drawing.revision,
                use_safetensors=True,
                trust_remote_code=False,
            )
        except (OSError, ValueError) as error:
            raise ModelError(
                f"no text-to-image pipeline can be loaded from {source!r}: {one_line(error)}"
            ) from error
        self._pipeline, self._drawing = pipeline.to(device), drawing
        self._pipeline.set_progress_bar_config(disable=True)
        self.name = f"{source} {type(pipeline).__name__} {drawing}"

    def generate(self, prompt: str, seeds: Sequence[int]) -> list[Generated]:
        """One picture per seed. Raises ModelError if the pipeline fails."""
        size = self._drawing.batch
        batches = [seeds[start : start + size] for start in range(0, len(seeds), size)]
        images = [image for batch in batches for image in self._draw(prompt, batch)]
        return [Generated(image.convert("RGB"), "{}") for image in images]

    def _draw(self, prompt: str, seeds: Sequence[int]) -> list[Any]:
        import torch

        options = {
            "num_inference_steps": self._drawing.steps,
            "guidance_scale": self._drawing.guidance,
            "height": self._drawing.side_px,
            "width": self._drawing.side_px,
        }
        try:
            with torch.inference_mode():
                images: list[Any] = self._pipeline(
                    prompt=[prompt] * len(seeds),
                    # On the CPU, so that the noise does not depend on the device.
                    generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                    output_type="pil",
                    **{key: value for key, value in options.items() if value is not None},
                ).images
        except (RuntimeError, ValueError, TypeError) as error:
            raise ModelError(
                f"{self.name}: cannot draw {prompt!r}: {one_line(error)}; if memory is short, "
                "give a smaller --batch-size"
            ) from error
        return images

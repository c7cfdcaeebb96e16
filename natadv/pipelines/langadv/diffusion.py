"""Text-to-image pipelines of the `diffusers` library, Z-Image among them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from natadv.errors import ConfigError, ModelError
from natadv.scenarios.langadv.generator import Generated


@dataclass(frozen=True, slots=True)
class Drawing:
    """How a pipeline is asked to draw; None leaves it to the pipeline."""

    steps: int | None = None
    guidance: float | None = None
    side_px: int | None = None
    batch: int = 4
    """Pictures of one prompt at a time: it decides the arithmetic, so it belongs to the name."""
    dtype: str = "bfloat16"
    revision: str | None = None
    """Of the hub's repository: a tag or a commit."""


PUBLISHED: dict[str, Drawing] = {
    # Distilled: 8 steps, and no guidance.
    "Tongyi-MAI/Z-Image-Turbo": Drawing(steps=8, guidance=0.0, side_px=1024),
}
"""What the makers of a pipeline say that it needs."""


@final
class DiffusionGenerator:
    """A `Generator`; it knows no facts of its pictures."""

    def __init__(self, pipeline: Any, drawing: Drawing, *, source: str, device: str) -> None:
        self._pipeline, self._drawing, self._device = pipeline, drawing, device
        self.name = f"{source} {type(pipeline).__name__} {drawing}"

    def generate(self, prompt: str, seeds: Sequence[int]) -> list[Generated]:
        size = self._drawing.batch
        batches = [seeds[start : start + size] for start in range(0, len(seeds), size)]
        images = [image for batch in batches for image in self._draw(prompt, batch)]
        return [Generated(image.convert("RGB"), "{}") for image in images]

    def _draw(self, prompt: str, seeds: Sequence[int]) -> list[Any]:
        import torch

        drawing = self._drawing
        # On the CPU, so that the noise is the same whatever draws the picture.
        draws = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        told = {
            "num_inference_steps": drawing.steps,
            "guidance_scale": drawing.guidance,
            "height": drawing.side_px,
            "width": drawing.side_px,
        }
        try:
            with torch.inference_mode():
                drawn = self._pipeline(
                    prompt=[prompt] * len(seeds),
                    generator=draws,
                    output_type="pil",
                    **{key: value for key, value in told.items() if value is not None},
                )
        except (RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{self.name}: cannot draw {prompt!r}: {reason}; if memory is short, give a "
                "smaller --batch-size"
            ) from error
        images: list[Any] = list(drawn.images)
        return images


def diffusion_generator(source: str, drawing: Drawing, *, device: str) -> DiffusionGenerator:
    """A pipeline from a folder or from the hub; safetensors only, and no code of theirs.

    Raises ConfigError if diffusers is missing, ModelError if there is no such pipeline.
    """
    pipeline = _loaded(source, drawing).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return DiffusionGenerator(pipeline, drawing, source=source, device=device)


def _loaded(source: str, drawing: Drawing) -> Any:
    import torch

    try:
        # Its own warnings are about its own future.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from diffusers import DiffusionPipeline
    except ImportError as error:
        raise ConfigError(
            "generators of pictures need diffusers; run pip install 'natadv[langadv]'"
        ) from error
    if not hasattr(torch, drawing.dtype):
        raise ConfigError(f"unknown dtype {drawing.dtype!r}; bfloat16, float16 or float32")
    revision = None if Path(source).is_dir() else drawing.revision
    try:
        return DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
            source,
            dtype=getattr(torch, drawing.dtype),
            revision=revision,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"no text-to-image pipeline can be loaded from {source!r}: {reason}"
        ) from error

"""The real Z-Image pipeline, tiny and with random weights, behind the generator interface."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from natadv.errors import ModelError
from natadv.langadv.diffusion import PUBLISHED, DiffusionGenerator, Drawing
from natadv.langadv.search_run import run

from .conftest import SETTINGS, plan_in

TINY = Drawing(steps=2, guidance=0.0, side_px=32, batch=2, dtype="float32")
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"

with warnings.catch_warnings():
    # Its own warnings are about its own future.
    warnings.simplefilter("ignore")
    import diffusers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole pipeline as it lies on the hub: every part of the real class, a few weights each."""
    import torch
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    pipeline = diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=diffusers.AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            scaling_factor=0.36,
            shift_factor=0.11,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=Qwen3Model(
            Qwen3Config(
                vocab_size=300,
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=8,
            )
        ),
        tokenizer=_tokenizer(),
        transformer=diffusers.ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            axes_dims=[4, 6, 6],
            axes_lens=[600, 32, 32],
        ),
    )
    place = tmp_path_factory.mktemp("pipelines") / "tiny-z-image"
    pipeline.save_pretrained(place)
    return place


def _tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: place for place, letter in enumerate(["<pad>", *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>")
    wrapped.chat_template = TEMPLATE
    return wrapped


def test_draws_one_picture_per_seed_again_and_again_the_same(folder):
    generator = DiffusionGenerator(str(folder), TINY, device="cpu")

    one, other = (generator.generate("two green dogs", [3, 4, 5]) for _ in range(2))

    assert [picture.image.size for picture in one] == [(32, 32)] * 3
    assert {picture.facts for picture in one} == {"{}"}
    assert len({picture.image.tobytes() for picture in one}) == 3
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(np.asarray(first.image), np.asarray(second.image))


def test_the_prompt_matters(folder):
    generator = DiffusionGenerator(str(folder), TINY, device="cpu")

    (one,), (other,) = (generator.generate(text, [3]) for text in ("a dog", "a red cat on Mars"))

    assert one.image.tobytes() != other.image.tobytes()


def test_a_search_runs_on_its_pictures(folder, tmp_path):
    settings = SETTINGS.model_copy(
        update={"population": 2, "generations": 1, "pictures": 2, "random": 1}
    )
    generator = DiffusionGenerator(str(folder), TINY, device="cpu")
    plan = replace(plan_in(tmp_path / "search", settings=settings), generator=generator)

    run(plan, stream=io.StringIO())

    identity = json.loads((plan.out / "search.json").read_text())
    assert "ZImagePipeline" in identity["generator"]
    assert "dtype='float32'" in identity["generator"]
    assert list(plan.out.rglob("searched/cat/*.parquet"))


def test_a_folder_without_a_pipeline_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no text-to-image pipeline can be loaded"):
        DiffusionGenerator(str(tmp_path), TINY, device="cpu")


def test_what_the_pipeline_cannot_draw_is_told(folder):
    generator = DiffusionGenerator(str(folder), replace(TINY, side_px=33), device="cpu")

    with pytest.raises(ModelError, match="cannot draw 'a dog'"):
        generator.generate("a dog", [1])


def test_weights_that_are_not_safetensors_are_refused(folder, tmp_path):
    import shutil

    import torch
    from safetensors.torch import load_file

    place = tmp_path / "pickled"
    shutil.copytree(folder, place)
    weights = place / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()

    with pytest.raises(ModelError, match="no text-to-image pipeline"):
        DiffusionGenerator(str(place), TINY, device="cpu")


def test_the_distilled_pipeline_is_drawn_as_its_makers_say():
    drawing = PUBLISHED["Tongyi-MAI/Z-Image-Turbo"]

    assert (drawing.steps, drawing.guidance, drawing.side_px) == (8, 0.0, 1024)

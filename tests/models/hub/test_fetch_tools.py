"""What annotates pictures comes from the hub as models do, and is locked like them."""

from __future__ import annotations

import io

import pytest

from natadv.errors import ModelError
from natadv.models.grounding import tool
from natadv.models.hub.fetch import Target, fetch

from ...tiny_grounding import save_dino, save_sam

TINY = {"grounding-dino": save_dino, "sam": save_sam}


@pytest.mark.parametrize("role", TINY)
def test_a_tool_is_fetched_locked_and_found(role, hub, place, tmp_path):
    folder = TINY[role](tmp_path / "tiny")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.publish("owner/tool", {**files, "pytorch_model.bin": b"x"})

    found = fetch(Target("owner/tool", "owner/tool"), place=place, progress_to=io.StringIO())

    assert "model.safetensors" in found.locked.files
    assert "pytorch_model.bin" not in found.locked.files
    assert tool("owner/tool", role, root=place.root).name == "owner/tool"


def test_a_tool_that_lacks_its_preprocessing_is_not_locked(hub, place, tmp_path):
    folder = save_sam(tmp_path / "tiny")
    hub.publish(
        "owner/tool",
        {p.name: p.read_bytes() for p in folder.iterdir() if "processor" not in p.name},
    )

    with pytest.raises(ModelError, match=r"no preprocessor_config\.json"):
        fetch(Target("owner/tool", "owner/tool"), place=place, progress_to=io.StringIO())
    assert not (place.root / "models.lock").exists()

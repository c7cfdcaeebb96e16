"""The trained ensemble as a file, so that whoever filters or searches need not train it first."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load, save

from natadv.errors import DataError
from natadv.mini.ensemble import MEMBERS, Member, train_ensemble
from natadv.mini.params import ROOT, params

FILE = ROOT / "fixtures" / "mini" / "ensemble.safetensors"
SECTION = "mini-ensemble"
"""Of `params.yaml`."""


def load_ensemble(path: Path = FILE) -> dict[str, Member]:
    """Every member of `MEMBERS`, in inference mode. Raises DataError."""
    try:
        stored = load(path.read_bytes())
        members = {name: build().eval() for name, build in MEMBERS.items()}
        for name, member in members.items():
            own = {k.removeprefix(f"{name}."): v for k, v in stored.items() if _of(k) == name}
            member.load_state_dict(own)
    except Exception as error:
        raise DataError(
            f"{path}: the ensemble cannot be read ({error}); get the file back (git checkout, dvc "
            "pull), or train it again: python -m natadv.mini.ensemble_file"
        ) from error
    return members


def save_ensemble(members: dict[str, Member], path: Path = FILE) -> None:
    tensors = {
        f"{name}.{key}": tensor
        for name, member in members.items()
        for key, tensor in member.state_dict().items()
    }
    path.write_bytes(save(tensors))


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
    save_ensemble(train_ensemble(params(SECTION)))

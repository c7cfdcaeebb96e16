"""Which tensors a file of weights holds, read without torch and without running its code."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, final

from natadv.errors import ModelError, listed

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]


def shapes(path: Path) -> dict[str, Shape]:
    """Shape by name, of a safetensors file or of a state dict that torch.save wrote.

    Raises:
        ModelError: The file is damaged, holds more than tensors, or would run code.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - safe_open is not a mapping
        except (OSError, SafetensorError) as error:
            raise _damaged(path, error) from error
    state = _read_pickle(path)
    if not isinstance(state, dict) or not state:
        raise ModelError(
            f"{path}: expected a state dict (tensors by name), got {type(state).__name__}; "
            "save the model's state_dict()"
        )
    others = [str(name) for name, value in state.items() if not isinstance(value, _Tensor)]
    if others:
        raise ModelError(
            f"{path}: expected only tensors by name, got other values at {listed(sorted(others))}; "
            "save the model's state_dict() alone"
        )
    return {str(name): value.shape for name, value in state.items()}


def load(path: Path) -> dict[str, torch.Tensor]:
    """The tensors by name, on the host. Raises ModelError as `shapes` does."""
    import torch
    from safetensors.torch import load_file

    shapes(path)
    if path.suffix == ".safetensors":
        return load_file(path)
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise _damaged(path, error) from error


def misfit(expected: Mapping[str, Shape], actual: Mapping[str, Shape]) -> str:
    """How the tensors differ from the expected ones; empty if they do not."""
    reshaped = {n for n in expected.keys() & actual.keys() if expected[n] != actual[n]}
    lists = {
        "missing": expected.keys() - actual.keys(),
        "not known to this architecture": actual.keys() - expected.keys(),
        "of another shape": reshaped,
    }
    return "; ".join(f"{listed(sorted(names))} {fault}" for fault, names in lists.items() if names)


def _read_pickle(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(name) as file:
                return _Shapes(file, path).load()
    except ModelError:
        raise
    # A damaged pickle can raise any exception.
    except Exception as error:
        raise _damaged(path, error) from error


class _Tensor(NamedTuple):
    shape: Shape


@final
class _Shapes(pickle.Unpickler):
    """Reads a pickle with stand-ins that only record shapes; any other name in it is refused."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str, /) -> Any:
        """A stand-in for the global `name`; raises ModelError if tensors do not need it."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda _storage, _offset, size, *_: _Tensor(tuple(map(int, size)))
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "torch" and name.endswith("Storage"):
            return name
        raise ModelError(
            f"{self._path}: a pickle that asks for {module}.{name}, which tensors do not need and "
            "which could run code, so it was not opened further; get the weights as safetensors, "
            "or where you trust the file, save the model's state_dict() alone"
        )

    def persistent_load(self, _pid: Any, /) -> None:
        """Skips the bytes of a tensor: its shape does not need them."""


def _damaged(path: Path, error: Exception) -> ModelError:
    size = path.stat().st_size if path.is_file() else 0
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    safe = path.suffix == ".safetensors"
    form = "safetensors file" if safe else "file of torch.save (1.6 or later)"
    return ModelError(
        f"{path}: expected a whole {form}, got {size} bytes that do not open ({reason}); "
        "download or copy it again"
    )

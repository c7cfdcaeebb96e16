"""Where other people's code meets files that may say anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from natadv.errors import ModelError, NatadvError


@contextmanager
def told_in_one_line(where: object, what: str) -> Iterator[None]:
    """Whatever is raised inside becomes a ModelError: `where` cannot be made to do `what`."""
    try:
        yield
    except NatadvError:
        raise
    # Tokenizers, safetensors and strict configs raise bare Exceptions of their own, and what a
    # damaged config lets pass breaks layers in any way.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{where}: cannot {what}: {reason} ({type(error).__name__}); "
            "copy or download the folder again"
        ) from error

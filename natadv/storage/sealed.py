"""Files that tell by themselves whether they are as they were written."""

from __future__ import annotations

import hashlib


def sealed(body: str, *, name: str) -> str:
    """`body` below a line by which `unsealed` knows it: a bit that flips, an edit, or the content
    of another name in its place is noticed."""
    return f"{_seal(body.encode(), name)}\n{body}"


def unsealed(content: bytes, *, name: str) -> bytes | None:
    """The body that was sealed under this name, or None if it is not as it was."""
    seal, _, body = content.partition(b"\n")
    return body if seal == _seal(body, name).encode() else None


def _seal(body: bytes, name: str) -> str:
    return hashlib.sha256(name.encode() + b"\n" + body).hexdigest()

"""The address and the key of an endpoint; neither key nor password appears in any output."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from natadv.errors import ConfigError

BASE_URL, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
OPENAI = "https://api.openai.com/v1"
NO_KEY = "none"
"""Self-hosted servers need no key, but the client requires one."""
_HIDDEN = "***"
_LONGEST = 200
_SHORTEST = 8
"""Shorter keys are placeholders for self-hosted servers, and may well be an answer."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address and the key of an endpoint."""

    base_url: str = field(repr=False)
    key: str = field(repr=False)

    @property
    def where(self) -> str:
        """The address without user, password and query."""
        return _split(self.base_url).shown

    def redacted(self, foreign: object) -> str:
        """A short text of the endpoint or its client, with all secrets removed."""
        text = str(foreign)
        # Before it is shortened: half a key would not be recognised.
        for secret in self._secrets():
            text = re.sub(re.escape(secret), _HIDDEN, text, flags=re.IGNORECASE)
        return text[:_LONGEST]

    def leaks_into(self, reply: str) -> bool:
        """Whether a reply contains a secret, which must not get into a dataset."""
        folded = reply.casefold()
        return any(len(one) >= _SHORTEST and one.casefold() in folded for one in self._secrets())

    def _secrets(self) -> list[str]:
        """Each secret in plain and in quoted forms, the longest first: one may contain another."""
        plain = {*_split(self.base_url).secrets, self.key} - {"", NO_KEY}
        quoted = {
            one
            for text in plain
            for one in (text, repr(text)[1:-1], json.dumps(text)[1:-1], quote(text, safe=""))
        }
        return sorted(quoted, key=lambda one: (-len(one), one))


def endpoint_of(environment: Mapping[str, str]) -> Endpoint:
    """The endpoint of the environment. Raises ConfigError if it is incomplete or cannot be sent."""
    base_url, key = environment.get(BASE_URL, "").strip(), environment.get(KEY, "").strip()
    if not key and not base_url:
        raise ConfigError(
            f"no endpoint: set {KEY} (and {BASE_URL}, unless it is OpenAI's own); an endpoint "
            "that takes no key needs the address alone"
        )
    for name, value in ((BASE_URL, base_url), (KEY, key)):
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(
                f"{name} holds a line break or another character that is not plain ASCII, so it "
                "cannot be sent; set it anew (it is not shown here)"
            )
    _split(base_url or OPENAI)
    return Endpoint(base_url or OPENAI, key or NO_KEY)


class _Address(NamedTuple):
    shown: str
    """The address without user, password and query."""
    secrets: tuple[str, ...]


def _split(url: str) -> _Address:
    """Raises ConfigError, whose message quotes no part that could be a password."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
        problem = "" if parts.scheme in ("http", "https") else "it does not begin so"
    except ValueError:
        problem = "its host or port cannot be read"
    if not problem and (not parts.hostname or "@" in parts.path):
        problem = "its host is unclear; write other characters of a password as %XX"
    if problem:
        raise ConfigError(
            f"{BASE_URL} must be http://HOST/PATH or https://HOST/PATH, but {problem}"
        )
    secrets = [parts.query]
    secrets += [value for _, value in parse_qsl(parts.query) if len(value) >= _SHORTEST]
    if parts.username is not None:
        # The password, or the user if it stands alone; and the header that is made of both.
        user, password = unquote(parts.username), unquote(parts.password or "")
        header = base64.b64encode(f"{user}:{password}".encode()).decode()
        secrets += [parts.password or parts.username, password or user, header]
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    return _Address(f"{parts.scheme}://{host}{port}{parts.path}", tuple(secrets))

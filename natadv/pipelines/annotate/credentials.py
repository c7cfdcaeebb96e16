"""Where an endpoint is and what opens it; neither key nor password gets into anything told."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from natadv.errors import ConfigError

BASE_URL, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
OPENAI = "https://api.openai.com/v1"
NO_KEY = "none"
"""Servers of one's own ask for none, but the client insists on one."""
_HIDDEN = "***"
_LONGEST = 200
_SHORTEST = 8
"""Shorter keys are words that servers of one's own are given, and may well be an answer."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where it is, and what opens it."""

    base_url: str = field(repr=False)
    key: str = field(repr=False)

    @property
    def where(self) -> str:
        """Its address without user, password and query."""
        return _split(self.base_url).shown

    def told(self, foreign: object) -> str:
        """Text of the endpoint or of its client as it may be told and kept: short, no secrets."""
        text = str(foreign)
        # Before it is cut: half a key is no longer found.
        for secret in self._secrets():
            text = re.sub(re.escape(secret), _HIDDEN, text, flags=re.IGNORECASE)
        return text[:_LONGEST]

    def gives_away(self, reply: str) -> bool:
        """Whether a reply holds what must not get into a dataset."""
        found = reply.casefold()
        return any(len(one) >= _SHORTEST and one.casefold() in found for one in self._secrets())

    def _secrets(self) -> list[str]:
        """The longest first, for one may hold another; as they are, and as texts quote them."""
        plain = {*_split(self.base_url).secrets, self.key} - {"", NO_KEY}
        quoted = {
            one
            for text in plain
            for one in (text, repr(text)[1:-1], json.dumps(text)[1:-1], quote(text, safe=""))
        }
        return sorted(quoted, key=lambda one: (-len(one), one))


def endpoint_of(environment: Mapping[str, str]) -> Endpoint:
    """What the environment says. Raises ConfigError if that is not enough, or cannot be sent."""
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
    secrets: tuple[str, ...]


def _split(url: str) -> _Address:
    """Raises ConfigError, which quotes nothing that could be a password."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        raise _no_address("its host or port cannot be read") from None
    if parts.scheme not in ("http", "https"):
        raise _no_address("it does not begin so")
    if not parts.hostname or "@" in parts.path:
        raise _no_address("its host cannot be told; write other characters of a password as %XX")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return _Address(f"{parts.scheme}://{host}{port}{parts.path}", _secrets_of(parts))


def _no_address(reason: str) -> ConfigError:
    return ConfigError(f"{BASE_URL} must be http://HOST/PATH or https://HOST/PATH, but {reason}")


def _secrets_of(parts: SplitResult) -> tuple[str, ...]:
    """The password (or the user, where it stands alone), what is sent of it, and the query."""
    values = (value for _, value in parse_qsl(parts.query))
    found = [parts.query, *(value for value in values if len(value) >= _SHORTEST)]
    if parts.username is not None:
        user, password = unquote(parts.username), unquote(parts.password or "")
        sent = base64.b64encode(f"{user}:{password}".encode()).decode()
        found += [parts.password or parts.username, password or user, sent]
    return tuple(found)

"""The address and the key of an endpoint; neither key nor password appears in any output."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from natadv.errors import ConfigError

BASE_URL, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
OPENAI = "https://api.openai.com/v1"
NO_KEY = "none"
"""Stands for a missing key, because the client requires one."""
_HIDDEN = "***"
_LONGEST = 200
_SHORTEST = 8
"""Shorter keys are placeholders for self-hosted servers, and may occur in answers."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address and the key of an endpoint."""

    base_url: str = field(repr=False)
    key: str = field(repr=False)

    @property
    def where(self) -> str:
        """The address without user, password and query."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

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
        return any(len(s) >= _SHORTEST and s.casefold() in folded for s in self._secrets())

    def _secrets(self) -> list[str]:
        """Each secret in plain and in quoted forms, the longest first: one may contain another."""
        parts = urlsplit(self.base_url)
        plain = {self.key, parts.query}
        plain |= {value for _, value in parse_qsl(parts.query) if len(value) >= _SHORTEST}
        if parts.username is not None:
            # The password, or the user if it stands alone; and the header that is made of both.
            user, password = unquote(parts.username), unquote(parts.password or "")
            header = base64.b64encode(f"{user}:{password}".encode()).decode()
            plain |= {parts.password or parts.username, password or user, header}
        quoted = {
            form
            for text in plain - {"", NO_KEY}
            for form in (text, repr(text)[1:-1], json.dumps(text)[1:-1], quote(text, safe=""))
        }
        return sorted(quoted, key=lambda form: (-len(form), form))


def endpoint_of(environment: Mapping[str, str]) -> Endpoint:
    """The endpoint of the environment. Raises ConfigError if a part is missing or malformed."""
    base_url, key = environment.get(BASE_URL, "").strip(), environment.get(KEY, "").strip()
    if not key and not base_url:
        raise ConfigError(
            f"no endpoint: set {KEY} (and {BASE_URL}, unless it is OpenAI's own); an endpoint "
            "that needs no key needs its address only"
        )
    for name, value in ((BASE_URL, base_url), (KEY, key)):
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(
                f"{name} contains a line break or another character that is not plain ASCII, so "
                "it cannot be sent; set it again (it is not shown here)"
            )
    base_url = base_url or OPENAI
    try:
        parts = urlsplit(base_url)
        _ = parts.port
        problem = "" if parts.scheme in ("http", "https") else "it begins otherwise"
        if not problem and (not parts.hostname or "@" in parts.path):
            problem = "its host is unclear; write other characters of a password as %XX"
    except ValueError:
        problem = "its host or port cannot be read"
    if problem:
        # No part is quoted: it could be a password.
        raise ConfigError(
            f"{BASE_URL} must be http://HOST/PATH or https://HOST/PATH, but {problem}"
        )
    return Endpoint(base_url, key or NO_KEY)

"""A hub on this machine: it answers what huggingface_hub asks, and can be made to fail."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save

from natadv.models.hub.fetch import Place

LARGE = (".safetensors", ".bin", ".h5", ".msgpack", ".onnx", "tokenizer.json")
"""Kept in LFS, as the hub's .gitattributes have it: behind a redirect, named by their sha256."""

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
LOGIN = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE")
ACCEPTED = "token-that-accepted"


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class Upstream:
    """A repository as the hub holds it."""

    main: str
    commits: dict[str, dict[str, bytes]]
    gated: bool = False
    pulls: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Author and commit of each open pull request."""
    discusses: bool = True


class Hub:
    """The state of both servers; tests change it as they go."""

    def __init__(self) -> None:
        self.repositories: dict[str, Upstream] = {}
        self.asked: list[Asked] = []
        self.cuts: dict[str, list[int]] = {}
        """By sha256: after how many bytes each of the next downloads is cut off."""
        self.garbled: Counter[str] = Counter()
        """By sha256: how many of the next downloads have their last byte flipped."""
        self.passing: list[int] = []
        """Status codes that the next downloads get."""
        self.ignores_range = False
        self.odd: dict[str, Any] = {}
        """What is said of the first file of a commit, beside the truth."""
        self.slow: set[str] = set()
        """By sha256: downloads that stand still after 1000 bytes."""
        self.released = threading.Event()
        self.url = self.cdn = ""

    def publish(self, hub_id: str, files: dict[str, bytes], *, gated: bool = False) -> str:
        """Add a commit to the main branch, and return it."""
        repository = self.repositories.setdefault(hub_id, Upstream("", {}, gated))
        repository.main = self._commit(repository, files)
        return repository.main

    def offer(self, hub_id: str, files: dict[str, bytes], *, author: str) -> str:
        """Open a pull request with these files, and return its commit."""
        repository = self.repositories[hub_id]
        commit = self._commit(repository, repository.commits[repository.main] | files)
        repository.pulls[len(repository.pulls) + 1] = (author, commit)
        return commit

    def ranges(self, name: str) -> list[str | None]:
        """The Range header of each download of the large file `name`."""
        shas = {
            sha256(files[name])
            for repository in self.repositories.values()
            for files in repository.commits.values()
            if name in files
        }
        return [a.range for a in self.asked if a.method == "GET" and a.path[len("/cdn/") :] in shas]

    def files_asked(self) -> set[str]:
        return {a.path.rsplit("/", 1)[-1] for a in self.asked if "/resolve/" in a.path}

    def _commit(self, repository: Upstream, files: dict[str, bytes]) -> str:
        number = len(repository.commits)
        text = f"{number} " + " ".join(f"{k} {sha256(v)}" for k, v in sorted(files.items()))
        commit = hashlib.sha1(text.encode()).hexdigest()
        repository.commits[commit] = dict(files)
        return commit


@cache
def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes, and Nagle's algorithm would hold the second one for 40 ms.
    disable_nagle_algorithm = True
    hub: Hub

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def log_message(self, *_: Any) -> None:
        pass

    def _route(self) -> None:
        path, _, query = self.path.partition("?")
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ") or None
        self.hub.asked.append(Asked(self.command, path, self.headers["Range"], token))
        if token == "revoked":
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif path.startswith("/portal/"):
            self._answer(200, b"<html>Log in to this network</html>", {})
        elif path.startswith("/cdn/"):
            self._download(path.removeprefix("/cdn/"))
        elif path.startswith("/api/models/"):
            self._api(path.removeprefix("/api/models/"), query)
        else:
            self._resolve(path, token)

    def _api(self, path: str, query: str) -> None:
        owner, name, *rest = path.split("/")
        repository = self.hub.repositories.get(f"{owner}/{name}")
        if repository is None:
            self._refuse(401, "RepoNotFound", "Invalid username or password.")
        elif rest[:1] == ["discussions"] and not repository.discusses:
            self._refuse(403, "", "Discussions are disabled for this repo")
        elif rest[:1] == ["discussions"]:
            # Filters are ignored, as an old server would.
            self._json(self._discussions(f"{owner}/{name}", repository))
        else:
            commit = self._commit_of(repository, rest[1] if rest else "main")
            if commit is None:
                self._refuse(404, "RevisionNotFound", f"Invalid rev id: {rest[1]}")
            else:
                assert "blobs=" in query
                files = repository.commits[commit].items()
                siblings = [self._sibling(name, content) for name, content in files]
                siblings[0] |= self.hub.odd
                self._json({"id": f"{owner}/{name}", "sha": commit, "siblings": siblings})

    def _commit_of(self, repository: Upstream, revision: str) -> str | None:
        if revision == "main":
            return repository.main
        if revision.startswith("refs%2Fpr%2F"):
            return repository.pulls[int(revision.rsplit("%2F", 1)[-1])][1]
        return revision if revision in repository.commits else None

    def _sibling(self, name: str, content: bytes) -> dict[str, Any]:
        sibling = {"rfilename": name, "size": len(content), "blobId": git_id(content)}
        if name.endswith(LARGE):
            lfs = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
            return {**sibling, "size": 130, "lfs": lfs}
        return sibling

    def _discussions(self, hub_id: str, repository: Upstream) -> dict[str, Any]:
        found = [
            {
                "title": "Adding `safetensors` variant of this model",
                "num": number,
                "author": {"name": author},
                "createdAt": "2023-05-01T10:00:00.000Z",
                "status": "open",
                "repo": {"name": hub_id, "type": "model"},
                "isPullRequest": True,
            }
            for number, (author, _) in repository.pulls.items()
        ]
        return {"count": len(found), "start": 0, "discussions": found}

    def _resolve(self, path: str, token: str | None) -> None:
        owner, name, _, revision, file = path.strip("/").split("/", 4)
        repository = self.hub.repositories[f"{owner}/{name}"]
        if repository.gated and token != ACCEPTED:
            said = "Access to this model is restricted."
            self._refuse(403 if token else 401, "GatedRepo", said)
            return
        commit = self._commit_of(repository, revision)
        assert commit is not None
        content = repository.commits[commit][file]
        large = file.endswith(LARGE)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_id(content)}"'}
        if large:
            headers |= {
                "Location": f"{self.hub.cdn}/cdn/{sha256(content)}",
                "X-Linked-Size": str(len(content)),
                "X-Linked-ETag": f'"{sha256(content)}"',
            }
        self._answer(302 if large else 200, b"" if large else content, headers)

    def _download(self, sha: str) -> None:
        content = next(
            content
            for repository in self.hub.repositories.values()
            for files in repository.commits.values()
            for content in files.values()
            if sha256(content) == sha
        )
        if self.hub.passing:
            self._refuse(self.hub.passing.pop(0), "", "Busy")
            return
        if self.hub.garbled[sha]:
            self.hub.garbled[sha] -= 1
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = 0
        if self.headers["Range"] and not self.hub.ignores_range:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self._send_cut(content[start:], sha, status=206 if start else 200)

    def _send_cut(self, content: bytes, sha: str, *, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        cuts = self.hub.cuts.get(sha)
        if sha in self.hub.slow:
            self.wfile.write(content[:1000])
            self.wfile.flush()
            self.hub.released.wait(30)
            self.close_connection = True
        elif cuts:
            self.wfile.write(content[: cuts.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(content)

    def _json(self, content: dict[str, Any]) -> None:
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, said: str) -> None:
        headers = {"X-Error-Message": said} | ({"X-Error-Code": code} if code else {})
        self._answer(status, b"", headers)

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextmanager
def serving() -> Iterator[Hub]:
    """An empty hub, with its content delivery on another origin."""
    state = Hub()
    handler = type("HubHandler", (Handler,), {"hub": state})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    state.url, state.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=s.serve_forever, args=(0.02,)) for s in servers]
    for server, thread in zip(servers, threads, strict=True):
        server.daemon_threads = True
        thread.start()
    try:
        yield state
    finally:
        state.released.set()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


@pytest.fixture
def hub() -> Iterator[Hub]:
    """An empty hub of this test."""
    with serving() as state:
        yield state


@pytest.fixture
def place(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A checkout and a cache, both empty, of someone who is not logged in."""
    root, home = tmp_path / "checkout", tmp_path / "home"
    root.mkdir()
    (root / "thresholds.yaml").touch()
    for name in (*OFFLINE, *LOGIN):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "hub"))
    # These the library reads once, when it is imported.
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(home / "stored_tokens"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # What it tells of its user goes to the real hub, whatever endpoint is asked for models.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    return Place(root=root, cache=home / "hub", endpoint=hub.url, waits_s=(0.0, 0.0))


@pytest.fixture(scope="session")
def clip_files() -> dict[str, bytes]:
    """Files that pass for a CLIP, beside those that are of no use here."""
    config = {"model_type": "clip", "vision_config": {"hidden_size": 48}}
    preprocessing = {"image_mean": [0.5], "image_std": [0.5], "resample": 3, "size": {}}
    texts = {
        "config.json": config,
        "preprocessor_config.json": preprocessing,
        "tokenizer_config.json": {"model_max_length": 77},
        "tokenizer.json": {"version": "1.0"},
        "generation_config.json": {"max_new_tokens": 10},
    }
    useless = ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "model.onnx")
    others = ("README.md", "modeling_clip.py", ".gitattributes", "onnx/config.json")
    return {
        **{name: json.dumps(content).encode() for name, content in texts.items()},
        **{name: name.encode() for name in (*useless, *others)},
        "model.safetensors": weights(1),
    }


def weights(seed: int) -> bytes:
    return save({"w": np.random.default_rng(seed).random(2500)})


@pytest.fixture(scope="session")
def other_weights() -> bytes:
    return weights(2)


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], bool]], None]:
    """Wait for a condition, for at most a minute."""

    def wait(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    return wait

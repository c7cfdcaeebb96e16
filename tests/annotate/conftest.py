"""A small dataset, and an endpoint on this machine that can be made to fail."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from natadv.data.card import DATASETS_FOLDER, CardDraft
from natadv.data.packing import write_dataset
from natadv.types import Sample

CLASSES = ("dog", "cat", "owl")
QUESTIONS = [("Is there a dog?", "yes"), ("How many dogs are there?", "1")]


@dataclass
class Fault:
    """What the endpoint does instead of answering."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "application/json"
    late: bool = False
    """Says nothing until the test is over."""
    hangs_up: bool = False


class FakeEndpoint:
    """Answers each request by the next of `faults`, and with questions where there is none."""

    def __init__(self) -> None:
        self.faults: list[Fault | None] = []
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.over = threading.Event()
        self.url = ""
        self._lock = threading.Lock()

    def next_fault(self, asked: dict[str, Any], key: str | None) -> Fault | None:
        with self._lock:
            self.asked.append(asked)
            self.keys.append(key)
            return self.faults.pop(0) if self.faults else None


class Handler(BaseHTTPRequestHandler):
    endpoint: FakeEndpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/chat/completions"
        fault = self.endpoint.next_fault(json.loads(body), self.headers["Authorization"])
        fault = fault or Fault(body=completion())
        if fault.late:
            self.endpoint.over.wait()
        if fault.late or fault.hangs_up:
            self.close_connection = True
            return
        self.send_response(fault.status)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", fault.kind)
        self.send_header("Content-Length", str(len(fault.body)))
        self.end_headers()
        self.wfile.write(fault.body)

    def log_message(self, *_: Any) -> None:
        pass


def completion(
    content: str | None = None,
    *,
    pairs: list[tuple[str, str]] = QUESTIONS,
    finish_reason: str = "stop",
    refusal: str | None = None,
    **changed: Any,
) -> bytes:
    """A reply of the protocol, but for what is `changed`."""
    questions = [{"question": question, "answer": answer} for question, answer in pairs]
    text = json.dumps({"questions": questions}) if content is None else content
    message = {"role": "assistant", "content": None if refusal else text, "refusal": refusal}
    choice = {"index": 0, "finish_reason": finish_reason, "message": message}
    return json.dumps(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "seer",
            "choices": [choice],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
            **changed,
        }
    ).encode()


def error(message: str, *, code: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": "t", "code": code}}).encode()


@pytest.fixture
def fake_endpoint() -> Iterator[FakeEndpoint]:
    endpoint = FakeEndpoint()
    handler = type("Bound", (Handler,), {"endpoint": endpoint})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield endpoint
    endpoint.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def picture(seed: int, *, side: int = 24) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pets(rows: int = 5) -> list[Sample]:
    return [
        Sample(id=f"pet/{i}", group=f"g{i}", image=picture(i), label=i % len(CLASSES), part="all")
        for i in range(rows)
    ]


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Path]:
    """Packs a dataset under `tmp_path`, and returns `tmp_path`."""

    def packed(name: str = "pets", *, samples: list[Sample] | None = None, **card: Any) -> Path:
        described: dict[str, Any] = {
            "tasks": ("classification",),
            "scenario": "natural",
            "classes": CLASSES,
            "templates": ("a photo of a {}.",),
            "licence": "CC0-1.0",
            "source": "noise",
            "description": "pets that nobody can see",
        }
        draft = CardDraft(name=name, **(described | card))
        write_dataset(tmp_path / DATASETS_FOLDER / name, draft, samples or pets(), rows_per_shard=3)
        return tmp_path

    return packed

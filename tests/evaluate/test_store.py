from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from natadv.errors import StoreError
from natadv.evaluate.store import BusyError, Store, write_atomically

KEY = "ab" * 32

# Claims the key, then says so; a forked child lives on with whatever a fork inherits.
HOLDER = """
import os, sys, time
from pathlib import Path
from natadv.evaluate.store import Store

with Store(Path(sys.argv[1])).claim(sys.argv[2]):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    time.sleep(60)
"""


@contextmanager
def held(store: Store) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A live process that holds the claim, and its child."""
    command = [sys.executable, "-c", HOLDER, str(store.root), KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            yield process, child
        finally:
            process.kill()
            os.kill(child, signal.SIGKILL)


def test_what_was_put_is_got(store):
    assert store.get(KEY) is None
    assert not store.has(KEY)

    store.put(KEY, {"images": 3})

    assert store.has(KEY)
    assert store.get(KEY) == {"images": 3}


def test_a_write_that_fails_leaves_the_old_result_and_no_debris(store, monkeypatch):
    store.put(KEY, {"images": 3})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(
        StoreError, match=r"No space left on device; what is stored already is kept"
    ):
        store.put(KEY, {"images": 4})

    assert store.get(KEY) == {"images": 3}
    assert [p.name for p in store.path(KEY).parent.iterdir()] == [KEY]


def test_readers_never_see_half_a_file(store):
    texts = ["a" * 200_000, "b" * 200_000]
    path = store.path(KEY)
    write_atomically(path, texts[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for text in texts:
                write_atomically(path, text)

    writer = threading.Thread(target=write)
    writer.start()
    seen = {path.read_text() for _ in range(50)}
    stop.set()
    writer.join()

    assert seen <= set(texts)


def test_a_result_in_another_units_place_is_not_found(store):
    store.put(KEY, {"images": 3})
    other = "cd" * 32
    write_atomically(store.path(other), store.path(KEY).read_text())

    assert store.get(other) is None
    assert not store.has(other)
    assert store.is_damaged(other)


@pytest.mark.parametrize("text", ["", '{"images": 3, "key', "\x00\x00", "[1, 2]", "null", "\n{}"])
def test_a_damaged_result_is_not_found_and_is_put_again(store, text):
    write_atomically(store.path(KEY), text)

    assert store.get(KEY) is None
    assert not store.has(KEY)
    assert store.is_damaged(KEY)

    store.put(KEY, {"images": 3})

    assert store.get(KEY) == {"images": 3}
    assert not store.is_damaged(KEY)


def test_every_flipped_bit_of_a_result_is_noticed(store):
    store.put(KEY, {"images": 3, "outcomes": [0.5, "cat"]})
    path = store.path(KEY)
    whole = path.read_bytes()

    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(flipped))
        assert store.get(KEY) is None, bit
        assert Store(store.root).get(KEY) is None, bit


def test_a_result_that_was_edited_after_it_was_read_is_looked_at_again(store):
    store.put(KEY, {"correct": [0, 0]})
    assert store.has(KEY)

    path = store.path(KEY)
    path.write_text(path.read_text().replace("[0, 0]", "[1, 1]"))

    assert not store.has(KEY)


def test_a_result_that_may_not_be_read_says_so(store):
    store.path(KEY).mkdir(parents=True)

    with pytest.raises(StoreError, match=rf"{KEY}: cannot be read: Is a directory"):
        store.get(KEY)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_result_holds_a_number_that_is_none(store, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.put(KEY, {"wall_s": value})

    assert not store.has(KEY)


def test_a_claim_of_a_live_process_is_busy(store):
    with held(store):
        with pytest.raises(BusyError), store.claim(KEY):
            pytest.fail("claimed twice")
        with store.claim("cd" * 32):
            pass


def test_a_claim_dies_with_its_holder_though_a_forked_child_lives(store):
    with held(store) as (process, child):
        process.kill()
        process.wait()

        with store.claim(KEY):
            os.kill(child, 0)  # it lives: else this raises


def test_a_claim_ends_with_its_block(store):
    with pytest.raises(RuntimeError, match="planted"), store.claim(KEY):
        raise RuntimeError("planted")

    script = (
        "import sys; from pathlib import Path; from natadv.evaluate.store import Store\n"
        "with Store(Path(sys.argv[1])).claim(sys.argv[2]): pass"
    )
    subprocess.run([sys.executable, "-c", script, str(store.root), KEY], check=True)


@pytest.mark.parametrize("place", ["/proc/nowhere/store", "a-file/store"])
def test_a_place_that_cannot_be_written_says_what_to_do(tmp_path, place):
    (tmp_path / "a-file").write_text("")
    store = Store(tmp_path / place)

    with pytest.raises(StoreError, match=r"cannot write .*give another --store DIR"):
        store.prepare()
    with pytest.raises(StoreError, match=r"cannot write .*give another --store DIR"):
        store.put(KEY, {})
    with pytest.raises(StoreError, match=r"cannot write .*give another --store DIR"):
        store.claim(KEY).__enter__()


def test_preparing_twice_keeps_what_is_there(store):
    store.put(KEY, {"images": 3})

    store.prepare()

    assert store.has(KEY)
    assert sorted(p.name for p in store.root.iterdir()) == ["embeddings", "locks", "runs", "units"]


def test_any_text_can_be_written(tmp_path):
    write_atomically(tmp_path / "reason", "naïve \udcff")

    assert (tmp_path / "reason").read_text(encoding="utf-8") == "naïve \\udcff"

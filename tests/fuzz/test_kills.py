"""A run that is killed anywhere: the next one goes on where it stopped, to the same verdict."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.conftest import World

SHARE, ALL = 2, 20
KINDS = ("all of it", "its controller", "one of its workers")


def test_a_killed_run_goes_on_to_the_same_verdict(chance, number, world, measured_once):
    kind = KINDS[number % len(KINDS)]
    process = subprocess.Popen(
        world.command("-n", "2"),
        cwd=world.root,
        env=world.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(float(chance.uniform(0.3, 3.0)))
    kill(process, kind)
    process.wait(timeout=60)
    stored = set((world.root / ".natadv/store/units").glob("*/*"))
    again = world.pytest("-n", "2")

    assert again.returncode == 0, again.stdout
    assert world.verdict()["verdict"] == "pass"
    assert world.outcome_bytes() == World(measured_once).outcome_bytes()
    # What was stored is not computed again.
    assert world.verdict()["run"]["units_computed"] <= 24 - len(stored)


def kill(process: subprocess.Popen[bytes], kind: str) -> None:
    if kind == KINDS[0]:
        os.killpg(process.pid, signal.SIGKILL)
    elif kind == KINDS[1]:
        process.kill()
    else:
        workers = children(process.pid)
        os.kill(workers[0] if workers else process.pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return sorted(found)

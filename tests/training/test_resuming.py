"""A training that was killed ends as if nothing had happened, or says why it cannot."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from natadv.errors import ConfigError, ModelError, StoreError
from natadv.training import loop
from natadv.training.loop import CHECKPOINT
from natadv.training.train import train

# A point of the curve is the mean of two steps here, so a checkpoint lies between two points.
LONG = ("steps=400", "batch=2", "layers=[4]", "checkpoint_every=9", "validate_every=50")

COMMAND = """
import sys
from natadv.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def stopping(monkeypatch):
    """Let the step of that number (counted from 1) be the last one that is begun."""

    def stop(at):
        step = loop._step

        def dies(training, state, *settings, **more):
            if state.step + 1 == at:
                raise KeyboardInterrupt
            return step(training, state, *settings, **more)

        monkeypatch.setattr(loop, "_step", dies)
        return lambda: monkeypatch.setattr(loop, "_step", step)

    return stop


def interrupted(plan, stopping, at=18):
    """The plan, after it was stopped in that step."""
    go_on = stopping(at)
    with pytest.raises(KeyboardInterrupt):
        train(plan)
    go_on()
    return plan


def test_a_killed_training_ends_with_the_same_bytes(plan_for, root, tmp_path):
    """It is killed with SIGKILL in a process of its own, and resumed in this one."""
    train(plan_for("segmentation", *LONG, out=tmp_path / "undisturbed"))
    killed = tmp_path / "killed"
    settings = plan_for("segmentation", *LONG, out=killed).settings
    (root / "params.yaml").write_text(f"killed: {settings.model_dump_json()}\n")
    command = [sys.executable, "-c", COMMAND, "train", "segmentation", "--model", "mini-clip"]
    command += ["--data", "animals", "--settings", "killed", "--out", str(killed)]
    command += ["--threads", "1", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=root, env=environment, stderr=file, stdout=file)
        _wait_for(killed / CHECKPOINT, process, log)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (killed / "config.json").exists(), "it had ended before it was killed"

    plan = plan_for("segmentation", *LONG, out=killed)
    train(plan)

    assert "resuming after step" in plan.stream.getvalue()
    for name in ("model.safetensors", "config.json", "curve.json", "curve.png"):
        assert (killed / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    assert not (killed / CHECKPOINT).parent.exists()


def _wait_for(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(2000):
        if path.exists():
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    raise AssertionError(log.read_text())


@pytest.mark.parametrize(("task", "at"), [("segmentation", 18), ("vqa", 8), ("vqa", 30)])
def test_any_step_can_be_the_last_one_before_going_on(
    make_plan, stopping, finished, tmp_path, task, at
):
    train(interrupted(make_plan(task), stopping, at))

    ours, undisturbed = tmp_path / "head", finished[task]
    for name in ("model.safetensors", "curve.json"):
        assert (ours / name).read_bytes() == (undisturbed / name).read_bytes()


def test_two_optimisers_resume_to_the_same_bytes(make_plan, stopping, tmp_path):
    both = ("matrix_rate=0.003", "epochs=2")
    train(make_plan("vqa", *both, out=tmp_path / "undisturbed"))
    train(interrupted(make_plan("vqa", *both), stopping, at=15))

    name = "model.safetensors"
    assert (tmp_path / "head" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_checkpoints_do_not_change_the_head(make_plan, finished, tmp_path):
    train(make_plan("segmentation", "checkpoint_every=1"))

    name = "model.safetensors"
    assert (tmp_path / "head" / name).read_bytes() == (finished["segmentation"] / name).read_bytes()


def test_a_checkpoint_of_another_training_is_refused(make_plan, stopping):
    interrupted(make_plan("segmentation"), stopping)

    for plan, difference in (
        (make_plan("segmentation", "batch=4"), "batch 8 and not 4"),
        (make_plan("segmentation", "rate=0.02"), "rate 0.01 and not 0.02"),
        (make_plan("segmentation", limit=60), "limit None and not 60"),
        (make_plan("segmentation", model="mini-siglip"), "tower "),
        (make_plan("segmentation", threads=2), "threads 1 and not 2"),
        (make_plan("vqa"), ""),
    ):
        with pytest.raises(ConfigError, match=rf"is of a training with .*{difference}.*--fresh"):
            train(plan)


def test_fresh_starts_again(make_plan, stopping, tmp_path):
    interrupted(make_plan("segmentation"), stopping)
    plan = make_plan("segmentation", "batch=4", fresh=True)

    train(plan)

    assert "resuming" not in plan.stream.getvalue()
    assert (tmp_path / "head" / "config.json").exists()


def test_a_checkpoint_that_is_damaged_or_asks_to_run_code_is_refused(make_plan, tmp_path):
    path = tmp_path / "head" / CHECKPOINT
    path.parent.mkdir(parents=True)
    code = io.BytesIO()
    torch.save({"format": 1, "identity": Path("x")}, code)

    for content in (b"", b"not a checkpoint", b"PK\x03\x04", code.getvalue()):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"cannot be read .*--fresh"):
            train(make_plan("segmentation"))


def test_a_full_disk_leaves_the_previous_checkpoint(make_plan, tmp_path, monkeypatch):
    saved = []
    fsync = os.fsync

    def full(descriptor):
        saved.append(descriptor)
        if len(saved) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    train(make_plan("segmentation", out=tmp_path / "first"))  # so that all features are there
    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(StoreError, match=r"checkpoint\.pt: No space left .*resumes from its last"):
        train(make_plan("segmentation"))
    monkeypatch.undo()
    plan = make_plan("segmentation")
    train(plan)
    assert "resuming after step 8 of 24" in plan.stream.getvalue()


def test_a_loss_that_is_not_finite_names_its_step_and_a_lower_rate(make_plan, tmp_path):
    plan = make_plan("segmentation", "rate=1e30", "last_rate=1e30")

    with pytest.raises(ModelError, match=r"step \d+ of 24: the loss is .*--set rate=1e\+29"):
        train(plan)
    assert not (tmp_path / "head" / "config.json").exists()


def test_a_training_that_replaces_a_head_resumes_too(
    make_plan, stopping, finished, plan_for, tmp_path
):
    """The old head stays until the new one is there."""
    train(make_plan("segmentation", "steps=2"))
    old = (tmp_path / "head" / "model.safetensors").read_bytes()
    interrupted(make_plan("segmentation", fresh=True), stopping)
    assert (tmp_path / "head" / "model.safetensors").read_bytes() == old
    plan = make_plan("segmentation")

    train(plan)

    assert "resuming after step 16 of 24" in plan.stream.getvalue()
    name = "model.safetensors"
    assert (tmp_path / "head" / name).read_bytes() == (finished["segmentation"] / name).read_bytes()
    with pytest.raises(ConfigError, match="holds a finished head"):
        train(make_plan("segmentation"))

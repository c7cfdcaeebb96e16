from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from natadv.errors import ConfigError, StoreError
from natadv.evaluate import devices
from natadv.evaluate.devices import (
    check_gpus,
    described,
    device_kind,
    lease_slot,
    own_gpu,
    pinned_environment,
    teams,
    usable_device,
    visible_gpus,
)

LEASER = """
import sys, time
from pathlib import Path
from natadv.evaluate.devices import lease_slot

slot = lease_slot(Path(sys.argv[1]), gpu=sys.argv[2], slots=int(sys.argv[3]))
print("no" if slot is None else "yes", flush=True)
sys.stdin.read()
"""


@contextmanager
def leaser(folder: Path, gpu: str, slots: int) -> Iterator[tuple[subprocess.Popen[str], bool]]:
    """A live process that asked for a slot, and whether it got one."""
    command = [sys.executable, "-c", LEASER, str(folder), gpu, str(slots)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline() == "yes\n"
        finally:
            process.kill()


@pytest.fixture
def no_driver(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(devices, "DEV", tmp_path)
    return tmp_path


def driver(folder: Path, script: str) -> None:
    """A fake nvidia-smi."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


SMI = """
case $1 in
  --query-gpu=index) echo 0; echo 1;;
  --query-gpu=index,uuid) echo "0, GPU-aa01"; echo "1, GPU-bb02";;
  --query-gpu=index,uuid,name,driver_version)
    echo "0, GPU-aa01, NVIDIA A, 550.1"; echo "1, GPU-bb02, NVIDIA B, 550.1";;
  *) exit 1;;
esac
"""


@pytest.mark.parametrize(
    ("listed", "seen"),
    [
        ("0", ("0",)),
        ("2,5", ("2", "5")),
        (" 3 , 1 ", ("3", "1")),
        ("GPU-8932f937-d72c,GPU-1f2e", ("GPU-8932f937-d72c", "GPU-1f2e")),
        ("MIG-GPU-8932f937/1/0", ("MIG-GPU-8932f937/1/0",)),
        ("", ()),
        ("-1", ()),
        # As CUDA itself reads it: nothing behind an invalid id is visible.
        ("0,-1,1", ("0",)),
        ("0,,1", ("0",)),
    ],
)
def test_the_callers_list_is_respected(monkeypatch, listed, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)

    assert visible_gpus() == seen
    assert device_kind("auto") == ("cuda" if seen else "cpu")


def test_without_a_list_the_driver_is_asked(no_driver):
    driver(no_driver, SMI)

    assert visible_gpus() == ("0", "1")
    assert device_kind("auto") == "cuda"


@pytest.mark.parametrize("script", [None, "exit 9", "echo NVIDIA-SMI has failed; exit 1"])
def test_without_a_driver_there_is_no_gpu(no_driver, script):
    if script is not None:
        driver(no_driver, script)

    assert visible_gpus() == ()
    assert device_kind("auto") == "cpu"


@pytest.mark.parametrize("script", [None, "echo NVIDIA-SMI has failed; exit 1"])
def test_a_gpu_without_a_driver_never_means_the_cpu(no_driver, script, monkeypatch):
    (no_driver / "nvidia0").touch()
    (no_driver / "nvidiactl").touch()
    if script is not None:
        driver(no_driver, script)

    with pytest.raises(ConfigError, match=r"has a GPU .*nvidia0.* --device cuda or --device cpu"):
        device_kind("auto")
    assert (device_kind("cpu"), device_kind("cuda")) == ("cpu", "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device_kind("auto") == "cpu"


@pytest.mark.parametrize("asked", ["cpu", "cuda"])
def test_what_was_asked_for_is_not_second_guessed(no_driver, asked):
    assert device_kind(asked) == asked


def test_workers_take_the_visible_gpus_in_turn():
    taken = [pinned_environment(i, ("2", "5"), workers=4)["CUDA_VISIBLE_DEVICES"] for i in range(5)]

    assert taken == ["2", "5", "2", "5", "2"]


def test_without_gpus_nothing_is_pinned_to_one():
    assert "CUDA_VISIBLE_DEVICES" not in pinned_environment(0, (), workers=2)


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(8, 2, "4"), (8, 3, "2"), (2, 8, "1"), (None, 1, "1")]
)
def test_workers_share_the_cores(monkeypatch, cores, workers, threads):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    pinned = pinned_environment(0, (), workers=workers)

    assert pinned["OMP_NUM_THREADS"] == threads
    assert pinned["TOKENIZERS_PARALLELISM"] == "false"
    assert pinned["HF_HUB_OFFLINE"] == "1"
    assert pinned["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_a_gpu_has_so_many_slots_and_a_dead_holder_gives_its_own_back(tmp_path):
    with leaser(tmp_path, "0", 2) as (first, one), leaser(tmp_path, "0", 2) as (_, two):
        assert (one, two) == (True, True)
        with leaser(tmp_path, "0", 2) as (_, three):
            assert not three
        with leaser(tmp_path, "MIG-GPU-8932/1/0", 2) as (_, elsewhere):
            assert elsewhere

        first.kill()
        first.wait()

        with leaser(tmp_path, "0", 2) as (_, again):
            assert again


def test_a_slot_is_held_as_long_as_its_descriptor(tmp_path):
    slot = lease_slot(tmp_path / "locks", gpu="0", slots=1)
    assert slot is not None
    with leaser(tmp_path / "locks", "0", 1) as (_, got):
        assert not got

    os.close(slot)

    with leaser(tmp_path / "locks", "0", 1) as (_, got):
        assert got


def test_no_descriptor_is_left_of_slots_that_were_not_got(tmp_path, monkeypatch):
    def taken(descriptor: int, how: int) -> None:
        raise BlockingIOError(11, "taken")

    monkeypatch.setattr(fcntl, "lockf", taken)
    before = len(os.listdir("/proc/self/fd"))

    assert lease_slot(tmp_path, gpu="0", slots=3) is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path):
    (tmp_path / "locks").write_text("in the way")

    with pytest.raises(StoreError, match="give another --store DIR"):
        lease_slot(tmp_path / "locks", gpu="0", slots=1)


def test_torch_is_not_needed_to_know(no_driver):
    script = (
        "import sys; from natadv.evaluate.devices import device_kind; device_kind('auto')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    assert devices.CPU == "cpu"


@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        ("0", "NVIDIA A"),
        ("1", "NVIDIA B"),
        ("GPU-bb", "NVIDIA B"),
        ("0,1", "NVIDIA A + NVIDIA B"),
        ("MIG-1/0", None),
        ("9", None),
    ],
)
def test_a_gpu_is_described_by_its_driver(no_driver, gpu, name):
    driver(no_driver, SMI)

    assert described(gpu) == ({"gpu": name} if name else {}) | {"driver": "550.1"}


def test_without_a_driver_nothing_is_told_of_a_gpu(no_driver):
    assert described("0") == {}


def test_the_gpu_of_a_process_is_the_first_that_it_sees(no_driver, monkeypatch):
    assert (own_gpu("cpu"), own_gpu("cuda")) == ("cpu", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    assert (own_gpu("cpu"), own_gpu("cuda")) == ("cpu", "5")


@pytest.fixture
def torch_build(no_driver, monkeypatch):
    """Stands in for the installed torch."""

    def make(build):
        (no_driver / "version.py").write_text(f"__version__ = '2.9'\n{build}\n")
        found = SimpleNamespace(submodule_search_locations=[str(no_driver)])
        monkeypatch.setattr(devices, "find_spec", lambda name: found)
        driver(no_driver, SMI)

    return make


FOR_CUDA = "cuda: Optional[str] = '12.8'\nhip: Optional[str] = None"
FOR_CPU = "cuda: Optional[str] = None\nhip: Optional[str] = None\nrocm: Optional[str] = None"


@pytest.mark.parametrize(
    ("build", "listed", "message"),
    [
        (FOR_CPU, None, r"torch \S+ can use none; install a build for CUDA, or .* --device cpu"),
        (FOR_CPU.replace("None", "None\n", 1), "0", r"torch \S+ can use none"),
        (FOR_CUDA, "", "CUDA_VISIBLE_DEVICES='' hides them all; unset it, or"),
        (FOR_CUDA, "-1", "CUDA_VISIBLE_DEVICES='-1' hides them all"),
        (FOR_CUDA, "0,7", r"'0,7' names '7', and nvidia-smi lists 0 \(GPU-aa01\), 1 \(GPU-bb02\)"),
        (FOR_CUDA, "GPU-cc", "names 'GPU-cc', and nvidia-smi lists"),
    ],
)
def test_a_run_for_gpus_without_one_is_refused(monkeypatch, torch_build, build, listed, message):
    torch_build(build)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)

    with pytest.raises(ConfigError, match=message):
        check_gpus("cuda")
    check_gpus("cpu")


@pytest.mark.parametrize("listed", [None, "0", "MIG-1/0/0"])
def test_what_no_tool_lists_is_asked_of_torch_itself(monkeypatch, torch_build, no_driver, listed):
    """ROCm, Jetson and WSL have GPUs without nvidia-smi; a build for CUDA may have no GPU at all,
    and each of its cases would fail."""
    torch_build(FOR_CUDA)
    driver(no_driver, "exit 9")
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    torch = no_driver / "python"
    monkeypatch.setattr(devices.sys, "executable", str(torch))

    for answer in ("exit 1", "exit 0"):
        torch.write_text(f"#!/bin/sh\n{answer}\n")
        torch.chmod(0o755)
        if answer == "exit 0":
            check_gpus("cuda")
            continue
        with pytest.raises(ConfigError, match="neither nvidia-smi nor torch finds one; repair"):
            check_gpus("cuda")


def test_a_command_takes_the_devices_that_are_there(torch_build):
    torch_build(FOR_CUDA)

    for asked in ("cpu", "cuda", "cuda:0", "cuda:1"):
        assert usable_device(asked) == asked
    assert usable_device("auto") == "cuda"
    for asked in ("gpu", "cuda:", "cuda:x", "CPU", "mps", ""):
        with pytest.raises(ConfigError, match=f"expected auto, cpu, cuda or cuda:N, got '{asked}'"):
            usable_device(asked)
    with pytest.raises(ConfigError, match="expected cuda:0 to cuda:1, got 'cuda:2'"):
        usable_device("cuda:2")


@pytest.mark.parametrize("build", [FOR_CUDA, "cuda = None\nhip: Optional[str] = '6.4'", "odd"])
@pytest.mark.parametrize("listed", [None, "1", "1,0", "GPU-bb02", "MIG-1/0/0"])
def test_a_run_that_has_its_gpus_begins(monkeypatch, torch_build, build, listed):
    if build == "odd":
        # No file that says what it was built for: only torch itself can tell.
        torch_build(FOR_CUDA)
        monkeypatch.setattr(devices, "find_spec", lambda name: None)
    else:
        torch_build(build)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)

    check_gpus("cuda")


@pytest.mark.parametrize(
    ("gpus", "each", "found"),
    [
        ("0123", 1, ("0", "1", "2", "3")),
        ("0123", 2, ("0,1", "2,3")),
        ("01234", 2, ("0,1", "2,3")),
        ("012", 3, ("0,1,2",)),
        ("01", 3, ()),
        ("", 1, ()),
    ],
)
def test_gpus_that_hold_a_model_together_form_teams(gpus, each, found, monkeypatch):
    assert teams(tuple(gpus), gpus_per_model=each) == found
    if found:
        pinned = pinned_environment(len(found), found, workers=4)["CUDA_VISIBLE_DEVICES"]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", pinned)
        assert own_gpu("cuda", gpus_per_model=each) == pinned == found[0]


def test_more_gpus_for_a_model_than_there_are_are_refused(torch_build):
    torch_build(FOR_CUDA)
    check_gpus("cuda", gpus_per_model=2)

    with pytest.raises(ConfigError, match=r"--gpus-per-model 3, and there are 2 GPUs \(0, 1\)"):
        check_gpus("cuda", gpus_per_model=3)

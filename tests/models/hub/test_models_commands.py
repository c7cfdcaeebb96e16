from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from natadv import cli
from natadv.cli import models_commands as commands
from natadv.errors import UnknownNameError
from natadv.models.hub import local as local
from natadv.models.hub.fetch import FetchTarget, fetch
from natadv.models.hub.local import LockedRepository
from natadv.models.zoo import ZOO

ROW = ZOO["clip-vit-b16"]


def listed(capsys, place, *arguments: str) -> str:
    assert cli.main(["models", *arguments, "--root", str(place.root)]) == 0
    return capsys.readouterr().out


def line_of(table: str, name: str) -> str:
    (line,) = (line for line in table.splitlines() if name in line.split())
    return line


def lay(hub_id: str, locked: LockedRepository, *names: str) -> None:
    folder = local.snapshot_folder(hub_id, locked.revision)
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()


def test_every_model_has_a_line_that_fits(capsys, place):
    told = listed(capsys, place)

    for row in ZOO.values():
        line = line_of(told, row.name)
        assert f"{row.image_px} px" in line
        assert line.endswith(row.hub or row.location)
        assert line.startswith("*") == row.in_paper
    assert max(map(len, told.splitlines())) <= 100


def test_family_tasks_licence_and_gate_stand_above_the_models(capsys, place):
    told = listed(capsys, place, "--family", "paligemma2").splitlines()

    head = next(line for line in told if line.startswith("paligemma2:"))
    assert head == "paligemma2: vqa; licence Gemma, gated: accept it on the model's page"
    assert "paligemma2-3b-pt-224" in told[told.index(head) + 1]


def test_the_listing_ends_with_what_it_says(capsys, place):
    *_, counts, how = listed(capsys, place, "--family", "paper").splitlines()

    assert counts.startswith("22 models, 22 of them in the paper (*), 0 here, 4 gated")
    assert how.startswith("fetch with: natadv models fetch NAME")


def test_it_says_what_is_here(capsys, place):
    rows = [ZOO[name] for name in ("clip-vit-b16", "clip-vit-b32", "clip-vit-l14")]
    locked = LockedRepository(
        revision="1a2b3c4d" * 5, files={"config.json": "0" * 64, "model.safetensors": "1" * 64}
    )
    for row in rows:
        local.write_lock(place.root, row.hub, locked)
    lay(rows[0].hub, locked, *locked.files)
    lay(rows[1].hub, locked, "config.json")
    (place.root / ZOO["mini-clip"].location).mkdir(parents=True)

    told = listed(capsys, place)

    assert " at 1a2b3c4d1a " in line_of(told, "clip-vit-b16")
    assert " incomplete " in line_of(told, "clip-vit-b32")
    assert " locked " in line_of(told, "clip-vit-l14")
    assert " no " in line_of(told, "fare2-l14")
    assert " in repository " in line_of(told, "mini-clip")
    assert " missing " in line_of(told, "mini-siglip")
    assert f"{len(ZOO)} models, 22 of them in the paper (*), 2 here" in told


@pytest.mark.parametrize("name", ["papr", "clop", "siglip"])
def test_an_unknown_family_is_told_with_near_misses(capsys, place, name):
    assert cli.main(["models", "--family", name]) == 4
    assert f"natadv: unknown family {name!r}, did you mean " in capsys.readouterr().err


def test_json_tells_all(capsys, place):
    locked = LockedRepository(revision="1a2b3c4d" * 5, files={"config.json": "0" * 64})
    local.write_lock(place.root, ROW.hub, locked)
    lay(ROW.hub, locked, "config.json")

    found = {record["name"]: record for record in json.loads(listed(capsys, place, "--json"))}

    assert list(found) == list(ZOO)
    record = found[ROW.name]
    assert (record["here"], record["revision"]) == (True, locked.revision)
    assert (record["hub"], record["licence"], record["gated"]) == (ROW.hub, "MIT", False)
    assert {
        "model": ROW.name,
        "dataset": "imagenet-a",
        "metric": "top1",
        "value": 0.476,
        "protocol": "paper",
        "source": "Appendix Table 1",
        "prompts": 1,
        "read_in": "primary",
    } in record["published"]
    assert (found["fare2-l14"]["here"], found["fare2-l14"]["revision"]) == (False, None)


@pytest.mark.parametrize(
    ("names", "rows", "others"),
    [
        (["clip-vit-b16"], ["clip-vit-b16"], []),
        (["clip"], ["clip-vit-b32", "clip-vit-b16", "clip-vit-l14"], []),
        (["clip-vit-b*"], ["clip-vit-b32", "clip-vit-b16"], []),
        ([ROW.hub], [ROW.name], []),
        (["fare2-l14@paper", "fare2-l14"], ["fare2-l14"], []),
        (["me/mine", "clip-vit-b16", "me/mine"], ["clip-vit-b16"], ["me/mine"]),
    ],
)
def test_names_mean_rows_or_hub_ids(names, rows, others):
    found, beside = commands.resolve_names(names)

    assert ([row.name for row in found], list(beside)) == (rows, others)


def test_paper_means_its_models():
    assert len(commands.resolve_names(["paper"])[0]) == 22


@pytest.mark.parametrize("name", ["clip-vit-b61", "", "papr", "clop-*", "a/b/c"])
def test_an_unknown_name_stops_before_anything_is_fetched(hub, place, name):
    with pytest.raises(UnknownNameError, match="unknown model"):
        commands.resolve_names([ROW.name, name])
    assert hub.asked == []


def test_a_revision_is_of_one_model(capsys, place):
    arguments = ["models", "fetch", "clip", "--revision", "main", "--root", str(place.root)]

    assert cli.main(arguments) == 4
    assert "--revision needs exactly one model, got 3" in capsys.readouterr().err
    assert cli.main([*arguments, "--update"]) == 4


def test_the_root_may_stand_before_the_action(capsys, place):
    assert cli.main(["models", "--root", str(place.root), "fetch", "mini"]) == 0
    assert "mini-clip: comes with the repository" in capsys.readouterr().out


def test_what_comes_with_the_repository_is_not_fetched(capsys, hub, place):
    assert cli.main(["models", "fetch", "mini", "--root", str(place.root)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "mini-clip: comes with the repository (fixtures/models/mini-clip)",
        "mini-siglip: comes with the repository (fixtures/models/mini-siglip)",
    ]


def test_one_that_fails_does_not_stop_the_others(capsys, hub, place, clip_files):
    names = ("clip-vit-b16", "clip-vit-l14", "paligemma2-3b-pt-224", "blip2-opt-2.7b")
    rows = [ZOO[name] for name in names]
    commit = hub.publish(rows[1].hub, clip_files)
    hub.publish(rows[2].hub, clip_files, gated=True)
    pickles = {k: v for k, v in clip_files.items() if k != "model.safetensors"}
    hub.publish(rows[3].hub, pickles)
    targets = [FetchTarget(row.name, row.hub, row.loader) for row in rows]

    assert commands.fetch_all(targets, place=place) == 4

    told = capsys.readouterr()
    fetched, summary = told.out.splitlines()
    assert fetched.startswith(f"clip-vit-l14: fetched at {commit[:12]}, 6 files, 20.")
    assert summary == (
        f"1 of 4 here and locked in {place.root / 'models.lock'}; "
        "failed: clip-vit-b16, paligemma2-3b-pt-224, blip2-opt-2.7b"
    )
    missing, gated, pickle = told.err.splitlines()
    assert missing.startswith(
        "natadv: clip-vit-b16: the hub has no repository openai/clip-vit-base-patch16"
    )
    assert "accept its licence on https://huggingface.co/google/paligemma2-3b-pt-224" in gated
    assert pickle.startswith("natadv: blip2-opt-2.7b: ")
    assert list(local.read_lock(place.root)) == [rows[1].hub]


def test_the_second_time_all_is_here(capsys, hub, place, clip_files):
    commit = hub.publish(ROW.hub, clip_files)
    targets = [FetchTarget(ROW.name, ROW.hub, ROW.loader)]
    commands.fetch_all(targets, place=place)
    capsys.readouterr()

    assert commands.fetch_all(targets, place=place) == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"{ROW.name}: is here at {commit[:12]}, every byte checked, 6 files")
    assert told.err == ""


def test_an_update_says_from_where_to_where(hub, place, clip_files, other_weights):
    target = FetchTarget(ROW.name, ROW.hub, ROW.loader)
    old = hub.publish(ROW.hub, clip_files)
    fetch(target, place=place, progress_to=io.StringIO())
    new = hub.publish(ROW.hub, clip_files | {"model.safetensors": other_weights})

    found = fetch(target, place=place, progress_to=io.StringIO(), update=True)

    assert commands.fetched_line(found).startswith(
        f"{ROW.name}: moved from {old[:12]} to {new[:12]} (changed: model.safetensors), 6 files"
    )


def test_a_conversion_is_named(hub, place, clip_files):
    safe = {"model.safetensors": clip_files["model.safetensors"]}
    hub.publish(ROW.hub, {k: v for k, v in clip_files.items() if k not in safe})
    commit = hub.offer(ROW.hub, safe, author="SFconvertbot")
    target = FetchTarget(ROW.name, ROW.hub, ROW.loader)

    found = fetch(target, place=place, progress_to=io.StringIO())

    assert f"fetched at {commit[:12]} on refs/pr/1, 6 files" in commands.fetched_line(found)


def test_no_network_is_one_line_for_each(capsys, place):
    targets = [FetchTarget(name, ZOO[name].hub) for name in ("fare2-l14", "fare4-l14")]

    assert commands.fetch_all(targets, place=replace(place, endpoint="http://127.0.0.1:9")) == 4
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in told] == ["fare2-l14", "fare4-l14"]
    assert all("cannot reach http://127.0.0.1:9" in line for line in told)


def test_the_root_is_the_nearest_folder_with_thresholds(place, tmp_path):
    below = place.root / "suites" / "deep"
    below.mkdir(parents=True)

    assert commands.repository_root(below) == place.root
    assert commands.repository_root(tmp_path) == tmp_path


def test_the_command_obeys_the_librarys_environment(hub, place, clip_files, monkeypatch):
    commit = hub.publish(ROW.hub, clip_files)
    hub.publish("me/mine", clip_files)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    below = place.root / "suites"
    below.mkdir()

    done = subprocess.run(
        [Path(sys.executable).with_name("natadv"), "models", "fetch", ROW.name, "me/mine", "me/no"],
        cwd=below,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 4
    assert done.stderr.splitlines() == [
        "natadv: me/no: the hub has no repository me/no; check the spelling on "
        "https://huggingface.co/me/no; if it is private, log in: hf auth login"
    ]
    assert done.stdout.splitlines()[0].startswith(f"{ROW.name}: fetched at {commit[:12]}, 6 files")
    assert set(local.read_lock(place.root)) == {ROW.hub, "me/mine"}
    assert local.snapshot(ROW.hub, root=place.root).name == commit

"""Heads on a hub of this machine: what is published is fetched byte for byte, and locked."""

from __future__ import annotations

import base64
import json
import shutil

import pytest
from huggingface_hub import constants

from natadv import cli
from natadv.errors import ConfigError, ModelError
from natadv.evaluate.plan import head_of
from natadv.heads import head_file
from natadv.models.hub import local
from natadv.models.loading import fingerprint
from natadv.models.resolve import resolve_one
from natadv.storage.trained_folder import CONFIG, TRAINING, WEIGHTS
from natadv.training.hub_heads import fetch_head, publish_head
from natadv.types import Case
from tests.models.hub.conftest import LARGE, Handler
from tests.models.hub.conftest import hub as hub
from tests.models.hub.conftest import place as place
from tests.training.conftest import REPOSITORY

# huggingface_hub sends bytes in a way that httpx no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

HEADS = REPOSITORY / "fixtures" / "heads" / "mini-clip"
REPO = "me/my-head"


def receive(self):
    """What the hub answers to an upload: first how, then large files, then the commit."""
    hub, path = self.hub, self.path.partition("?")[0]
    content = self.rfile.read(int(self.headers["Content-Length"]))
    if path.startswith("/upload/") and hub.refuses:
        self._refuse(403, "", "You may not write here")
        return
    if path.startswith("/upload/"):
        hub.received[path.removeprefix("/upload/")] = content
        self._answer(200, b"", {})
        return
    if path.endswith("/commit/main"):
        rows = [json.loads(line) for line in content.splitlines()]
        files = {
            row["value"]["path"]: base64.b64decode(row["value"]["content"])
            for row in rows
            if row["key"] == "file"
        } | {
            row["value"]["path"]: hub.received[row["value"]["oid"]]
            for row in rows
            if row["key"] == "lfsFile"
        }
        owner, name = path.split("/")[3:5]
        commit = hub.publish(f"{owner}/{name}", files)
        url = f"{hub.url}/{owner}/{name}/commit/{commit}"
        self._json({"commitOid": commit, "commitUrl": url})
        return
    asked = json.loads(content)
    if path == "/api/repos/create":
        hub.made.append(asked)
        self._json({"url": f"{hub.url}/{asked['organization']}/{asked['name']}"})
    elif path.endswith("/preupload/main"):
        modes = {
            file["path"]: "lfs" if file["path"].endswith(LARGE) else "regular"
            for file in asked["files"]
        }
        answers = [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]
        self._json({"files": answers})
    else:
        assert path.endswith("/info/lfs/objects/batch"), path
        upload = [
            {**it, "actions": {"upload": {"href": f"{hub.url}/upload/{it['oid']}"}}}
            for it in asked["objects"]
        ]
        self._json({"transfer": "basic", "objects": upload})


def answer(self, status, content, headers):
    """As the hub's, with the body for uploads too."""
    self.send_response(status)
    for name, value in headers.items():
        self.send_header(name, value)
    self.send_header("Content-Length", str(len(content)))
    self.end_headers()
    if self.command != "HEAD":
        self.wfile.write(content)


@pytest.fixture(autouse=True)
def accepting(hub, monkeypatch):
    """The hub takes uploads, by the protocol that needs no other server."""
    hub.made, hub.received, hub.refuses = [], {}, False
    monkeypatch.setattr(Handler, "do_POST", receive, raising=False)
    monkeypatch.setattr(Handler, "do_PUT", receive, raising=False)
    monkeypatch.setattr(Handler, "_answer", answer)
    monkeypatch.setattr("huggingface_hub._commit_api.is_xet_available", lambda: False)


@pytest.fixture
def checkout(place):
    (place.root / "fixtures").mkdir()
    (place.root / "fixtures" / "models").symlink_to(REPOSITORY / "fixtures" / "models")
    return place


@pytest.fixture
def fetched(checkout, capsys):
    """Fetch a head for a model into the checkout."""

    def fetch(model="mini-clip", repository=REPO, **options):
        import sys

        spec = resolve_one(model, root=checkout.root, wanted="")
        return fetch_head(repository, spec, place=checkout, progress_to=sys.stderr, **options)

    return fetch


def files_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name in head_file_names()}


def head_file_names():
    return {
        CONFIG, WEIGHTS, head_file.WORDS, head_file.ANSWERS, TRAINING
    }  # fmt: skip


@pytest.mark.parametrize("task", ["segmentation", "vqa"])
def test_what_is_published_is_fetched_where_the_gate_finds_it(hub, checkout, fetched, task):
    published = publish_head(HEADS / task, REPO, endpoint=hub.url)
    found = fetched()

    folder = checkout.root / "fixtures" / "heads" / "mini-clip" / task
    assert found.folder == folder
    assert files_of(folder) == files_of(HEADS / task)
    assert set(published.files) == set(files_of(folder))
    assert hub.made[0]["visibility"] == "private"
    locked = local.read_lock(checkout.root)[REPO]
    assert (locked.revision, locked.head) == (published.commit, f"fixtures/heads/mini-clip/{task}")
    spec = resolve_one("mini-clip", root=checkout.root, wanted="")
    case = Case(task, "clean", "mini", "mini-clip")
    expected = head_file.fingerprint(HEADS / task)
    assert head_of(case, spec, weights=fingerprint(spec)) == expected


def test_a_fetched_head_that_was_changed_is_refused(hub, checkout, fetched):
    """Also one that is whole: its config names the hashes of its own files."""
    publish_head(HEADS / "segmentation", REPO, endpoint=hub.url)
    folder = fetched().folder
    config = json.loads((folder / "config.json").read_text())
    config["config"]["threshold"] = 0.4
    (folder / "config.json").write_text(json.dumps(config))
    spec = resolve_one("mini-clip", root=checkout.root, wanted="")
    case = Case("segmentation", "clean", "mini", "mini-clip")

    with pytest.raises(ModelError, match=r"config.json is \w{12}, models.lock says \w{12}; fetch"):
        head_of(case, spec, weights=fingerprint(spec))
    # It is from that repository, so fetching replaces it; and asks nobody, as the cache has it.
    asked = len(hub.asked)
    fetched()
    assert len(hub.asked) == asked
    spec = resolve_one("mini-clip", root=checkout.root, wanted="")
    assert head_of(case, spec, weights=fingerprint(spec))


def test_a_head_of_another_tower_is_refused_and_nothing_written(hub, checkout, fetched):
    publish_head(HEADS / "segmentation", REPO, endpoint=hub.url)

    with pytest.raises(ModelError, match=r"that of mini-siglip is .* name the model that it was"):
        fetched("mini-siglip")
    assert not (checkout.root / "fixtures" / "heads").exists()


def test_another_head_in_its_place_is_kept_unless_forced(hub, checkout, fetched, tmp_path):
    publish_head(HEADS / "segmentation", REPO, endpoint=hub.url)
    folder = checkout.root / "fixtures" / "heads" / "mini-clip" / "segmentation"
    shutil.copytree(HEADS / "segmentation", folder)
    own = json.loads((folder / "config.json").read_text())
    own["config"]["threshold"] = 0.45
    (folder / "config.json").write_text(json.dumps(own))

    with pytest.raises(ConfigError, match="holds another head, which is not from me/my-head; move"):
        fetched()
    assert json.loads((folder / "config.json").read_text()) == own
    fetched(force=True)
    assert files_of(folder) == files_of(HEADS / "segmentation")
    # A newer version of the same repository replaces it without force.
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    (changed / "config.json").write_text(json.dumps(own))
    newer = publish_head(changed, REPO, endpoint=hub.url)
    assert fetched(update=True).fetched.locked.revision == newer.commit
    assert json.loads((folder / "config.json").read_text()) == own


def test_only_a_whole_head_is_published_or_fetched(hub, checkout, fetched, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(HEADS / "segmentation", damaged)
    content = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(content[:-1])
    with pytest.raises(ModelError, match=r"model.safetensors: sha256 is .* config.json says"):
        publish_head(damaged, REPO, endpoint=hub.url)
    assert hub.repositories == {}

    hub.publish(REPO, {"config.json": b"{}", "README.md": b"a model"})
    with pytest.raises(ModelError, match=r"config.json: not the config of a head"):
        fetched()
    hub.publish("me/empty", {"README.md": b"nothing"})
    with pytest.raises(ModelError, match=r"no config.json in"):
        fetched(repository="me/empty")
    assert local.read_lock(checkout.root) == {}


def test_an_upload_that_the_hub_refuses_is_one_line(hub):
    hub.refuses = True

    with pytest.raises(ModelError, match=r"me/my-head: the upload failed .* nothing was committed"):
        publish_head(HEADS / "segmentation", REPO, endpoint=hub.url)
    assert hub.repositories == {}


def test_the_commands_publish_and_fetch(hub, checkout, monkeypatch, capsys):
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    pages = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", pages)
    monkeypatch.chdir(REPOSITORY)
    assert cli.main(["heads", "publish", "mini-clip", "vqa", REPO]) == 0
    monkeypatch.chdir(checkout.root)
    assert cli.main(["heads", "fetch", REPO, "mini-clip"]) == 0
    printed = capsys.readouterr().out.splitlines()

    assert printed[0].startswith(f"{REPO}: published at ")
    assert printed[0].endswith(f"; fetch it with natadv heads fetch {REPO} mini-clip")
    assert printed[1].startswith(f"{REPO}: fetched at ")
    assert printed[1].endswith("; in " + str(checkout.root / "fixtures/heads/mini-clip/vqa"))
    assert cli.main(["heads", "publish", "mini-siglip", "vqa", REPO]) == 4
    assert cli.main(["heads", "fetch", "nonsense", "mini-clip"]) == 4
    printed = capsys.readouterr().err.splitlines()
    assert "mini-siglip has no head for vqa; train one (natadv train vqa)" in printed[-2]
    assert "expected a repository of the hub as owner/name, got 'nonsense'" in printed[-1]

"""Gates are found by their marker, wherever they lie, and the root of a run by its contract."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from natadv import places
from natadv.errors import ConfigError
from natadv.plugin.gate_files import Collected, folder_of_all, gate_files, holds_gate, root_for

REPOSITORY = Path(__file__).parents[2]
PYTEST = Collected(["test_*.py", "*_test.py"], [".*", "build", "venv"])
GATE = "import pytest\n\npytestmark = pytest.mark.gate(task='vqa')\n"


def made(path: Path, text: str = GATE) -> Path:
    """A file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


GATES = {
    "a module": GATE,
    "one of several marks": "import pytest\npytestmark = [pytest.mark.slow, pytest.mark.gate()]\n",
    "a decorator": "from pytest import mark\n@mark.gate(analysis=True)\ndef test_a(case): ...\n",
    "a method": "import pytest\nclass TestA:\n    @pytest.mark.gate()\n    def test_a(self): ...\n",
    "a name": "import pytest as p\nGATE = p.mark.gate(task='vqa')\npytestmark = GATE\n",
    "broken lines": "import pytest\npytestmark = (\n    pytest.mark\n    .gate()\n)\n",
    "code that cannot be parsed": f"{GATE}def broken(:\n",
}
NO_GATES = {
    "a text": f"SUITE = '''{GATE}'''\n",
    "a docstring": f'"""As in\n{GATE}"""\n',
    "a comment": "# pytestmark = pytest.mark.gate()\n",
    "another marker": "import pytest\npytestmark = pytest.mark.gates()\n",
    "the fixture alone": "def test_a(gate): gate.check()\n",
    "a question": "def test_a(request): request.node.get_closest_marker('gate')\n",
}


def test_code_with_the_marker_is_a_gate_and_words_about_it_are_not(tmp_path):
    for expected, sources in ((True, GATES), (False, NO_GATES)):
        for what, source in sources.items():
            assert holds_gate(str(made(tmp_path / "test_a.py", source))) is expected, what


def test_what_pytest_collects_is_searched_and_nothing_else(tmp_path):
    gates = [made(tmp_path / "a/deep/test_a.py"), made(tmp_path / "b_test.py")]
    odd = made(tmp_path / "a/checks.py")
    for name in (".hidden/test_a.py", "build/test_a.py", "env/test_a.py", "left/test_a.py"):
        made(tmp_path / name)
    made(tmp_path / "env/pyvenv.cfg", "")
    made(tmp_path / "other/test_b.py", "def test_b(): ...\n")
    (tmp_path / "a/deep/loop").symlink_to(tmp_path)
    collected = Collected(
        PYTEST.files, PYTEST.not_entered, frozenset({tmp_path / "left"}), ["*/nothing"]
    )

    assert set(gate_files([tmp_path, gates[0]], collected)) == set(gates)
    # As pytest does, a file that is named needs no name of a test.
    assert gate_files([odd], collected) == (odd,)
    assert gate_files([tmp_path / "nowhere"], collected) == ()


def test_the_suites_are_gates_and_the_tests_are_none_and_few_of_them_are_parsed(monkeypatch):
    parsed = []
    parse = ast.parse
    monkeypatch.setattr(ast, "parse", lambda source: parsed.append(source) or parse(source))

    assert len(gate_files([REPOSITORY / "suites"], PYTEST)) == len(parsed) == 6
    parsed.clear()
    assert gate_files([REPOSITORY / "tests"], PYTEST) == ()
    files = sum(1 for _ in (REPOSITORY / "tests").rglob("test_*.py"))
    assert 0 < len(parsed) < files / 10


def test_the_root_is_the_folder_of_the_nearest_contract(tmp_path):
    here = tmp_path / "elsewhere"
    gate, other = made(tmp_path / "own/checks/deep/test_a.py"), made(tmp_path / "bare/test_b.py")

    assert root_for([gate], here=here) == here
    made(here / "thresholds.yaml")
    assert root_for([gate], here=here / "below") == here
    made(tmp_path / "own/thresholds.yaml")
    assert root_for([gate], here=here) == tmp_path / "own"
    assert root_for([gate, other], here=here) == tmp_path / "own"


def test_linked_gates_belong_to_the_repository_that_links_them(tmp_path):
    gate, other = (made(tmp_path / f"shared/suites/{name}") for name in ("test_a.py", "test_b.py"))
    made(tmp_path / "own/thresholds.yaml")
    (tmp_path / "own/suites").symlink_to(tmp_path / "shared/suites")
    (tmp_path / "link").symlink_to(tmp_path / "own")
    linked = tmp_path / "own/suites/test_a.py"

    for named in (tmp_path / "own/suites", tmp_path / "link/suites"):
        gates = gate_files([named, gate], PYTEST)
        assert [path.name for path in gates] == ["test_a.py", "test_b.py"]
        assert root_for(gates, here=tmp_path / "elsewhere") == tmp_path / "own"
    # What lies beside the file is known by the same path, and so is narrowing to the file.
    assert folder_of_all(linked, root=tmp_path / "own") == tmp_path / "own/suites"
    assert folder_of_all(gate, root=tmp_path / "own") == gate.parent
    assert gate_files([gate.parent], PYTEST) == (gate, other)
    made(tmp_path / "shared/thresholds.yaml")
    assert root_for([linked], here=tmp_path) == tmp_path / "own"
    assert root_for([gate], here=tmp_path) == tmp_path / "shared"


def test_gates_of_two_contracts_are_not_judged_by_one_of_them(tmp_path):
    gates = [made(tmp_path / f"{name}/suites/test_a.py") for name in ("one", "other")]
    for name in ("one", "other"):
        made(tmp_path / f"{name}/thresholds.yaml")

    with pytest.raises(ConfigError, match=r"test_a.py has its contract in .*; run them one by one"):
        root_for(gates, here=tmp_path)


def test_nothing_is_written_beside_the_gates_of_a_package(tmp_path, monkeypatch):
    package, here = tmp_path / "site-packages/natadv/shipped", tmp_path / "mine"
    gate = made(package / "suites/test_a.py")
    made(package / "thresholds.yaml")
    monkeypatch.setattr(places, "package_roots", lambda: (package,))

    assert root_for([gate], here=here) == here
    assert folder_of_all(gate, root=here) == package / "suites"
    # Whoever works on the package itself, as in a clone, is at home there.
    assert root_for([gate], here=package / "suites") == package

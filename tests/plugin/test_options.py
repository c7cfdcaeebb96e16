"""Options stand on the command line, in the environment or in the ini file, and count in turn."""

from __future__ import annotations

import pytest

from natadv.plugin import options
from natadv.plugin.gate_files import is_narrowed, root_of, runs_gates

GATE = "import pytest\n\npytestmark = pytest.mark.gate(task='vqa')\n"


class Seen:
    """Keeps what pytest has parsed, and ends the run before it begins."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config):
        self.config = config
        return 0


@pytest.fixture
def parsed(tmp_path, monkeypatch, capfd):
    """What pytest parses in a repository with gates in `checks/deep`; the error if it refuses."""
    for name, text in {"checks/deep/test_a.py": GATE, "tests/test_b.py": "", "a.yaml": ""}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    plain = ("-s", "-p", "no:cacheprovider", "-p", "natadv.pytest_plugin")

    def parse(*arguments, ini="", env=None):
        (tmp_path / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
        with monkeypatch.context() as patch:
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            seen = Seen()
            if pytest.main([*arguments, *plain], plugins=[seen]):
                return capfd.readouterr().err
            try:
                options.settle(seen.config)
            except pytest.UsageError as error:
                return str(error)
            return seen.config

    return parse


def test_the_command_line_counts_before_the_environment_and_that_before_the_ini_file(parsed):
    ini = "natadv_model =\n  a, b\n  c\nnatadv_limit = 3\nnatadv_no_assert = yes"
    env = {"NATADV_MODEL": "d,e", "NATADV_LIMIT": "4", "NATADV_NO_ASSERT": "0"}
    rows = {
        (): ({}, (), None, False),
        ("ini",): ({"ini": ini}, ("a", "b", "c"), 3, True),
        ("ini", "env"): ({"ini": ini, "env": env}, ("d", "e"), 4, False),
    }
    for given, (sources, models, limit, no_assert) in rows.items():
        config = parsed("checks", **sources)
        assert options.request(config).models == models, given
        assert options.request(config).limit == limit, given
        assert config.getoption("natadv_no_assert") is no_assert, given

    config = parsed("checks", "--model", "f", "--limit", "5", "--no-assert", ini=ini, env=env)
    assert options.request(config).models == ("f",)
    assert options.request(config).limit == 5
    assert config.getoption("natadv_no_assert") is True


def test_every_option_has_a_variable_a_key_and_its_default(parsed):
    config = parsed("checks")
    for option in options.OPTIONS:
        assert config.getini(option.dest) is None
        expected = option.attributes.get("default", False if option.switch else None)
        assert config.getoption(option.dest) == expected


def test_an_empty_variable_does_not_mean_the_default(parsed, monkeypatch):
    """An unset variable of CI is empty, and must not mean all models."""
    config = parsed("checks")
    for option in options.OPTIONS:
        setattr(config.option, option.dest, None)
        for empty in ("", " "):
            monkeypatch.setenv(option.variable, empty)
            with pytest.raises(pytest.UsageError) as caught:
                options.settle(config)
            told = "expected a value, got nothing; is a variable unset?"
            assert str(caught.value) == f"{option.variable}: {told}"
        monkeypatch.delenv(option.variable)


def test_a_wrong_value_names_its_source_in_one_line(parsed, tmp_path):
    wanted, ini = "expected a whole number from 1 on, got 'abc'", tmp_path / "pytest.ini"
    rows = {
        "--limit": parsed("checks", "--limit", "abc"),
        "NATADV_LIMIT": parsed("checks", env={"NATADV_LIMIT": "abc"}),
        f"{ini}: natadv_limit": parsed("checks", ini="natadv_limit = abc"),
        "-o natadv_limit": parsed("checks", "-o", "natadv_limit=abc"),
    }
    for source, told in rows.items():
        assert told.removeprefix("ERROR: ").strip() == f"{source}: {wanted}"
    assert "expected one of auto, cpu, cuda, got 'gpu'" in parsed("checks", "--device", "gpu")
    told = parsed("checks", env={"NATADV_SEQUENTIAL": "maybe"})
    assert told.startswith("NATADV_SEQUENTIAL: expected one of 1, true, yes, on, 0,")


def test_a_path_of_the_ini_file_means_the_same_wherever_pytest_is_called(
    parsed, tmp_path, monkeypatch
):
    ini = "natadv_thresholds = a.yaml"
    assert options.contract_of(parsed("checks", ini=ini)) == tmp_path / "a.yaml"
    monkeypatch.chdir(tmp_path / "checks")
    assert options.contract_of(parsed("deep", ini=ini)) == tmp_path / "a.yaml"


def test_a_run_is_of_gates_by_what_lies_in_its_arguments(parsed, tmp_path):
    (tmp_path / "thresholds.yaml").touch()
    (tmp_path / "checks/test_c.py").write_text(GATE)
    rows = {
        ("checks",): (True, False),
        (".",): (True, False),
        ("checks/deep",): (True, True),
        ("checks/test_c.py",): (True, True),
        ("checks/test_c.py::test_c", "checks/deep"): (True, True),
        ("checks", "-k", "a"): (True, True),
        ("tests",): (False, None),
        (".", "--ignore=checks"): (False, None),
    }
    for arguments, (gates, narrowed) in rows.items():
        config = parsed(*arguments)
        assert runs_gates(config) is gates, arguments
        if gates:
            assert root_of(config) == tmp_path
            assert is_narrowed(config) is narrowed, arguments


def test_no_contract_anywhere_is_said_in_one_line(parsed):
    with pytest.raises(options.ConfigError, match=r"thresholds.yaml: no such contract.*init"):
        options.contract_of(parsed("checks"))


def test_an_option_of_the_gate_without_any_gate_is_refused(parsed):
    with pytest.raises(pytest.UsageError, match="--model is an option of the gate, and tests"):
        options.refuse_without_gates(parsed("tests", "--model=x"))
    options.refuse_without_gates(parsed("tests"))

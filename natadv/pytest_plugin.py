"""The pytest hooks: each one delegates. Light at import: collecting must not pull in torch."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import warnings
from collections.abc import Generator
from types import FrameType
from typing import Any

import pytest

from natadv.errors import ConfigError, GateFailure, InfraError, NatadvError
from natadv.evaluate.devices import pinned_environment, visible_gpus
from natadv.plugin import options
from natadv.plugin.artifacts import remove_verdict
from natadv.plugin.controller import Controller
from natadv.plugin.gates import Gate
from natadv.plugin.session import GateSession, make_session
from natadv.types import Case

SESSION = pytest.StashKey[GateSession]()
CONTROLLER = pytest.StashKey[Controller]()


ORPHANED_S = 0.5
"""How often a worker looks whether anybody still waits for it."""


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    options.add_options(parser)
    config = pluginmanager.get_plugin("pytestconfig")
    stale = None if config is None else options.early_gate_json(config)
    if stale is not None:
        # Before anything can end this run: an old verdict would stand for it. What keeps it from
        # being removed is told when the run is prepared.
        with contextlib.suppress(NatadvError):
            remove_verdict(stale)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "gate(task=NAME, searched=BOOL): judges one case per parameter `case`: those of a task, or "
        "those beside which the tier searches for small attacks",
    )
    if not options.gates_are_asked_for(config) or _only_help(config):
        return
    options.let_no_warning_decide(config)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            session = make_session(config, computing=not _looks_only(config))
        config.stash[SESSION] = session
        if is_worker(config):
            options.settle_allure(config)
            _end_with_parent(session.parent)
            return
        _refuse_worksteal(config)
        if not _looks_only(config):
            controller = Controller(config, session)
            controller.prepare()
            config.stash[CONTROLLER] = controller
            config.pluginmanager.register(controller, "natadv-controller")
            _end_at_once_when_interrupted_twice(config)
            if not config.getoption("tx", None):
                os.environ.update(pinned_environment(0, visible_gpus(), workers=1))
    except NatadvError as error:
        raise pytest.UsageError(str(error)) from error


def _end_with_parent(parent: int) -> None:
    """End this worker soon after the controller was killed, whatever it is doing; all that it
    writes is written whole or not at all."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHANED_S)
        os._exit(1)

    threading.Thread(target=watch, name="natadv-parent", daemon=True).start()


def _end_at_once_when_interrupted_twice(config: pytest.Config) -> None:
    """At the second Ctrl-C, which would find pytest telling of the first and break that off."""
    first = signal.getsignal(signal.SIGINT)

    def end(number: int, frame: FrameType | None) -> None:
        os.write(2, b"\nnatadv: interrupted twice; what is stored is kept, run again to go on\n")
        os._exit(pytest.ExitCode.INTERRUPTED)

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, end)
        raise KeyboardInterrupt

    def restore() -> None:
        signal.signal(signal.SIGINT, first)

    signal.signal(signal.SIGINT, interrupt)
    config.add_cleanup(restore)


def _only_help(config: pytest.Config) -> bool:
    return bool(config.option.help or config.option.version or config.option.markers)


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _refuse_worksteal(config: pytest.Config) -> None:
    if config.getoption("dist", "no") == "worksteal":
        # A worker that dies while filling makes this scheduler end the session with no test run.
        raise ConfigError("--dist worksteal loses gates when a worker dies; use --dist load")


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    gpus = visible_gpus()
    return len(gpus) * int(config.getoption("natadv_gpu_slots")) if gpus else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    gpus = visible_gpus()
    for i, spec in enumerate(specs):
        # In the spec, hence before the worker imports anything, and kept by its replacement.
        spec.env.update(pinned_environment(i, gpus, workers=len(specs)))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    session = node.config.stash.get(SESSION, None)
    if session is not None:
        node.workerinput["natadv_run"] = session.run.id


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    session = metafunc.config.stash.get(SESSION, None)
    mark = metafunc.definition.get_closest_marker("gate")
    if session is None or mark is None:
        return
    cases = session.grid.searched if mark.kwargs.get("searched") else _of_task(session, mark)
    metafunc.parametrize("case", cases, ids=[case.address for case in cases])


def _of_task(session: GateSession, mark: pytest.Mark) -> list[Case]:
    own = [case for case in session.grid.cases if case.task == mark.kwargs["task"]]
    return [case for case in own if case not in session.grid.searched]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A suite whose task the grid does not hold is left out; it would be shown as skipped."""
    items[:] = [item for item in items if not _is_of_no_case(item)]


def _is_of_no_case(item: pytest.Item) -> bool:
    spec = getattr(item, "callspec", None)
    if item.get_closest_marker("gate") is None or spec is None or "case" not in spec.params:
        return False
    return not isinstance(spec.params["case"], Case)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Compute before a worker reports its tests: none can be blamed for a dead worker yet."""
    config = session.config
    gates = config.stash.get(SESSION, None)
    if gates is None or not _may_fill(session):
        return
    gates = gates.of(selected_cases(session.items))
    gates = gates.of(gates.selected, notes=gates.compute_units())
    config.stash[SESSION] = gates
    if CONTROLLER in config.stash:
        config.stash[CONTROLLER].note(gates.notes)
        config.stash[CONTROLLER].collected([item.nodeid for item in session.items])


def _may_fill(session: pytest.Session) -> bool:
    on_controller = bool(session.config.getoption("tx", None)) and not is_worker(session.config)
    return not _looks_only(session.config) and not on_controller and not session.testsfailed


def _looks_only(config: pytest.Config) -> bool:
    """True for the modes that list something and must compute nothing."""
    names = ("collectonly", "setupplan", "setuponly", "showfixtures", "show_fixtures_per_test")
    return any(getattr(config.option, name, False) for name in names)


def selected_cases(items: list[pytest.Item]) -> list[Case]:
    params = [getattr(item, "callspec", None) for item in items]
    found = [spec.params.get("case") for spec in params if spec is not None]
    return [case for case in found if isinstance(case, Case)]


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Gate:
    """Judges one case from what the store holds."""
    session = request.config.stash.get(SESSION, None)
    if session is None:
        pytest.fail("gates run from the suites folder: pytest suites/", pytrace=False)
    return Gate(session, request.node)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    options.keep_allure_folder(item.config)
    report = yield
    if call.excinfo is not None and call.excinfo.errisinstance((GateFailure, InfraError)):
        # A verdict, not a bug: its own words, and no traceback through the plugin.
        report.longrepr = str(call.excinfo.value)
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    if CONTROLLER in node.config.stash:
        node.config.stash[CONTROLLER].collected(ids)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    if CONTROLLER in node.config.stash:
        output = getattr(node, "workeroutput", None)
        node.config.stash[CONTROLLER].worker_ended(node.gateway.id, output, error)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if is_worker(config) and SESSION in config.stash:
        config.workeroutput["natadv_notes"] = list(config.stash[SESSION].notes)  # type: ignore[attr-defined]
    elif CONTROLLER in config.stash:
        session.exitstatus = config.stash[CONTROLLER].finish(int(session.exitstatus))


def pytest_report_header(config: pytest.Config) -> list[str]:
    return config.stash[CONTROLLER].header() if CONTROLLER in config.stash else []


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if CONTROLLER in config.stash:
        config.stash[CONTROLLER].summarise(terminalreporter)

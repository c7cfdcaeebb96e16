"""The pytest hooks of every process; those of the process that started the run are in `Controller`.

Light at import: collecting must not load torch.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import warnings
from collections.abc import Generator
from functools import partial
from types import FrameType
from typing import Any

import pytest

from natadv.errors import ConfigError, GateFailure, InfraError, NatadvError, counted
from natadv.evaluate.devices import check_gpus, pinned_environment, teams, visible_gpus
from natadv.evaluate.grid import Grid
from natadv.evaluate.requirements import missing, script
from natadv.plugin import options
from natadv.plugin.controller import AGAINST_BASELINE, Controller
from natadv.plugin.gate_files import is_narrowed, runs_gates
from natadv.plugin.gates import Gate
from natadv.plugin.session import GateSession, make_session
from natadv.report.gate_json import remove_verdict
from natadv.tasks import TASKS
from natadv.types import Case
from natadv.wrapping import script_lines

SESSION = pytest.StashKey[GateSession]()
CONTROLLER = pytest.StashKey[Controller]()

NOT_FOUND = (
    "the code of this file has no marker gate, which natadv looks for: write `pytestmark = "
    "pytest.mark.gate(...)` at its top"
)
PARENT_CHECK_S = 0.5
"""How often a worker checks that its controller is still alive."""


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the options, and remove an old verdict."""
    options.add_options(parser)
    config = pluginmanager.get_plugin("pytestconfig")
    # Before anything can end this run: an old verdict would be taken for its own. An error is
    # reported when the run is prepared, which removes it again.
    with contextlib.suppress(NatadvError, pytest.UsageError):
        for path in options.unparsed_gate_json(config, parser) if config is not None else ():
            remove_verdict(path)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Make the session of this process and, in the process that started the run, the controller."""
    config.addinivalue_line(
        "markers",
        "gate(task=NAME, analysis=BOOL, searched=BOOL, baseline=BOOL): judges one case per "
        "parameter `case`: those of a task, those that analyse answers of another task, those "
        "beside which the tier searches for small attacks, or those that --baseline has too",
    )
    if options.is_in_mode(config, options.HELP_MODES):
        return
    if not runs_gates(config):
        options.refuse_without_gates(config)
        return
    options.settle(config)
    options.show_warnings_only(config)
    computing = not options.is_in_mode(config, options.LISTING_MODES)
    try:
        if computing and not is_worker(config):
            options.refuse_unwritable(config)
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            session = config.stash[SESSION] = make_session(config, computing=computing)
        if is_worker(config):
            options.set_allure_folder(config)
            end = partial(_end_with_parent, session.parent)
            threading.Thread(target=end, name="natadv-parent", daemon=True).start()
            return
        if config.getoption("dist", "no") == "worksteal":
            # If a worker dies while it computes, this scheduler ends the session without any test.
            raise ConfigError("--dist worksteal loses gates when a worker dies; use --dist load")
        if computing:
            numerics = session.numerics
            check_gpus(numerics.device, gpus_per_model=numerics.gpus_per_model)
            gpus = visible_gpus()
            refuse_missing(config, session.grid)
            controller = Controller(config, session, gpus=len(gpus))
            config.stash[CONTROLLER] = controller
            controller.prepare()
            config.pluginmanager.register(controller, "natadv-controller")
            _end_at_second_interrupt(config)
            if not config.getoption("tx", None):
                os.environ.update(pinned_environment(0, _teams(config), workers=1))
    except NatadvError as error:
        raise pytest.UsageError(str(error)) from error
    except OSError as error:
        why = error.strerror or error
        raise pytest.UsageError(f"{error.filename}: {why}; give back its rights") from error


def refuse_missing(config: pytest.Config, grid: Grid) -> None:
    """Raises ConfigError with everything that the run needs and does not find, before anything is
    computed. A run of some tests only reports what these lack, as INCOMPLETE."""
    if is_narrowed(config):
        return
    if lacking := missing(grid, grid.cases):
        raise ConfigError(
            f"tier {grid.tier.name} lacks {counted(len(lacking), 'thing')}, and nothing was "
            "computed; get what is missing, or leave it out (--model, --task, --scenario, "
            "--dataset, -k):\n" + "\n".join(script_lines("\n".join(script(lacking)), indent="  "))
        )


def is_worker(config: pytest.Config) -> bool:
    """True in a process that xdist started."""
    return hasattr(config, "workerinput")


def _end_with_parent(parent: int) -> None:
    """End this worker soon after its controller was killed, even amid a unit: every file is
    written as a whole or not at all."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)


def _end_at_second_interrupt(config: pytest.Config) -> None:
    """End at once at the second Ctrl-C, which would otherwise interrupt pytest's own report of the
    first."""
    previous = signal.getsignal(signal.SIGINT)

    def end(number: int, frame: FrameType | None) -> None:
        """The handler of the second."""
        os.write(2, b"\nnatadv: interrupted twice; what is stored is kept, run again to go on\n")
        os._exit(pytest.ExitCode.INTERRUPTED)

    def interrupt(number: int, frame: FrameType | None) -> None:
        """The handler of the first."""
        signal.signal(signal.SIGINT, end)
        raise KeyboardInterrupt

    def restore() -> None:
        """Hand interrupts back to pytest's caller."""
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, interrupt)
    config.add_cleanup(restore)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """For `-n auto`, as many workers as models fit on the GPUs, if there are any."""
    if not runs_gates(config):
        return None
    # pytest is not configured yet.
    options.settle(config)
    gpus = _teams(config)
    return len(gpus) * int(config.getoption("natadv_gpu_slots")) if gpus else None


def _teams(config: pytest.Config) -> tuple[str, ...]:
    return teams(visible_gpus(), gpus_per_model=config.getoption("natadv_gpus_per_model"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    """Pin each worker of a gate run to a GPU, or to those that hold a model together."""
    if not runs_gates(config):
        return
    gpus = _teams(config)
    if CONTROLLER in config.stash:
        config.stash[CONTROLLER].watch(gpus[: len(specs)])
    for i, spec in enumerate(specs):
        # In the spec, hence before the worker imports anything, and kept by its replacement.
        spec.env.update(pinned_environment(i, gpus, workers=len(specs)))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a gate once for each case that its marker stands for."""
    if "case" not in metafunc.fixturenames:
        return
    session = metafunc.config.stash.get(SESSION, None)
    mark = metafunc.definition.get_closest_marker("gate")
    if mark is None:
        return
    if session is None:
        pytest.fail(NOT_FOUND, pytrace=False)
    cases, searched = session.grid.cases, session.grid.searched
    if mark.kwargs.get("baseline"):
        comparable = session.comparable(cases)
        ids = [AGAINST_BASELINE + case.address for case in comparable]
        metafunc.parametrize("case", comparable, ids=ids)
        return
    if mark.kwargs.get("searched"):
        asked = searched
    elif mark.kwargs.get("analysis"):
        asked = [case for case in cases if TASKS[case.task].analyses and case not in searched]
    else:
        of_task = [case for case in cases if case.task == mark.kwargs["task"]]
        asked = [case for case in of_task if case not in searched]
    metafunc.parametrize("case", asked, ids=[case.address for case in asked])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Drop a suite for whose task the grid has no case; pytest would report it as skipped."""
    items[:] = [
        item
        for item in items
        if item.get_closest_marker("gate") is None or isinstance(_case(item), Case | None)
    ]


def _case(item: pytest.Item) -> object:
    """The parameter `case` of a test; pytest's own mark if the grid has none for it, None if the
    test takes no case."""
    spec = getattr(item, "callspec", None)
    return None if spec is None else spec.params.get("case")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Compute before a worker reports its tests: no test can be blamed yet if the worker dies."""
    config = session.config
    gates = config.stash.get(SESSION, None)
    distributing = bool(config.getoption("tx", None)) and not is_worker(config)
    listing = options.is_in_mode(config, options.LISTING_MODES)
    if gates is None or distributing or listing or session.testsfailed:
        return
    cases = [case for case in map(_case, session.items) if isinstance(case, Case)]
    gates = config.stash[SESSION] = gates.select(cases).compute()
    if CONTROLLER in config.stash:
        controller, nodes = config.stash[CONTROLLER], [item.nodeid for item in session.items]
        controller.add_worker_problems(gates.worker_problems)
        controller.pytest_xdist_node_collection_finished(nodes)


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Gate:
    """Judges one case from what the store holds."""
    session = request.config.stash.get(SESSION, None)
    if session is None:
        pytest.fail(NOT_FOUND, pytrace=False)
    return Gate(session, request.node)


# Innermost, so that Allure reads what is shown here.
@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the message of a verdict, which is not a bug, without a traceback through the plugin."""
    options.restore_allure_folder(item.config)
    report = yield
    if call.excinfo is not None and call.excinfo.errisinstance((GateFailure, InfraError)):
        report.longrepr = str(call.excinfo.value)
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the controller what kept this worker from measuring."""
    config = session.config
    if is_worker(config) and SESSION in config.stash:
        problems = list(config.stash[SESSION].worker_problems)
        config.workeroutput["natadv_problems"] = problems  # type: ignore[attr-defined]

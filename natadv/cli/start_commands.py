"""`natadv gate` and `natadv init`: a gate in any folder."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from natadv.cli import shared_options as opt
from natadv.errors import ConfigError
from natadv.exit_codes import DONE
from natadv.places import CONTRACT
from natadv.report.terminal import aligned

if TYPE_CHECKING:
    from natadv.starter.repository import GatedModel, StarterFile, Written

MODEL = "./checkpoint"
app = opt.command_group()


class _PytestCommand(opt.Command):
    """A command that hands its words to pytest as they are."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read nothing but a request for help that does not follow `--`."""
        asks = args[:1] != ["--"] and any(word in ("-h", "--help") for word in args)
        return super().parse_args(ctx, ["--help"] if asks else ["--", *args[args[:1] == ["--"] :]])


@app.command(
    cls=_PytestCommand, epilog=opt.example("natadv gate -n 2 --model ./checkpoint --tier mini")
)
def gate(
    words: Annotated[
        list[str] | None, opt.argument("WORD", "options of pytest and of the gate, paths")
    ] = None,
) -> int:
    """Run the gate: pytest with the suites of this folder, or with those of natadv where it has
    none. What else it lacks comes from installed packages, such as the mini world of natadv-mini.

    All options of pytest and of the gate are taken: natadv gate -- --help shows them. Unless -n is
    given, as many processes work as fit this machine. pytest's settings and conftest.py in a
    repository count for its own suites alone.

    Exit codes, which are pytest's: 0 green, 1 not green, 2 interrupted, 4 the input is wrong.
    """
    from natadv.starter.run import run_gate
    from natadv.storage.progress import clear_lines

    # From here on pytest says what goes on.
    clear_lines()
    return run_gate(words or (), here=Path.cwd())


@app.command(cls=opt.Command, epilog=opt.example("natadv init --model ./checkpoint"))
def init(
    model: Annotated[str | None, opt.text("MODEL", f"to gate; default: {MODEL}")] = None,
    dataset: Annotated[
        list[str] | None, opt.text("NAME...", "that it is gated on; default: all that are here")
    ] = None,
    example: Annotated[
        bool, opt.flag("--example", "make a model and datasets too, whose gate is red, then green")
    ] = False,
) -> int:
    """Write what a gate needs into this folder, and say what each file is for: suites, a contract
    with a tier for the model, a workflow for GitHub. What is there already stays as it is.

    Exit codes: 0 everything is there now, 4 nothing could be written, or not all of it.
    """
    if example and (model or dataset):
        raise typer.BadParameter("--example brings a model and datasets of its own")
    root = Path.cwd()
    return _example(root) if example else _init(model or MODEL, dataset, root=root)


def _init(given: str, dataset: Sequence[str] | None, *, root: Path) -> int:
    from natadv.starter.repository import cells_for, gated_model, starter_files

    model = gated_model(given, root=root)
    cells = cells_for(model, root=root, named=opt.names_of(dataset))
    _write(list(starter_files(model, cells, root=root)), root=root)
    _tell_next(model, root=root)
    return DONE


def _example(root: Path) -> int:
    from natadv.gate.waivers import today_utc
    from natadv.starter import example

    if taken := example.taken(root):
        if example.GUIDE in taken:
            print(f"kept   {example.GUIDE}: the example is here already; read it")
            return DONE
        there = ", ".join(map(str, taken))
        raise ConfigError(f"expected a folder without {there}, which the example brings itself")
    print("making models and datasets, and measuring the released model: less than a minute")
    made = example.make_example(root, today=today_utc())
    _write(made.files, root=root)
    print(f"\nread {example.GUIDE}, or begin with:\n  pytest suites/ -n 2 --model {MODEL}")
    return DONE


def _write(files: Sequence[StarterFile], *, root: Path) -> None:
    """Write what is missing, with a line for each file."""
    from natadv.starter.repository import write_missing

    became: list[Written] = []
    try:
        for one in write_missing(files, root=root):
            became.append(one)
    finally:
        if lines := [(one.done, one.path.as_posix(), one.purpose) for one in became]:
            print(*aligned(lines, right=()), sep="\n")
    if all(one.done == "kept" for one in became):
        print("everything was here already, and nothing was changed")


def _tell_next(model: GatedModel, *, root: Path) -> None:
    """Print what the user should know, and the next commands."""
    from natadv.starter.repository import (
        CONFTEST,
        WORKFLOW,
        next_commands,
        packaged_suites,
    )

    top = next((path for path in (root, *root.parents) if (path / ".git").exists()), root)
    remarks = {
        f"{CONFTEST} is your own and does not load the gate: add to it what that of natadv says "
        f"({packaged_suites() / CONFTEST.name}), or run the gate by natadv gate": "natadv"
        not in _text(root / CONFTEST),
        f"{CONTRACT} is your own and has no tier for {model.name}: the next two commands add one": (
            model.name not in _text(root / CONTRACT)
        ),
        f"GitHub reads workflows in {top / '.github'} alone: move {WORKFLOW} there": top != root,
        model.note: bool(model.note),
    }
    for remark in (text for text, holds in remarks.items() if holds):
        print("\n" + textwrap.fill(remark, 100, break_long_words=False, break_on_hyphens=False))
    commands = [(f"  {command}", f"# {why}") for command, why in next_commands(model)]
    print("\nnext:", *aligned(commands, right=()), sep="\n")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")

"""The `natadv` command. Each of its commands is imported only when it is called."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from natadv import __version__
from natadv.errors import NatadvError, unknown_name
from natadv.exit_codes import DONE, exit_code_of

COMMANDS = {
    "init": ("start_commands", "write what a gate in your own repository needs, or an example"),
    "try": ("try_command", "measure any model on the mini world, with no rules and no set-up"),
    "gate": ("start_commands", "run the gate: pytest with the suites of this folder, or of natadv"),
    "plan": ("gate_commands", "show what a run of the gate would measure, and what it lacks"),
    "models": ("models_commands", "list the models that have a name, and fetch them"),
    "doctor": ("models_commands", "check that a model is whole, safe, and fed as it was trained"),
    "train": ("models_commands", "train a head or a sparse autoencoder on a frozen tower"),
    "heads": ("models_commands", "publish or fetch a head; show what each attention head is for"),
    "merge": ("gate_commands", "put the evidence of several runs of one tier together"),
    "judge": ("report_commands", "judge stored evidence again, and write gate.json"),
    "bless": (
        "baseline_commands",
        "keep a green run as a baseline that later ones are compared with",
    ),
    "compare": ("baseline_commands", "compare two runs sample by sample: what is newly failing"),
    "contract": ("contract_commands", "compare versions of the contract, or take one out of git"),
    "calibrate": ("contract_commands", "raise measured rules to what the last run has reached"),
    "whatif": ("contract_commands", "show what another contract would change in the last verdict"),
    "selfcheck": ("selfcheck_command", "audit the gate itself: its errors, its power, sabotage"),
    "data": ("data_commands", "import and list datasets"),
    "typo": ("dataset_commands", "write a wrong word on every picture of a dataset"),
    "reading": ("dataset_commands", "ask for the words on the pictures of a typographic dataset"),
    "overlays": ("dataset_commands", "draw a population of typographic overlays, and look at it"),
    "filter": ("dataset_commands", "keep the pictures that every model of an ensemble gets wrong"),
    "annotate": ("annotate_commands", "give a dataset masks or questions that a person can review"),
    "search": ("search_commands", "find the smallest typographic overlay that flips a model"),
    "replay": ("search_commands", "show an attack that was found on one model to another"),
    "freeze": ("search_commands", "keep an attack as a counter-example that the gate can judge"),
    "langadv": ("langadv_commands", "search for prompts whose pictures fool classifiers"),
    "explain": ("explain_command", "show where a model looks for its answers, on any samples"),
    "latents": ("latents_command", "show what the latents of a sparse autoencoder do on datasets"),
    "defend": ("defend_command", "make a checkpoint that written words fool less, at what cost"),
    "defences": ("defend_command", "compare defended checkpoints of one model"),
    "report": ("report_commands", "write the last run as HTML, JUnit, Markdown, SARIF and others"),
    "figures": ("figures_command", "draw the figures and tables of the paper from a run"),
    "reproduce": ("reproduce_command", "compare published numbers with those of a run"),
    "evidence": ("report_commands", "pack the evidence of a run, and state what it shows"),
    "verify": ("report_commands", "recompute the verdict of packed evidence from its rows"),
    "schema": ("report_commands", "print the JSON schema of gate.json"),
}
"""Name -> the module of this package whose `app` holds the command, and its line in the help."""

SECTIONS = {
    "init": "Begin",
    "plan": "Measure",
    "judge": "Judge",
    "data": "Data",
    "search": "Attacks",
    "explain": "Why, and how to mend it",
    "report": "Report",
}
"""Command -> the title above it in the help, which holds for those below it too."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, as `natadv.exit_codes` names it."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return exit_code_of(partial(_run, words), words=words)


def _run(words: list[str]) -> int:
    """Run a command. Raises ConfigError if there is none such, or an option of it is wrong."""
    command = typer.main.get_group(app)
    for name, (_, text) in COMMANDS.items():
        command.add_command(TyperCommand(name, help=text))
    try:
        with command.make_context("natadv", words) as context:
            return int(command.invoke(context) or DONE)
    except (NatadvError, KeyboardInterrupt):
        # Below a half-written line of progress an error would be hard to read.
        from natadv.storage.progress import clear_lines

        clear_lines()
        raise
    except typer.Exit as end:
        return end.exit_code
    except typer.TyperException as error:
        # Imported here because no other command needs it when only the help is shown.
        from natadv.cli.shared_options import usage_error

        raise usage_error(error) from error


def command_named(name: str) -> Any:
    """The command, or the group of commands, of that name in `COMMANDS`; imports its module."""
    module = importlib.import_module(f"{__name__}.{COMMANDS[name][0]}")
    return typer.main.get_group(module.app).commands[name]


class _Commands(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse; an empty value of any command is a usage error."""
        for word in args:
            # A comma alone is a list of names without any.
            if re.fullmatch(r"(--[\w-]+=)?[\s,]*", word):
                ctx.fail(f"expected a value, got nothing in {word!r}; is a variable unset?")
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Import the command that stands behind its placeholder in the help."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise unknown_name("natadv command", args[0], COMMANDS)
        name, placeholder, rest = super().resolve_command(ctx, args)
        if name not in COMMANDS:
            return name, placeholder, rest
        return name, command_named(name), rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands by what they are for."""
        sections: list[list[tuple[str, str]]] = []
        longest = max(map(len, COMMANDS))
        for name, (_, text) in COMMANDS.items():
            if name in SECTIONS:
                sections.append([])
            sections[-1].append((name.ljust(longest), text))
        for title, rows in zip(SECTIONS.values(), sections, strict=True):
            with formatter.section(title):
                formatter.write_dl(rows)


app = typer.Typer(
    cls=_Commands,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
    rich_markup_mode=None,
    add_completion=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"natadv {__version__}")
        raise typer.Exit


@app.callback()
def natadv(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="show the version"),
    ] = False,
) -> None:
    """Robustness gate for vision-language models.

    The gate itself is run by pytest: `pytest suites/ --help` shows its options under 'robustness
    gate'. `natadv COMMAND --help` shows an example of each command.

    Exit codes of all commands: 0 done, or green; 1 done, and something does not hold or is missing;
    4 a name, an option, a file or this machine is wrong, and a line says what to do.
    """

"""How options are declared, and those that several commands share."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError
from typer.core import TyperCommand, TyperGroup, TyperOption

from natadv.arguments import wrong_words
from natadv.config import shown
from natadv.errors import ConfigError, unknown_name
from natadv.places import CONTRACT as CONTRACT
from natadv.places import EVIDENCE as EVIDENCE
from natadv.places import GATE_JSON as GATE_JSON
from natadv.places import STORE as STORE
from natadv.places import find
from natadv.storage.atomic import why_unwritable
from natadv.tasks import ASKED
from natadv.wrapping import copyable, script_lines, wrapped

if TYPE_CHECKING:
    from natadv.pipelines.embedders import Arithmetic

CPUS = os.cpu_count() or 1
PROGRAMS = ("natadv ", "pytest ", "dvc ")
"""What lines with a command begin with."""
WIDTH_OF_HELP = 76
"""Of what must not be wrapped in a terminal of 80 columns."""


class Command(TyperCommand):
    """A command whose repeatable options take several values: `--set A=1 B=2`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what typer can read; a usage error if an option lacks its value."""
        return super().parse_args(ctx, _one_value_each(self, ctx, args))

    def invoke(self, ctx: Any) -> Any:
        """Run it; what takes long and says nothing itself is said to go on."""
        from natadv.storage.progress import underway

        with underway(str(ctx.command_path), sys.stderr):
            return super().invoke(ctx)


class Group(TyperGroup):
    """A group of commands that reads its own options as `Command` does."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that a word names. Raises UnknownNameError."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise unknown_name(f"{ctx.command_path} command", args[0], self.commands)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as `Command.parse_args` does."""
        return super().parse_args(ctx, _one_value_each(self, ctx, args))


def _one_value_each(command: Command | Group, ctx: Any, args: list[str]) -> list[str]:
    """The words with `--set A=1 B=2` as `--set A=1 --set B=2`, which typer can read.

    An option without a value is a usage error: typer would take the next option for its value, as
    in `--model $UNSET --data mini`.
    """
    options = [param for param in command.params if isinstance(param, TyperOption)]
    valued = {name for option in options if not option.is_flag for name in option.opts}
    repeatable = {name for option in options if option.multiple for name in option.opts}
    words: list[str] = []
    current = ""
    for before, word in pairwise(["", *args]):
        if before in valued and word.startswith("--"):
            ctx.fail(f"Option {before!r} requires an argument.")
        if word.startswith("-"):
            current = word if word in repeatable else ""
        elif current and before != current:
            words.append(current)
        words.append(word)
    return words


def command_group(text: str | None = None, *, metavar: str = "COMMAND") -> typer.Typer:
    """A group of commands whose help is plain text.

    Args:
        text: Its description; None for the top level of a module, which is never shown.
        metavar: Stands for its commands in the usage line.
    """
    usage = f"{metavar} [ARGS]..."
    return typer.Typer(cls=Group, help=text, subcommand_metavar=usage, rich_markup_mode=None)


def example(command: str, *, more: str = "") -> str:
    """What stands below the help of a command: a call that can be copied, and `more` below it."""
    lines = copyable(f"Example: {command}", width=WIDTH_OF_HELP)
    # Typer keeps the lines of a paragraph that starts with \b as they are.
    kept = "\b\n" * (len(lines) > 1)
    return kept + "\n".join(lines) + (f"\n\n{more}" if more else "")


def text(metavar: str, about: str, *names: str) -> Any:
    """Declares an option, of any type that typer can read."""
    return typer.Option(*names, metavar=metavar, help=about)


def flag(name: str, about: str) -> Any:
    """Declares an option without a value."""
    return typer.Option(name, help=about)


def count(about: str, *, metavar: str = "N", at_least: int = 1) -> Any:
    """Declares an option for a whole number from `at_least` on."""
    return typer.Option(min=at_least, metavar=metavar, help=about)


def path(about: str, *, metavar: str = "DIR", show_default: bool = True, **more: Any) -> Any:
    """Declares an option for a path; the command itself checks whether it can be read."""
    return typer.Option(
        readable=False, metavar=metavar, help=about, show_default=show_default, **more
    )


def output(about: str, *names: str, metavar: str = "DIR") -> Any:
    """Declares an option for what a command writes: a folder if its metavar is DIR, else a file.

    What cannot be written is refused before anything is computed.
    """

    def is_writable(given: Path | None) -> Path | None:
        """The path, or a usage error."""
        why = given and why_unwritable(given, folder=metavar == "DIR")
        if why:
            raise typer.BadParameter(f"{given} cannot be written: {why}")
        return given

    return typer.Option(*names, readable=False, metavar=metavar, help=about, callback=is_writable)


def root(about: str) -> Any:
    """Declares an option for the folder that holds the files of a repository."""

    def is_folder(given: Path | None) -> Path | None:
        """The folder, or a usage error."""
        if given is not None and not given.is_dir():
            raise typer.BadParameter(f"expected a folder, got {str(given)!r}")
        return given

    return typer.Option(
        readable=False, metavar="DIR", help=about, show_default=False, callback=is_folder
    )


def argument(metavar: str, about: str | None = None) -> Any:
    """Declares a positional argument, of any type that typer can read."""
    return typer.Argument(readable=False, metavar=metavar, help=about)


def number(about: str, metavar: str, allowed: Callable[[float], bool], expected: str) -> Any:
    """Declares an option for a number that must be `allowed`; `expected` says which ones are."""

    def checked(given: str | float) -> float:
        """The number, or a usage error."""
        try:
            value = float(given)
        except ValueError:
            value = math.nan
        if not allowed(value):
            raise typer.BadParameter(f"expected a number {expected}, got {shown(given)}")
        return value

    return typer.Option(parser=checked, metavar=metavar, help=about)


def contract_at(given: Path) -> Path:
    """The file of the contract; that of the package if none was named and none lies here."""
    return find(CONTRACT, Path()) if given == CONTRACT else given


def split_names(given: str) -> tuple[str, ...]:
    """The names between commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))


def names_of(given: Iterable[str] | None) -> tuple[str, ...]:
    """The names of an option that may be repeated, or hold several with commas."""
    return tuple(name for names in given or () for name in split_names(names))


def tell(*lines: str) -> None:
    """Print lines for people; one that is too wide goes on below, deeper by four columns. Commands
    can be copied as they are."""
    for line in "\n".join(lines).split("\n") if lines else ():
        own = line.lstrip()
        deeper = " " * (len(line) - len(own) + 4)
        pieces = script_lines(line) if own.startswith(PROGRAMS) else wrapped(line, hanging=deeper)
        print(*pieces, sep="\n")


def usage_error(error: typer.TyperException) -> ConfigError:
    """What is wrong with a command line, in one line that names the help to read."""
    why = " ".join(error.format_message().split()).rstrip(".")
    why = f"{why[:1].lower()}{why[1:]}"
    mistake = error.__cause__
    if isinstance(error, typer.BadParameter) and not why.startswith("missing"):
        option = f"{error.param.get_error_hint()}: ".replace("'", "") if error.param else ""
        expected = _expected(mistake) if isinstance(mistake, ValidationError) else error.message
        why = f"{option}{expected}"
    context = getattr(error, "ctx", None)
    return wrong_words(why, context.command_path) if context else ConfigError(why)


def _expected(mistake: ValidationError) -> str:
    """What a value should have been, and what it is."""
    first = mistake.errors(include_url=False)[0]
    given, bounds = f"got {shown(first['input'])}", first.get("ctx", {})
    expected = {
        "int_parsing": "a whole number",
        "float_parsing": "a number",
        "greater_than_equal": f"at least {bounds.get('ge')}",
        "less_than_equal": f"at most {bounds.get('le')}",
    }
    if first["type"] in expected:
        return f"expected {expected[first['type']]}, {given}"
    return first["msg"].removeprefix("Value error, ").rstrip(".")


def arithmetic(device: str, *, batch_size: int | None = None, threads: int = 1) -> Arithmetic:
    """How models compute; `auto` is a GPU if one is visible, else the CPU."""
    from natadv.evaluate.devices import batch_size_for, usable_device
    from natadv.pipelines.embedders import Arithmetic

    device = usable_device(device)
    return Arithmetic(device, batch_size_for(device, batch_size), threads)


TaskName: Any = Literal[tuple(ASKED)]
Dataset = Annotated[str, argument("DATASET", "of natadv data list")]
Data = Annotated[str, text("DATASET", "of natadv data list")]
NewName = Annotated[str, text("NAME", "of the dataset to make", "--name")]
Model = Annotated[str, text("MODEL", "as pytest --model takes it")]
Device = Annotated[str, text("DEVICE", "cpu, cuda or cuda:N; auto: a GPU if seen")]
BatchSize = Annotated[int | None, count("pictures per forward pass (16 on a CPU, 64 on a GPU)")]
Threads = Annotated[int, count("of a model on the CPU")]
Thresholds = Annotated[
    Path, path("tiers and rules", metavar="FILE", callback=lambda given: contract_at(given))
]
Limit = Annotated[int | None, count("use the first N rows only")]
Seed = Annotated[int, text("N", "of all that is drawn")]
Force = Annotated[bool, flag("--force", "replace what has that name")]
Root = Annotated[Path, root("holds fixtures/; default: the working directory")]
Store = Annotated[Path | None, output(f"results that are never computed twice ({STORE})")]
Section = Annotated[str | None, text("SECTION", "of params.yaml, with settings", "--settings")]
Overrides = Annotated[list[str] | None, text("NAME=VALUE...", "override that section", "--set")]

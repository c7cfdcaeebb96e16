"""`natadv contract diff` and `natadv report`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

from natadv.cli import shared_options as opt
from natadv.errors import ConfigError
from natadv.report.html import write_report

ALIKE, WEAKER, WRONG_FILE = 0, 1, 4

app = opt.command_group()
contract = opt.command_group("Compare two versions of thresholds.yaml.")
app.add_typer(contract, name="contract")


@contract.command(
    cls=opt.Command,
    short_help="whether the new one lets pass what the old one did not",
    epilog="Example: natadv contract diff <(git show main:thresholds.yaml)",
)
def diff(
    old: Annotated[Path, opt.argument("OLD")],
    new: Annotated[Path, opt.argument("NEW")] = Path("thresholds.yaml"),
) -> int:
    """Compare what two contracts ask of every case of every tier, even if they are written
    differently.

    Exit codes: 0 nothing is weaker, 1 something is, 4 a file is wrong.
    """
    from natadv.gate.contract import EFFECTS, differences
    from natadv.gate.rules import load_thresholds

    try:
        changes = differences(load_thresholds(old), load_thresholds(new))
    except ConfigError as error:
        print(f"natadv: {error}", file=sys.stderr)
        return WRONG_FILE
    if not changes:
        print("both contracts ask the same")
        return ALIKE
    for change in changes:
        print(change)
    counts = Counter(change.effect for change in changes)
    listed = ", ".join(f"{counts[effect]} {effect.lower()}" for effect in EFFECTS)
    print(f"{listed}: {'the gate lets more pass' if counts['WEAKER'] else 'nothing is weaker'}")
    return WEAKER if counts["WEAKER"] else ALIKE


@app.command(cls=opt.Command)
def report(
    results: Annotated[Path, opt.path("of the gate's last run")] = Path("allure-results"),
    out: Annotated[Path, opt.path("the page", metavar="FILE")] = Path("allure-report")
    / "index.html",
) -> None:
    """Write the last run's Allure results as one self-contained HTML page."""
    page = write_report(results, out, tools=Path(".natadv/tools").absolute())
    print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")

"""Builds the site: `python -m website [--out DIR]`. Every mistake of a page is an error.

Links, spelling and code blocks are checked first; then the reference is made from the code, and all
pages become HTML, with their Markdown beside it and llms.txt; then what was built is checked.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from natadv.errors import NatadvError, counted
from natadv.exit_codes import DONE, NOT_GREEN
from website import built, pages, spelling
from website.block_checks import wrong_blocks
from website.blocks import ROOT


def main() -> int:
    """Build, and return `DONE` if nothing is wrong; else print each mistake on a line."""
    parser = argparse.ArgumentParser(prog="python -m website", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="folder of the site (site)")
    site = parser.parse_args().out.resolve()
    try:
        wrong = [*pages.wrong_links(), *spelling.mistakes(), *wrong_blocks()]
        names = [] if wrong else pages.stage(ROOT / "build" / "docs")
    except NatadvError as error:
        wrong, names = [str(error)], []
    if not wrong:
        wrong = _built(site, names)
    for line in wrong:
        print(line, file=sys.stderr)
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) / 1e6
    end = counted(len(wrong), "mistake") if wrong else f"{site}/index.html, {size:.0f} MB"
    print(f"{counted(len(names), 'page')}: {end}")
    return NOT_GREEN if wrong else DONE


def _built(site: Path, names: list[str]) -> list[str]:
    """Write the site, and return what is wrong with it."""
    command = [
        *(sys.executable, "-m", "mkdocs", "build", "--quiet", "--clean"),
        *("--site-dir", str(site)),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=False
    )
    if done.returncode:
        return [f"mkdocs: exit {done.returncode}"]
    built.write_markdown(site, names)
    return built.mistakes(site, names)


if __name__ == "__main__":
    sys.exit(main())

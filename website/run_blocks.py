"""Runs the command blocks of the pages: `python -m website.run_blocks [PAGE ...]`.

Each page has a copy of the repository of its own, in which the gate has run on the mini world, and
its blocks run there from top to bottom: `cd` and `export` hold for the next one. A block with a
title is written to the file that it names. What is not run is listed with its reason.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from natadv.errors import ConfigError, NatadvError, counted
from natadv.exit_codes import DONE, NOT_GREEN, REFUSED
from website.blocks import ROOT, Block, blocks_of, pages

LAST_LINES = 12
"""Of the output of a block that failed."""
MOST_SECONDS = 1800
"""For one block."""

# A block begins where the one before it ended.
_BLOCK = """
set -eo pipefail
[ ! -f "$STATE" ] || . "$STATE"
save() {{ code=$?; {{ export -p; printf 'cd %q\\n' "$PWD"; }} > "$STATE"; exit $code; }}
trap save EXIT
{text}
"""
# A commit that has `main` and `origin/main`, as in a reader's clone.
_CLONED = """
set -e
git init -q -b main . && git add -A
git -c user.name=reader -c user.email=reader@example.org commit -q -m "natadv"
git config user.name reader && git config user.email reader@example.org
git update-ref refs/remotes/origin/main HEAD
"""


@dataclass(slots=True)
class PageRun:
    """What became of the blocks of a page."""

    lines: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def main() -> int:
    """Run, print a line for each block, and return `DONE` if none failed."""
    parser = argparse.ArgumentParser(prog="python -m website.run_blocks", description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, help="only these (all)")
    parser.add_argument("--list", action="store_true", help="only list what is not run, and why")
    parser.add_argument("-n", dest="at_once", type=int, default=1, help="pages at a time (1)")
    parser.add_argument("--keep", type=Path, help="folder for the copies, which stay there")
    options = parser.parse_args()
    try:
        chosen = {page: blocks_of(page) for page in _chosen(options.pages)}
    except NatadvError as error:
        print(f"website.run_blocks: {error}", file=sys.stderr)
        return REFUSED
    if options.list:
        for block in _unrun(chosen.values()):
            print(f"{block.where}: not run: {block.not_run}")
        return DONE
    return _run(chosen, at_once=options.at_once, keep=options.keep)


def _chosen(given: Sequence[Path]) -> list[Path]:
    wanted = [path.resolve() for path in given] or pages()
    if absent := [str(path) for path in wanted if not path.is_file()]:
        raise ConfigError(f"expected pages, got {', '.join(absent)}")
    return wanted


def _run(chosen: dict[Path, list[Block]], *, at_once: int, keep: Path | None) -> int:
    folder = keep or Path(tempfile.mkdtemp(prefix="natadv-docs-"))
    try:
        began = time.monotonic()
        finished = prepare(folder / "finished")
        print(f"a copy in which the gate has run: {time.monotonic() - began:.0f} s", flush=True)
        counts: Counter[str] = Counter()
        with ThreadPoolExecutor(at_once) as pool:
            runs = pool.map(partial(run_page, finished=finished, folder=folder), chosen.values())
            for run in runs:
                print("".join(f"{line}\n" for line in run.lines), end="", flush=True)
                counts += run.counts
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    unrun = _unrun(chosen.values())
    kinds = Counter(block.not_run.partition(",")[0] for block in unrun)
    why = ", ".join(f"{kind} {n}" for kind, n in kinds.most_common())
    print(
        f"{counted(counts['ran'], 'block')} ran, {counts['failed']} failed, "
        f"{counts['written']} written as files, {len(unrun)} not run{why and f' ({why})'}"
    )
    return NOT_GREEN if counts["failed"] else DONE


def _unrun(chosen: Iterable[Sequence[Block]]) -> list[Block]:
    return [block for blocks in chosen for block in blocks if block.not_run]


def prepare(folder: Path) -> Path:
    """Copy what git knows, or would add, into a repository of its own, and run the gate there.
    Raises ConfigError with the end of its output if it is not green."""
    if (folder / "gate.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    subprocess.run(["bash", "-c", _CLONED], cwd=folder, check=True)
    make_environment(folder)
    done = _bash("pytest suites/ -n 2 -q", folder, folder.with_name("finished.state"))
    if done.returncode:
        raise ConfigError(f"the gate has to be green first:\n{done.stdout[-2000:]}")
    return folder


def make_environment(folder: Path) -> None:
    """Put a `.venv` into a copy of the repository that has all packages of this Python and its own
    commands `natadv` and `pytest`, and in which `make` finds everything installed. It has no pip,
    so that no block changes the packages of this Python."""
    environment = folder / ".venv"
    venv.create(environment, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    # With the .pth files that lie there.
    lines = [f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages()]
    packages.joinpath("outer.pth").write_text("".join(lines), encoding="utf-8")
    for name, module in (("natadv", "natadv.cli"), ("pytest", "pytest")):
        command = environment / "bin" / name
        # Guarded as an installer writes it: a process that a command spawns imports this file.
        start = f"import sys\nfrom {module} import main\nif __name__ == '__main__':\n"
        head = f"#!{environment / 'bin' / 'python'}\n"
        command.write_text(f"{head}{start}    sys.exit(main())\n", encoding="utf-8")
        command.chmod(0o755)
    rules = (folder / "Makefile").read_text(encoding="utf-8")
    for stamp in {*re.findall(r"\.venv/(installed[\w-]*)", rules)}:
        (environment / stamp).touch()


def run_page(blocks: Sequence[Block], *, finished: Path, folder: Path) -> PageRun:
    """Run the blocks of a page in a copy of its own, each even if an earlier one failed."""
    run = PageRun()
    runnable = [block for block in blocks if block.runs]
    if not runnable:
        return run
    name = runnable[0].page.stem
    copy = folder / name
    shutil.rmtree(copy, ignore_errors=True)
    (folder / f"{name}.state").unlink(missing_ok=True)
    shutil.copytree(finished, copy, symlinks=True)
    for block in runnable:
        if block.title:
            target = copy / block.title
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
            run.counts["written"] += 1
            continue
        began = time.monotonic()
        done = _bash(block.text, copy, folder / f"{name}.state")
        seconds = time.monotonic() - began
        failed = done.returncode != block.exit_code
        run.counts["failed" if failed else "ran"] += 1
        run.lines.append(f"{block.where}: {'FAILED' if failed else 'ran'} in {seconds:.0f} s")
        if failed:
            run.lines.append(f"    exit {done.returncode}, expected {block.exit_code}")
            run.lines += [f"    {line}" for line in done.stdout.splitlines()[-LAST_LINES:]]
    return run


def _bash(text: str, folder: Path, state: Path) -> subprocess.CompletedProcess[str]:
    """Run a script from where the one before it ended, without a terminal."""
    scripts = str(Path(sys.executable).parent)
    variables = {
        "PATH": os.pathsep.join([str(folder / ".venv" / "bin"), scripts, os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "STATE": str(state),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        # Should a block call another pip after all.
        "PIP_DRY_RUN": "1",
        "PIP_NO_INDEX": "1",
        "COLUMNS": "100",
    }
    command = ["timeout", str(MOST_SECONDS), "bash", "--noprofile", "--norc", "-c"]
    return subprocess.run(
        [*command, _BLOCK.format(text=text)],
        cwd=folder,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())

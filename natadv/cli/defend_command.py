"""`natadv defend` and `natadv defences`: a defended checkpoint, and several compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from natadv.cli import shared_options as opt
from natadv.defences.settings import SETTINGS, DefenceSettings, MethodName, settings_for
from natadv.evaluate.devices import usable_device

app = opt.command_group()

_METHODS = ", ".join(SETTINGS)
_SHARED = DefenceSettings.model_fields.keys()
_SETTINGS = "; ".join(
    f"{name}: {', '.join(sorted(kind.model_fields.keys() - _SHARED))}"
    for name, kind in SETTINGS.items()
)


@app.command(
    cls=opt.Command,
    epilog=opt.example(
        "natadv defend --model mini-clip --data mini-defend --method words --out words",
        more="Settings (by default of section defend-METHOD): "
        f"{', '.join(sorted(_SHARED))}; of {_SETTINGS}.",
    ),
)
def defend(
    model: opt.Model,
    data: opt.Data,
    method: Annotated[MethodName, opt.text("METHOD", _METHODS)],
    out: Annotated[Path, opt.output("gets the defended checkpoint and its report")],
    section: opt.Section = None,
    overrides: opt.Overrides = None,
    seed: opt.Seed = 1,
    limit: opt.Limit = None,
    device: opt.Device = "auto",
    threads: opt.Threads = opt.CPUS,
    force: opt.Force = False,
) -> None:
    """Make a checkpoint that written words fool less, and say what that costs.

    The dataset is a clean one with classes. Half of its pictures, with wrong words of half of its
    class names drawn on them, decide about the defence; the other pictures and words measure it.
    """
    root = Path.cwd()
    settings = settings_for(
        method, root=root, section=section, overrides=overrides or [], seed=seed
    )
    from natadv.defences.defend import DefencePlan, defend
    from natadv.defences.report import terminal

    plan = DefencePlan(
        model=model,
        data=data,
        method=method,
        out=out,
        settings=settings,
        root=root,
        limit=limit,
        device=usable_device(device),
        threads=threads,
        force=force,
    )
    print(terminal(defend(plan), out=out))


@app.command(cls=opt.Command, epilog=opt.example("natadv defences defended/words defended/heads"))
def defences(
    folders: Annotated[list[Path], opt.argument("DIR", "that natadv defend has made")],
) -> None:
    """Compare defended checkpoints of one model, as a Markdown table with intervals of changes."""
    from natadv.defences.report import across, read_report

    print(across([read_report(folder) for folder in folders]))

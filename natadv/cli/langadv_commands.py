"""`natadv langadv search|pack ...`"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any, Literal

from natadv.cli import shared_options as opt
from natadv.data.card import DATASETS_FOLDER, UNSTATED
from natadv.evaluate.devices import usable_device
from natadv.langadv.diffusion import PUBLISHED, Drawing
from natadv.langadv.genetic import SearchSettings, settings_for
from natadv.langadv.search_plan import ANIMALS, GROUP, plan_of, plug_named
from natadv.langadv.word_space import SPACES

_GENERATOR = (
    "a text-to-image pipeline of diffusers: a folder, or an id on the hub such as "
    "Tongyi-MAI/Z-Image-Turbo; or one of your own: module:factory, where the module may lie in the "
    f"working directory, or an entry point of {GROUP}, such as mini in a clone"
)
_TARGET = "models to fool, as pytest --model takes them; default: those of the generator"
_CLASSES = f"default: those of the generator, or else {ANIMALS}"
_WORDS = f"{', '.join(SPACES)}, or a generator of your own; default: its own, or else animals"
_SETTINGS = f"Settings (of section langadv): {', '.join(sorted(SearchSettings.model_fields))}."
_Dtype = Literal["bfloat16", "float16", "float32"]
_Devices = Annotated[str, opt.text("DEVICE", "cpu, cuda, or several as cuda:0,cuda:1")]

app = opt.command_group()
langadv = opt.command_group(
    "Search for prompts whose pictures fool classifiers, and pack them.", metavar="ACTION"
)
app.add_typer(langadv, name="langadv")


@langadv.command(
    cls=opt.Command,
    short_help="run the genetic algorithm",
    epilog=opt.example(
        "natadv langadv search --generator mini --settings mini-langadv --out found",
        more=_SETTINGS,
    ),
)
def search(
    generator: Annotated[str, opt.text("NAME", _GENERATOR)],
    out: Annotated[Path, opt.output("keeps everything")],
    target: Annotated[str | None, opt.text("M1,M2", _TARGET)] = None,
    consistency: Annotated[str | None, opt.text("MODEL", "judges what pictures show")] = None,
    classes: Annotated[str | None, opt.text("A,B", _CLASSES)] = None,
    words: Annotated[str | None, opt.text("SPACE", _WORDS)] = None,
    section: opt.Section = None,
    overrides: opt.Overrides = None,
    device: _Devices = "auto",
    dtype: Annotated[_Dtype, opt.text("DTYPE", "of the generator")] = "bfloat16",
    batch_size: Annotated[int, opt.count("pictures drawn at once")] = 4,
    steps: Annotated[int | None, opt.count("of the generator")] = None,
    guidance: Annotated[
        float | None, opt.number("of the generator", "G", lambda g: 0 <= g < math.inf, "from 0 on")
    ] = None,
    size: Annotated[int | None, opt.count("side of a picture", metavar="PX")] = None,
    revision: Annotated[str | None, opt.text("REV", "of the generator on the hub")] = None,
    processes: Annotated[int | None, opt.count("default: one per device")] = None,
) -> None:
    """Breed prompts whose pictures every target gets wrong.

    A search that was killed continues when it is started again in the same way, and ends with the
    same bytes. Several GPUs: --device cuda:0,cuda:1 gives each a process, which takes class after
    class.
    """
    from natadv.langadv.search_run import run_on_devices

    chosen: dict[str, Any] = {"steps": steps, "guidance": guidance, "side_px": size}
    drawing = replace(
        PUBLISHED.get(generator, Drawing()),
        dtype=dtype,
        batch=batch_size,
        revision=revision,
        **{option: value for option, value in chosen.items() if value is not None},
    )
    load = partial(
        plan_of,
        out=out,
        settings=settings_for(Path.cwd(), section=section, overrides=overrides or ()),
        generator=generator,
        drawing=drawing,
        classes=classes,
        words=words,
        target=target,
        consistency=consistency,
    )
    devices = [usable_device(name) for name in device.split(",")]
    history = run_on_devices(load, [*islice(cycle(devices), processes or len(devices))])
    print((out / "table.md").read_text(encoding="utf-8"), end="")
    accepted = sum(len(row["accepted"]) for row in history["histories"])
    print(f"{accepted} prompts accepted; {out / 'history.png'}")


@langadv.command(
    cls=opt.Command,
    epilog=opt.example("natadv langadv pack found --name my-langadv --per-class 60"),
)
def pack(
    out: Annotated[Path, opt.argument("DIR", "of a search that has ended")],
    name: opt.NewName,
    per_class: Annotated[int, opt.count("pictures of a class at most")] = 100,
    licence: Annotated[str | None, opt.text("TEXT", "of the pictures")] = None,
    force: opt.Force = False,
    root: opt.Root = Path(),
) -> None:
    """Pack the pictures of the accepted prompts."""
    from natadv.langadv.langadv_dataset import pack_accepted
    from natadv.langadv.search_run import plug_of, read_history

    plug = plug_named(plug_of(read_history(out)))
    folder = root / DATASETS_FOLDER
    card = pack_accepted(
        out,
        folder / name,
        per_class=per_class,
        licence=licence or (plug.licence if plug else UNSTATED),
        plug=plug,
        force=force,
    )
    print(f"{folder / card.name}: {card.rows} samples, {card.revision}")

"""`natadv search`, `natadv replay` and `natadv freeze`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from natadv.cli import shared_options as opt

if TYPE_CHECKING:
    from natadv.search.freeze import CounterexampleSet

OUT = Path(".natadv") / "attacks"

_Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: a GPU if seen")]
_SHARE = "of the pictures, that an attack has to flip by its letters"
_Share = opt.number(_SHARE, "SHARE", lambda value: 0 < value <= 1, "above 0 and at most 1")
_EVALUATIONS = "overlays that are tried at most while the attack is made smaller"
_DISCOVER = (
    "climb towards stronger overlays, N at most, within the bounds of the population instead of "
    "trying its overlays"
)
_SHEET = f"the contact sheet ({OUT}/FILE__on__MODEL.png)"
_PACK = "freeze nothing, only pack what is frozen on DATASET"

app = opt.command_group()


@app.command(
    cls=opt.Command,
    epilog=opt.example(
        "natadv search --model mini-clip --population mini-overlays --data mini --subject dog"
    ),
)
def search(
    model: opt.Model,
    population: Annotated[str, opt.text("NAME", "of fixtures/populations")],
    data: opt.Data,
    subject: Annotated[str, opt.text("CLASS", "whose pictures are attacked")],
    task: Annotated[opt.TaskName, typer.Option(help="what the model is asked")] = "classification",
    pictures: Annotated[int, opt.count("of the class")] = 16,
    at_least: Annotated[float, _Share] = 0.25,
    evaluations: Annotated[int, opt.count(_EVALUATIONS, at_least=0)] = 60,
    discover: Annotated[int | None, opt.count(_DISCOVER)] = None,
    seed: opt.Seed = 1,
    out: Annotated[Path | None, opt.output(f"gets attacks and their sheets ({OUT})")] = None,
    device: _Device = "auto",
    store: opt.Store = None,
    root: opt.Root = Path(),
) -> None:
    """Search for the smallest typographic overlay that still flips a model on pictures of a class.

    The search starts from the overlays of a population and shrinks one that works. A search that
    has ended, here or in a run of the gate, is not repeated.
    """
    from natadv.gate.rules import SearchProfile
    from natadv.search.standalone import SearchPlan
    from natadv.search.standalone import search as run_search

    profile = SearchProfile(
        population=population,
        subjects=(subject,),
        pictures=pictures,
        at_least=at_least,
        evaluations=evaluations,
        discover=discover or 0,
        seed=seed,
    )
    saved = run_search(
        SearchPlan(
            model=model,
            profile=profile,
            data=data,
            task=task,
            root=root,
            store=store or root / opt.STORE,
            out=out or root / OUT,
            arithmetic=opt.arithmetic(device),
        )
    )
    opt.tell(saved.in_words)
    if saved.file is not None:
        print(f"{saved.file}, {saved.sheet}")
        opt.tell(f"natadv replay {saved.file} --model {model}")


@app.command(
    cls=opt.Command,
    epilog=opt.example(
        "natadv replay fixtures/counterexamples/classification-mini-clip-dog-butterfly.json "
        "--model mini-siglip"
    ),
)
def replay(
    file: Annotated[Path, opt.argument("FILE", "that natadv search has written")],
    model: opt.Model,
    out: Annotated[Path | None, opt.output(_SHEET, metavar="PNG")] = None,
    device: _Device = "auto",
    store: opt.Store = None,
    root: opt.Root = Path(),
) -> None:
    """Show an attack that was found on one model to another.

    The overlay, the text and the pictures are the same. This is not a gate: the exit code is 0 for
    any answer of the model.
    """
    from natadv.evaluate.devices import usable_device
    from natadv.search.standalone import ReplayPlan
    from natadv.search.standalone import replay as run_replay

    replayed = run_replay(
        ReplayPlan(
            file=file,
            model=model,
            sheet=out,
            root=root,
            store=store or root / opt.STORE,
            attacks=root / OUT,
            device=usable_device(device),
        )
    )
    for line in (replayed.in_words, *replayed.remarks):
        opt.tell(line)
    if replayed.sheet is not None:
        print(replayed.sheet)


@app.command(cls=opt.Command, epilog=opt.example("natadv freeze --pack mini"))
def freeze(
    context: typer.Context,
    file: Annotated[Path | None, opt.argument("FILE", "that natadv search has written")] = None,
    pack: Annotated[str | None, opt.text("DATASET", _PACK)] = None,
    name: Annotated[str, opt.text("NAME", "(TASK-MODEL-SUBJECT-TEXT)")] = "",
    force: opt.Force = False,
    root: opt.Root = Path(),
) -> None:
    """Keep an attack as a counter-example, in a dataset that the gate can judge.

    The attack is copied to fixtures/counterexamples, and all counter-examples on the same dataset
    are packed again as DATASET-counterexamples.
    """
    from natadv.search.freeze import FreezePlan, pack_counterexamples
    from natadv.search.freeze import freeze as run_freeze
    from natadv.search.result import read_attack

    if (file is None) == (pack is None):
        context.fail("expected either FILE or --pack DATASET")
    data = pack
    if file is not None:
        kept = run_freeze(FreezePlan(file, name, root=root, force=force))
        print(kept)
        data = read_attack(kept).dataset
    assert data is not None
    packed = pack_counterexamples(data, root=root, stream=sys.stderr)
    left_out = f", {len(packed.left_out)} left out" if packed.left_out else ""
    count = len(packed.counterexamples)
    what = "counter-example" if count == 1 else "counter-examples"
    print(f"{packed.folder}: {packed.card.rows} rows of {count} {what}{left_out}")
    print(f"revision {packed.card.revision}")
    if file is not None:
        opt.tell(*_next_steps(packed, data))


def _next_steps(packed: CounterexampleSet, data: str) -> list[str]:
    name = packed.card.name
    return [
        "",
        "To let the gate judge it, list it under the cases of a tier in thresholds.yaml:",
        *(f"      - {task}/typographic/{name}" for task in packed.card.tasks),
        "measure it, and take over the rules that follow from it:",
        f"  pytest suites/ --dataset {name} --no-assert",
        f"  natadv calibrate --out thresholds/{name}.yaml",
        f"and, once dvc.yaml has a stage {name} with the command natadv freeze --pack {data}:",
        f"  dvc commit {name}",
    ]

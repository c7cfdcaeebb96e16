"""`natadv typo` and `natadv filter`: make datasets from others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from natadv.cli import shared_options as opt
from natadv.scenarios.typographic.recipes import PUBLISHED, RECIPES, SEVERITIES, DecoyChoice

_RECIPES = f"{', '.join(RECIPES)}; of several, one is drawn for each picture"
_Severity = typer.Option(
    min=min(SEVERITIES),
    max=max(SEVERITIES),
    metavar="N",
    help=f"size of the letters; {PUBLISHED} is as published",
)
_ENSEMBLE = "as pytest --model takes them; not the models that the dataset is to judge"

_TASK = "default: the source's first task"
app = opt.command_group()


@app.command(cls=opt.Command)
def typo(
    source: opt.Dataset,
    name: opt.NewName,
    recipe: Annotated[str, opt.text("R[,R...]", _RECIPES)],
    seed: opt.Seed = 1,
    severity: Annotated[int, _Severity] = PUBLISHED,
    decoy: Annotated[DecoyChoice, typer.Option(help="which wrong word is written")] = "random",
    reader: Annotated[str, opt.text("MODEL", "decides which words are alike")] = "",
    task: Annotated[opt.TaskName | None, typer.Option(help=_TASK)] = None,
    workers: Annotated[int, opt.count("pictures drawn at a time")] = opt.CPUS,
    limit: opt.Limit = None,
    device: opt.Device = "auto",
    batch_size: opt.BatchSize = 64,
    threads: opt.Threads = 1,
    force: opt.Force = False,
    root: opt.Root = Path(),
) -> None:
    """Write a wrong word on every picture of a dataset.

    A run that was killed continues when it is started again in the same way, and ends with the same
    bytes.
    """
    from natadv.data.dataset_plan import summary_of
    from natadv.pipelines.typographic_twins import TypoPlan, make_typographic

    twins = make_typographic(
        TypoPlan(
            source=source,
            name=name,
            recipes=opt.split_names(recipe),
            seed=seed,
            severity=severity,
            decoy=decoy,
            reader=reader,
            task=task,
            limit=limit,
            root=root,
            arithmetic=opt.arithmetic(device, batch_size=batch_size, threads=threads),
            workers=workers,
            force=force,
        )
    )
    card = twins.card
    print(f"{twins.folder}: {card.rows} twins of {card.twin_of}, {summary_of(twins.left_out)}")
    print(f"revision {card.revision}")


@app.command("filter", cls=opt.Command)
def filter_dataset(
    pool: opt.Dataset,
    name: opt.NewName,
    ensemble: Annotated[str, opt.text("M1[,M2...]", _ENSEMBLE)],
    threshold: Annotated[float, opt.text("P", "of the true class")] = 0.15,
    limit: opt.Limit = None,
    device: opt.Device = "auto",
    batch_size: opt.BatchSize = 64,
    threads: opt.Threads = 1,
    force: opt.Force = False,
    root: opt.Root = Path(),
) -> None:
    """Keep the pictures of a dataset that every model of an ensemble gets wrong.

    Each of them must give the true class a probability below the threshold. NAME.acceptance.json
    and .png beside the dataset show the share that any other threshold would keep. No picture is
    embedded twice.
    """
    from natadv.pipelines.filtering import FilterPlan, filter_pool

    kept = filter_pool(
        FilterPlan(
            pool=pool,
            name=name,
            ensemble=opt.split_names(ensemble),
            threshold=threshold,
            limit=limit,
            root=root,
            arithmetic=opt.arithmetic(device, batch_size=batch_size, threads=threads),
            force=force,
        )
    )
    print(f"{kept.folder}: {kept.card.rows} of {kept.pool_rows} pictures fool every member")
    print(f"{kept.curve}: what other thresholds would keep")
    print(f"revision {kept.card.revision}")

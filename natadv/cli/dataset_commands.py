"""Commands that make datasets from others: `natadv typo`, `reading`, `filter`, `overlays ...`."""

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


@app.command(
    cls=opt.Command,
    epilog=opt.example("natadv typo mini --name mini-notes --recipe post-it"),
)
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
    batch_size: opt.BatchSize = None,
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


_TEMPLATE = "a prompt for a class, with one {}; default: the word {}."
_WITH_OBJECT = "ask by classification for what a picture shows and the word, both among wrong ones"


@app.command(cls=opt.Command, epilog=opt.example("natadv reading mini-typo --name mini-read"))
def reading(
    source: opt.Dataset,
    name: opt.NewName,
    task: Annotated[str, opt.text("T[,T...]", "default: all of the source's")] = "",
    with_object: Annotated[bool, opt.flag("--with-object", _WITH_OBJECT)] = False,
    template: Annotated[str, opt.text("TEXT", _TEMPLATE)] = "",
    limit: opt.Limit = None,
    force: opt.Force = False,
    root: opt.Root = Path(),
) -> None:
    """Ask for the words on the pictures of a typographic dataset, instead of for what they show.

    A model that is blind to words holds on the typographic dataset, and fails here. A run that was
    killed continues when it is started again in the same way, and ends with the same bytes.
    """
    from natadv.data.dataset_plan import summary_of
    from natadv.pipelines.reading_twins import ReadingPlan, make_reading

    made = make_reading(
        ReadingPlan(
            source=source,
            name=name,
            tasks=opt.split_names(task),
            template=template,
            with_object=with_object,
            limit=limit,
            root=root,
            force=force,
        )
    )
    card, left_out = made.card, summary_of(made.left_out)
    print(f"{made.folder}: {card.rows} reading twins of {card.twin_of}, {left_out}")
    print(f"revision {card.revision}")


@app.command(
    "filter",
    cls=opt.Command,
    epilog=opt.example("natadv filter mini --name mini-hard --ensemble mini-clip,mini-siglip"),
)
def filter_dataset(
    pool: opt.Dataset,
    name: opt.NewName,
    ensemble: Annotated[str, opt.text("M1[,M2...]", _ENSEMBLE)],
    threshold: Annotated[float, opt.text("P", "of the true class")] = 0.15,
    limit: opt.Limit = None,
    device: opt.Device = "auto",
    batch_size: opt.BatchSize = None,
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


OUT = Path(".natadv") / "overlays"

overlays = opt.command_group(
    "Draw a population of typographic overlays, and look at it.", metavar="ACTION"
)
app.add_typer(overlays, name="overlays")

_POPULATION = "a name under fixtures/populations, or a file that natadv overlays draw has written"
_PICTURES = "how many of the dataset's, as many of each class as there are"
_Bounds = Annotated[str, opt.text("SECTION", "of params.yaml, with the bounds", "--settings")]
_DATASET = "one of those measured; default: every drawn one"


@overlays.command(
    cls=opt.Command, epilog=opt.example("natadv overlays draw --name mine --count 200")
)
def draw(
    name: Annotated[str, opt.text("NAME", "of the population")],
    count: Annotated[int, opt.text("N", "of overlays")],
    seed: opt.Seed = 1,
    section: _Bounds = "overlays",
    force: opt.Force = False,
    root: opt.Root = Path(),
) -> None:
    """Draw overlays independently, for fixtures/populations/NAME.json.

    The same settings give the same bytes on any machine; a smaller count gives the first of a
    larger one.
    """
    from natadv.pipelines.overlay_population import PopulationPlan, draw_population

    file = draw_population(
        PopulationPlan(name=name, count=count, seed=seed, section=section, root=root, force=force)
    )
    print(f"{file}: {count} overlays")


@overlays.command(
    cls=opt.Command, epilog=opt.example("natadv overlays show mini-overlays --data mini")
)
def show(
    name: Annotated[str, opt.argument("NAME", "of the population")],
    data: opt.Data,
    out: Annotated[Path | None, opt.output(f"({OUT}/NAME)")] = None,
    root: opt.Root = Path(),
) -> None:
    """Make contact sheets of a population, each overlay on a picture of its own."""
    from natadv.pipelines.overlay_population import ShowPlan, show_population

    out = out or root / OUT / name
    pages = show_population(ShowPlan(name, data, out, root))
    print(f"{out / 'sheets'}: {pages} pages")


@overlays.command(
    cls=opt.Command,
    epilog=opt.example(
        "natadv overlays pack mini-overlays --data mini --name mini-mine --pictures 60"
    ),
)
def pack(
    population: Annotated[str, opt.argument("POPULATION", _POPULATION)],
    data: opt.Data,
    name: opt.NewName,
    pictures: Annotated[int, opt.text("M", _PICTURES)],
    seed: opt.Seed = 1,
    force: opt.Force = False,
    root: opt.Root = Path(),
) -> None:
    """Show pictures of a dataset under every overlay of a population.

    The dataset holds the overlays alone: its pictures are drawn when they are shown. A run that was
    killed continues when it is started again in the same way, and ends with the same bytes.
    """
    from natadv.data.dataset_plan import summary_of
    from natadv.pipelines.overlay_dataset import OverlaidPlan, pack_overlaid
    from natadv.scenarios.typographic.population import population_path, read_population

    is_file = population.endswith(".json")
    drawn = read_population(Path(population) if is_file else population_path(population, root))
    overlaid = pack_overlaid(
        OverlaidPlan(
            population=drawn,
            data=data,
            name=name,
            pictures=pictures,
            seed=seed,
            root=root,
            force=force,
        )
    )
    print(
        f"{overlaid.folder}: {overlaid.card.rows} rows, {pictures} pictures of {data} under "
        f"{len(drawn.overlays)} overlays, {summary_of(overlaid.left_out)}"
    )
    print(f"revision {overlaid.card.revision}")


@overlays.command(cls=opt.Command, epilog=opt.example("natadv overlays rates"))
def rates(
    evidence: Annotated[Path, opt.path("of a run of the gate")] = opt.EVIDENCE,
    dataset: Annotated[str | None, opt.text("NAME", _DATASET)] = None,
    out: Annotated[Path, opt.output("gets rates.csv and the charts")] = OUT / "rates",
) -> None:
    """Split the rates of drawn datasets by every attribute of an overlay.

    The evidence of a run of the gate gives a table, rates.csv and charts, several if there are many
    models. Neither a dataset nor a model is needed.
    """
    from natadv.gate.cases import drawn_cases
    from natadv.report.overlay_charts import chart_files
    from natadv.report.overlay_rates import as_csv, as_table, dataset_rates
    from natadv.storage.atomic import write_whole

    groups = [dataset_rates(group) for group in drawn_cases(evidence, dataset)]
    cases = [case for group in groups for case in group]
    files = {"rates.csv": as_csv(cases).encode()}
    for group in groups:
        files |= chart_files(group)
    for name, content in files.items():
        write_whole(out / name, content)
    for case in cases:
        print("\n".join(as_table(case)), end="\n\n")
    for name in files:
        print(out / name)

"""`natadv explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from natadv.cli import shared_options as opt

OUT = Path(".natadv") / "explained"

_Case = Annotated[
    str | None, opt.text("CASE", "task/scenario/dataset/model, instead of the three options")
]
_Ids = Annotated[list[str] | None, opt.text("ID...", "these samples, right or wrong")]
_Rows = Annotated[int, opt.count("without --ids: mistakes among the first N samples")]
_Most = Annotated[int, opt.count("without --ids: the K most confident mistakes", metavar="K")]
_Layers = Annotated[Literal["last", "all"], typer.Option(help="whose attention counts")]
_Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: a GPU if seen")]

app = opt.command_group()


@app.command(
    cls=opt.Command,
    epilog=opt.example("natadv explain --model mini-clip --dataset mini-typo --task vqa"),
)
def explain(
    context: typer.Context,
    model: Annotated[str | None, opt.text("MODEL", "as pytest --model takes it")] = None,
    dataset: Annotated[str | None, opt.text("DATASET", "of natadv data list")] = None,
    task: Annotated[opt.TaskName, typer.Option(help="what the model is asked")] = "classification",
    case: _Case = None,
    ids: _Ids = None,
    rows: _Rows = 256,
    most: _Most = 4,
    layers: _Layers = "last",
    out: Annotated[Path | None, opt.output(f"gets the picture ({OUT})")] = None,
    device: _Device = "auto",
    store: Annotated[Path | None, opt.output(f"embeddings that are kept ({opt.STORE})")] = None,
    root: opt.Root = Path(),
) -> None:
    """Show where a model looks for the truth and for its answer, on samples of a dataset.

    The picture is that of a failing case: clean, attacked, and a relevance map for each. The table
    says how much of the relevance lies in the text box (over its share of the picture) and in the
    object's mask.
    """
    from natadv.evaluate.datasets import dataset_named
    from natadv.pipelines.explain import ExplainPlan
    from natadv.pipelines.explain import explain as run_explain

    if case is not None:
        parts = case.split("/")
        if len(parts) != 4 or model or dataset:
            context.fail("expected --case TASK/SCENARIO/DATASET/MODEL, no --model or --dataset")
        task, scenario, dataset, model = parts
        stated = dataset_named(dataset, root).card.scenario
        if scenario != stated:
            context.fail(f"--case: the scenario of {dataset} is {stated!r}, got {scenario!r}")
    if model is None or dataset is None:
        context.fail("expected --model and --dataset, or --case")
    found = run_explain(
        ExplainPlan(
            model=model,
            dataset=dataset,
            out=out or root / OUT,
            store=store or root / opt.STORE,
            task=task,
            ids=tuple(dict.fromkeys(opt.names_of(ids))),
            rows=rows,
            most=most,
            layers=layers,
            root=root,
            arithmetic=opt.arithmetic(device),
        )
    )
    opt.tell(*found.table, *found.remarks, f"{found.chosen}: {found.sheet}")

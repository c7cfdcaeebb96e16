"""`natadv data ...`: imports pictures and lists datasets."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from natadv.cli import shared_options as opt
from natadv.data.card import Card, find_datasets, load_card
from natadv.data.classes import CLASS_TABLES, TEMPLATES
from natadv.data.importers import FORMATS, Format, ImportRequest, Option, import_dataset
from natadv.errors import DataError, counted
from natadv.exit_codes import DONE, NOT_GREEN
from natadv.scenarios import SCENARIOS
from natadv.wrapping import script_lines, wrapped

if TYPE_CHECKING:
    from natadv.evaluate.datasets import Dataset
    from natadv.report.sheet import Tile

app = opt.command_group()
data = opt.command_group("Import and list datasets.", metavar="ACTION")
importing = opt.command_group("Pack pictures into a dataset.", metavar="FORMAT")
app.add_typer(data, name="data")
data.add_typer(importing, name="import")

_Scenario: Any = Literal[tuple(SCENARIOS)]
_Templates: Any = Literal[tuple(sorted(TEMPLATES))]
_CLASSES = (
    f"all classes: {', '.join(CLASS_TABLES)} (labels are WordNet ids or names), or a text file "
    "with one class a line; default: the names that occur"
)
_COLUMN = "what the file calls a field (image, label, phrase, question, ...): question=caption"
_TWIN_OF = "the clean dataset with the twins, by the field `twin` or the same id"
_SKIP = "set rows with a damaged picture or mask aside and list them, instead of refusing the file"
_LABELS = (
    "the truth of a flat archive: ILSVRC2012_devkit_t12.tar.gz, Kaggle's LOC_val_solution.csv, or "
    "a text file with one WordNet id a line"
)
_PROMPTS = "for the classes (single, or those of the published numbers)"
_VERIFY = "hash every file instead of comparing sizes"
_TWINS = "a clean subset: take exactly the rows whose twins are in it"
_SPLIT = "which one, if a folder has files of several (train, validation, test)"

_OPTIONS: dict[Option, Any] = {
    "classes": Annotated[str, opt.text("TABLE|FILE", _CLASSES)],
    "templates": Annotated[_Templates, typer.Option(help=_PROMPTS)],
    "labels": Annotated[Path, opt.path(_LABELS, metavar="FILE")],
    "images": Annotated[Path, opt.path("folder, zip or tar of the pictures", metavar="PATH")],
    "annotations": Annotated[Path, opt.path("zip or JSON of the annotations", metavar="FILE")],
    "image_column": Annotated[str, opt.text("COLUMN", "of the pictures (image)")],
    "label_column": Annotated[str, opt.text("COLUMN", "of the class labels (label)")],
    "id_column": Annotated[str, opt.text("COLUMN", "of the ids (the path of each picture)")],
    "columns": Annotated[list[str], opt.text("FIELD=NAME...", _COLUMN, "--column")],
    "scenario": Annotated[_Scenario, typer.Option(help="why the pictures are hard (clean)")],
    "twin_of": Annotated[str, opt.text("DATASET", _TWIN_OF)],
    "skip_damaged": Annotated[bool, opt.flag("--skip-damaged", _SKIP)],
    "split": Annotated[str, opt.text("SPLIT", _SPLIT)],
}


@data.command("list", cls=opt.Command, epilog=opt.example("natadv data list"))
def list_datasets(root: opt.Root = Path()) -> int:
    """The datasets under fixtures/datasets."""
    datasets = find_datasets(root)
    if not datasets:
        print(f"no datasets under {root / 'fixtures/datasets'}")
    broken = 0
    for name, folder in datasets.items():
        try:
            text = f"{name:<24} {_summary(load_card(folder))}"
            print(*wrapped(text, hanging=" " * 25), sep="\n")
        except DataError as error:
            broken += 1
            print(f"{name:<24} broken: {error}", file=sys.stderr)
    return NOT_GREEN if broken else DONE


@data.command(
    "show", cls=opt.Command, epilog=opt.example("natadv data show mini-typo --pictures 12")
)
def show_dataset(
    name: opt.Dataset,
    pictures: Annotated[int, opt.count("how many, chosen at random")] = 36,
    out: Annotated[Path, opt.output("gets the contact sheets")] = Path(".natadv") / "shown",
    root: opt.Root = Path(),
) -> None:
    """Draw contact sheets of a dataset: its pictures with labels, phrases, masks, questions."""
    from natadv.annotate.job import SHEETS_FOLDER, write_sheets
    from natadv.evaluate.datasets import dataset_named
    from natadv.rng import rng_for
    from natadv.storage.progress import Progress

    dataset = dataset_named(name, root)
    clean = dataset_named(str(dataset.card.twin_of), root) if dataset.card.drawn else None
    count = min(pictures, dataset.card.rows)
    # At random, as classes may take turns.
    rows = sorted(rng_for("show", name).choice(dataset.card.rows, count, replace=False).tolist())
    folder = out / name
    pages = write_sheets(
        folder,
        (_tile(dataset, clean, row) for row in rows),
        title=f"{name}, {count} of {dataset.card.rows} samples",
        progress=Progress(name, count, unit="pictures", stream=sys.stderr),
    )
    print(f"{folder / SHEETS_FOLDER}: {counted(pages, 'sheet')} of {counted(count, 'sample')}")


def _tile(dataset: Dataset, clean: Dataset | None, row: int) -> Tile:
    from PIL import Image

    from natadv.data.reader import read_samples
    from natadv.evaluate.pictures import shown, sized
    from natadv.evaluate.shard import clean_twins
    from natadv.report.sheet import Panel, Tile
    from natadv.tasks.masks import truth_mask
    from natadv.tasks.task import QUIET, TRUE_REGION, Caption, Outline

    card = dataset.card
    (sample,) = read_samples(dataset.folder, card, start=row, stop=row + 1)
    twins = clean_twins([sample], clean)
    if card.drawn:
        sample = sized(sample, twins)
    outlines: tuple[Outline, ...] = ()
    if sample.mask is not None:
        outlines = (Outline(Image.fromarray(truth_mask(sample)), TRUE_REGION),)
    people = ", ".join(f"{a} ({n})" for a, n in Counter(sample.answers).most_common(3))
    texts = (
        "" if sample.label is None else f"class: {card.classes[sample.label]}",
        f"word: {sample.decoy}" if sample.decoy else "",
        f"phrase: {sample.phrase}" if sample.phrase else "",
        sample.question or "",
        f"people: {people}" if people else "",
    )
    captions = [Caption(text, most=2) for text in texts if text]
    picture = shown(sample, twins, drawn=card.drawn).open()
    return Tile((Panel(picture, outlines),), (*captions, Caption(sample.id, QUIET)))


@data.command(
    "subset",
    cls=opt.Command,
    epilog=opt.example("natadv data subset mini --name mini-100 --rows 100"),
)
def make_subset(
    source: opt.Dataset,
    name: opt.NewName,
    rows: Annotated[int | None, opt.count("at most this many, whole groups at random")] = None,
    seed: opt.Seed = 1,
    twins: Annotated[str | None, opt.text("DATASET", _TWINS)] = None,
    force: opt.Force = False,
    root: opt.Root = Path(),
) -> None:
    """Make a dataset from some rows of another one, for quick runs.

    Rows that share a source picture stay together. The same seed takes the same rows, whatever
    their order. With --twins, the subset of an attacked dataset follows that of the clean one.
    """
    from natadv.pipelines import subset

    packed = subset.make_subset(
        subset.SubsetPlan(
            source=source, name=name, rows=rows, seed=seed, twins=twins, root=root, force=force
        )
    )
    opt.tell(f"{packed.folder}: {_summary(packed.card)}")


@data.command("status", cls=opt.Command, epilog=opt.example("natadv data status --verify"))
def show_status(
    verify: Annotated[bool, opt.flag("--verify", _VERIFY)] = False, root: opt.Root = Path()
) -> int:
    """Compare the datasets with their locks, and say how to get missing ones."""
    from natadv.data.status import status_lines, statuses

    datasets = statuses(root, verify=verify)
    for line in status_lines(datasets):
        print(line)
    return NOT_GREEN if any(status.wrong for status in datasets) else DONE


def _importer(row: Format) -> Callable[..., int]:
    """The command for one format, with the options that the format takes."""

    def import_files(path: Path, name: str, force: bool, root: Path, **options: Any) -> int:
        """Import, and print what was packed and what was set aside."""
        given = {option: value for option, value in options.items() if value is not None}
        request = ImportRequest(format=row, path=path, name=name, stream=sys.stderr, **given)
        packed = import_dataset(request, root=root, force=force)
        folder = find_datasets(root)[packed.card.name]
        opt.tell(f"{folder}: {_summary(packed.card)}")
        if packed.set_aside:
            first = packed.set_aside[0]
            opt.tell(
                f"{len(packed.set_aside)} set aside, first {first.id}: {first.why}; all are listed "
                f"in {folder / 'set-aside.jsonl'}"
            )
        return DONE

    required = inspect.Parameter.empty
    licence = f"; default, of the published files: {row.licence}" if row.source else ""
    declared: dict[str, tuple[Any, Any]] = {
        "path": (Annotated[Path, opt.argument("PATH", "the file or folder to import")], required),
        "name": (opt.NewName, row.name or required),
        **{o: (_OPTIONS[o], required if o in row.needs else None) for o in row.takes},
        "licence": (Annotated[str, opt.text("TEXT", f"terms of the pictures{licence}")], ""),
        "sha256": (Annotated[str, opt.text("HEX", "what PATH must have")], ""),
        "force": (opt.Force, False),
        "root": (opt.Root, Path()),
    }
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in declared.items()
    ]
    import_files.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return import_files


def _access(row: Format) -> str:
    """How to get the published files, in shell lines that fit."""
    found = script_lines(row.access, width=opt.WIDTH_OF_HELP)
    # Typer keeps the lines of a paragraph that starts with \b as they are.
    return "\n".join([" To get it:\n\n\b", *found]) if found else ""


for _name, _row in FORMATS.items():
    importing.command(
        _name,
        cls=opt.Command,
        short_help=_row.help,
        help=f"{_row.help}.{_access(_row)}",
        epilog=opt.example(f"natadv data import {_name} {_row.example}"),
    )(_importer(_row))


def _summary(card: Card) -> str:
    drawn = f" drawn on {card.twin_of}" if card.drawn else ""
    megabytes = sum(shard.bytes for shard in card.shards) / 1e6
    return (
        f"{card.rows} samples{drawn}, {len(card.classes)} classes, {card.scenario}, "
        f"{'+'.join(card.tasks)}, {megabytes:.1f} MB, revision {card.revision[:12]}"
    )

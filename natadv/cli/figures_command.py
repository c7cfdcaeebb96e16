"""`natadv figures`: the figures and tables of the paper, from the evidence of a run."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated

from natadv.cli import shared_options as opt
from natadv.errors import ConfigError, unknown_name
from natadv.exit_codes import DONE, NOT_GREEN

app = opt.command_group()

_ONLY = "with commas: fig1, fig3 to fig8, table, artefacts, claims"
_EVIDENCE = "of a run of the gate; of several, also those that fed models as in the paper"
_FED = "OTHER stands for MODEL fed as in the paper; default: MODEL@paper"
_AUTOENCODER = "of Figure 7, from natadv train sae; default: a small one is trained now"
_ROBUST = "ROBUST is a variant of PLAIN that was trained to be robust; those of the zoo are known"


@app.command(
    cls=opt.Command,
    epilog=opt.example(
        "natadv figures --only fig1,fig3,table --out figures",
        more="Exit codes: 0 all of it was made, 1 something was not.",
    ),
)
def figures(
    out: Annotated[Path, opt.output("gets PNG, SVG and Markdown")] = Path("figures"),
    evidence: Annotated[list[Path] | None, opt.path(_EVIDENCE, metavar="DIR...")] = None,
    models: Annotated[list[str] | None, opt.text("NAME...", "or globs; default: all")] = None,
    data: Annotated[list[str] | None, opt.text("DATASET...", "or globs; default: all")] = None,
    only: Annotated[str | None, opt.text("PART[,...]", _ONLY)] = None,
    robust: Annotated[list[str] | None, opt.text("ROBUST=PLAIN...", _ROBUST)] = None,
    fed: Annotated[list[str] | None, opt.text("MODEL=OTHER...", _FED)] = None,
    autoencoder: Annotated[list[str] | None, opt.text("MODEL=DIR...", _AUTOENCODER)] = None,
    width: Annotated[
        float, opt.number("of a figure", "INCHES", lambda w: 3 <= w <= 14, "from 3 to 14")
    ] = 3.5,
    limit: Annotated[
        int, opt.count("pictures of each dataset in Figures 7 (random) and 8 (first)")
    ] = 200,
    pictures: Annotated[int, opt.count("pictures of each dataset in Figure 6")] = 2,
    device: opt.Device = "auto",
    batch_size: opt.BatchSize = None,
    threads: opt.Threads = opt.CPUS,
    root: opt.Root = Path(),
) -> int:
    """Draw the paper's figures and tables from stored evidence: Figure 1 (radar), 3 to 5 (bars with
    intervals), 6 (relevance maps), 7 (latents of an autoencoder), 8 (single heads); published
    beside re-measured numbers; how much of the paper's ranking is due to how it fed the models; and
    which of its claims the evidence supports.

    Figures 6 to 8 ask the models themselves. What they computed is kept in the store.
    """
    from natadv.figures.figure_set import PARTS, FigureSet, summary, write_figures
    from natadv.figures.measured import read_measured
    from natadv.figures.model_figures import Computing

    parts = opt.split_names(only) if only else tuple(PARTS)
    _check_known("part", parts, PARTS)
    measured = read_measured(
        evidence or [root / opt.EVIDENCE],
        models=opt.names_of(models),
        data=opt.names_of(data),
        robust=_pairs("--robust", robust),
    )
    trained, other = _pairs("--autoencoder", autoencoder), _pairs("--fed", fed)
    _check_known("model of the evidence", (*trained, *other, *other.values()), measured.models)
    arithmetic = opt.arithmetic(device, batch_size=batch_size, threads=threads)
    of = FigureSet(
        measured,
        Computing(root, arithmetic, limit),
        out,
        width_in=width,
        pictures=pictures,
        autoencoders={model: _autoencoder(Path(folder)) for model, folder in trained.items()},
        fed=other,
    )
    failed = write_figures(of, parts)
    opt.tell(*summary(of, parts, failed))
    return NOT_GREEN if failed else DONE


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    """NAME -> REST of `NAME=REST`. Raises ConfigError for another form."""
    found = {}
    for text in given or ():
        name, equals, rest = text.partition("=")
        if not (name and equals and rest):
            raise ConfigError(f"{option}: expected NAME=..., got {text!r}")
        found[name] = rest
    return found


def _autoencoder(folder: Path) -> Path:
    """The folder, checked before minutes are spent. Raises ConfigError."""
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"--autoencoder: no config.json in {folder}: expected a folder that natadv train sae "
            "has written"
        )
    return folder


def _check_known(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raises UnknownNameError for the first name that is not known."""
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, known)

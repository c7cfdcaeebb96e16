"""`natadv models ...`, `natadv doctor` and `natadv train`: models, their checks and their heads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from natadv.cli import shared_options as opt
from natadv.cli.masking_command import mask
from natadv.config import settings_of
from natadv.errors import ConfigError, ModelError, unknown_name
from natadv.evaluate.devices import usable_device
from natadv.exit_codes import DONE, NOT_GREEN, REFUSED
from natadv.models import listing
from natadv.models.hub import local as hub
from natadv.models.listing import as_json, table
from natadv.models.zoo import PAPER, ZOO, ZooRow, families, rows_named
from natadv.places import contract_above, find
from natadv.storage.progress import amount
from natadv.training.head_settings import SETTINGS, TrainedTask, settings_for
from natadv.training.sae_settings import SAE_SETTINGS, AutoencoderSettings
from natadv.types import WAY, AutoencoderKind, ModelSpec, ReadTokens

if TYPE_CHECKING:
    from natadv.models.doctor import Finding
    from natadv.models.hub.fetch import Fetched, FetchTarget, Place

_Root = Annotated[
    Path | None,
    opt.root(f"holds {hub.LOCK}; default: the nearest folder above with {opt.CONTRACT}"),
]
_NAMES = f"a model, a family, {PAPER}, a glob, or any owner/name of the hub"
_UPDATE = "move from the locked to the newest commit"
_KNOWN = "pictures that the model must recognise, each called after what it shows (cat.png)"
_ASKED = "a packed dataset whose class names the model must know, if it gives logits"
_Dtype = Literal["float32", "bfloat16", "float16"]

app = opt.command_group()
models = opt.command_group(metavar="[ACTION]")
app.add_typer(models, name="models")
train = opt.command_group(
    "Train a head for segmentation or vqa on the frozen picture tower of a model, or a sparse "
    "autoencoder of it.",
    metavar="TASK",
)
app.add_typer(train, name="train")
heads = opt.command_group(
    "Share heads through repositories of the Hugging Face hub, and mask those of attention.",
    metavar="ACTION",
)
heads.command(
    "mask",
    cls=opt.Command,
    epilog=opt.example("natadv heads mask --model clip-vit-b32 --dataset imagenet-a,rta100"),
)(mask)
app.add_typer(heads, name="heads")
_HUB_ID = "owner/name on the hub, which holds one head"
_FRESH = "begin again, and replace what exists"
_LAYER = "read the state after it, counted from 1; default: the last but one"
_TOKENS = "what is read: tokens of that state, or the projected embedding of the picture"
_SAE_DATA = "of natadv data list; with commas, of several"


@models.callback(
    invoke_without_command=True, epilog=opt.example("natadv models --family siglip2 --sizes")
)
def list_models(
    context: typer.Context,
    family: Annotated[str | None, opt.text("F", f"only this family, or {PAPER}")] = None,
    json: Annotated[bool, opt.flag("--json", "everything that is known, for programs")] = False,
    sizes: Annotated[bool, opt.flag("--sizes", "memory and disk that each model needs")] = False,
    root: _Root = None,
) -> None:
    """List the models that have a name, and fetch them."""
    if context.invoked_subcommand is not None:
        context.obj = root
        return
    known = (*families(), PAPER)
    if family is not None and family not in known:
        raise unknown_name("family", family, known)
    # The list shows a whole family; elsewhere its name means its models of the paper.
    chosen = {row.name for row in rows_named(PAPER)} if family == PAPER else None
    rows = tuple(
        row
        for row in ZOO.values()
        if (row.family == family or family is None if chosen is None else row.name in chosen)
    )
    root = root or repository_root(Path.cwd())
    if json and sizes:
        context.fail("--json is not allowed with --sizes")
    listed = as_json if json else listing.sizes if sizes else table
    print(listed(rows, root=root))


@models.command(
    "fetch", cls=opt.Command, epilog=opt.example("natadv models fetch clip-vit-b32 siglip2-b16-224")
)
def fetch_models(
    context: typer.Context,
    names: Annotated[list[str], opt.argument("NAME", _NAMES)],
    update: Annotated[bool, opt.flag("--update", _UPDATE)] = False,
    revision: Annotated[str | None, opt.text("REV", "move to this commit, branch or tag")] = None,
    root: _Root = None,
) -> int:
    """Download models from the Hugging Face hub.

    They are stored in its usual cache, and the commit and the sha256 of every file in models.lock:
    commit that file, and everyone measures the same weights. A download that was cut off continues
    where it stopped. Without a network, files that another tool left in the cache are locked.
    """
    from natadv.models.hub.fetch import FetchTarget, Place

    if update and revision is not None:
        context.fail("--revision is not allowed with --update")
    rows, hub_ids = resolve_names(names)
    targets = [FetchTarget(row.name, row.hub, row.loader) for row in rows if row.hub]
    targets += [FetchTarget(hub_id, hub_id) for hub_id in hub_ids]
    if revision is not None and len(targets) != 1:
        raise ConfigError(f"--revision needs exactly one model, got {len(targets)}")
    for row in rows:
        if row.location:
            print(f"{row.name}: comes with the repository ({row.location})")
    folder = root or context.obj or repository_root(Path.cwd())
    place = Place(root=folder, cache=hub.cache_folder())
    return fetch_all(targets, place=place, update=update, revision=revision)


@app.command(cls=opt.Command, epilog=opt.example("natadv doctor mini-clip"))
def doctor(
    names: Annotated[list[str], opt.argument("MODEL", "as pytest --model takes it")],
    device: Annotated[str, opt.text("DEVICE", "cpu or cuda")] = "cpu",
    dtype: Annotated[_Dtype, typer.Option(help="of the arithmetic")] = "float32",
    known: Annotated[Path | None, opt.path(_KNOWN)] = None,
    data: Annotated[str | None, opt.text("DATASET", _ASKED)] = None,
) -> int:
    """Check that a model is whole, safe, and fed as it was trained."""
    from natadv.evaluate.datasets import dataset_named
    from natadv.models.doctor import examine
    from natadv.models.resolve import resolve

    device = usable_device(device)
    classes = dataset_named(data, Path.cwd()).card.classes if data is not None else ()
    failed = 0
    for spec in (spec for name in names for spec in resolve(name, root=Path.cwd())):
        print(f"{spec.name} ({spec.folder})")
        pictures = known_pictures(spec, root=Path.cwd()) if known is None else known
        failed += print_findings(
            examine(spec, device=device, dtype=dtype, known=pictures, classes=classes)
        )
    return NOT_GREEN if failed else DONE


def known_pictures(spec: ModelSpec, *, root: Path) -> Path | None:
    """The folder of pictures that the model, or the one that it descends from, recognises."""
    row = ZOO.get(spec.lineage)
    return find(Path(row.known), root) if row is not None and row.known else None


def print_findings(findings: Iterable[Finding]) -> int:
    """Print every check of one model, and return the number of those that failed."""
    failed = checks = 0
    for line in findings:
        print(line, flush=True)
        checks += 1
        failed += not line.ok
    print(f"{checks} checks, {failed} failed\n" if failed else f"{checks} checks passed\n")
    return failed


def fetch_all(
    targets: Sequence[FetchTarget],
    *,
    place: Place,
    update: bool = False,
    revision: str | None = None,
) -> int:
    """Fetch one target after the other, and print a line for each, then a summary.

    Returns `REFUSED` if one of them could not be fetched; the others are fetched nevertheless.
    """
    from natadv.models.hub.fetch import fetch

    failed: list[str] = []
    for target in targets:
        try:
            fetched = fetch(
                target, place=place, update=update, revision=revision, progress_to=sys.stderr
            )
            print(fetched_line(fetched), flush=True)
        except ModelError as error:
            failed.append(target.name)
            print(f"natadv: {target.name}: {error}", file=sys.stderr, flush=True)
    if targets:
        done = len(targets) - len(failed)
        text = f"{done} of {len(targets)} here and locked in {place.root / hub.LOCK}"
        print(f"{text}; failed: {', '.join(failed)}" if failed else text)
    return REFUSED if failed else DONE


def resolve_names(names: Iterable[str]) -> tuple[tuple[ZooRow, ...], tuple[str, ...]]:
    """The rows of the zoo that `names` mean, and the hub ids that are not in it, each once.

    Raises UnknownNameError, with the nearest known names.
    """
    rows: dict[str, ZooRow] = {}
    hub_ids: dict[str, None] = {}
    for name in (name.partition(WAY)[0] for name in names):
        matching = rows_named(name) or [r for r in ZOO.values() if fnmatchcase(r.name, name)]
        rows |= {row.name: row for row in matching}
        if not matching and not hub.is_id(name):
            raise unknown_name("model", name, [*ZOO, *families(), PAPER])
        if not matching:
            hub_ids[name] = None
    return tuple(rows.values()), tuple(hub_ids)


def repository_root(start: Path) -> Path:
    """The nearest folder from `start` upwards that holds thresholds.yaml, or else `start`."""
    return contract_above(start) or start


def fetched_line(fetched: Fetched) -> str:
    """The change that a fetch has made, in one line."""
    before, now = fetched.before, fetched.locked
    where = f" on {fetched.branch}" if fetched.branch else ""
    if before and before.revision != now.revision:
        what = f"moved from {before.revision[:12]} to {now.revision[:12]}{where}"
        changed = sorted(k for k, v in now.files.items() if before.files.get(k) != v)
        what += f" (changed: {', '.join(changed) or 'nothing that is needed'})"
    elif not fetched.downloaded:
        what = f"is here at {now.revision[:12]}{where}, every byte checked"
        if not fetched.compared:
            what += " against the cache's own names, not with the hub, which is out of reach"
    else:
        what = f"fetched at {now.revision[:12]}{where}"
    return f"{fetched.target.name}: {what}, {len(now.files)} files, {amount(fetched.size)}"


@heads.command(
    "publish",
    cls=opt.Command,
    epilog=opt.example("natadv heads publish ./my-checkpoint segmentation me/my-decoder"),
)
def publish(
    model: Annotated[str, opt.argument("MODEL", "as pytest --model takes it")],
    task: Annotated[TrainedTask, opt.argument("TASK", "segmentation or vqa")],
    repository: Annotated[str, opt.argument("REPOSITORY", _HUB_ID)],
) -> None:
    """Upload the head of a model.

    It needs `hf auth login`. A missing repository is created, and only its owner can see it.
    """
    from natadv.models.resolve import resolve_one
    from natadv.training.hub_heads import publish_head

    spec = resolve_one(model, root=Path.cwd(), wanted="whose head to publish")
    if task not in spec.heads:
        raise ModelError(f"{spec.name} has no head for {task}; train one (natadv train {task})")
    done = publish_head(spec.heads[task], _hub_id(repository))
    print(
        f"{repository}: published at {done.commit[:12]}, {len(done.files)} files, "
        f"{amount(done.size)}; fetch it with natadv heads fetch {repository} {model}"
    )


@heads.command(
    "fetch",
    cls=opt.Command,
    epilog=opt.example("natadv heads fetch me/my-decoder ./my-checkpoint"),
)
def fetch_heads(
    context: typer.Context,
    repository: Annotated[str, opt.argument("REPOSITORY", _HUB_ID)],
    model: Annotated[str, opt.argument("MODEL", "that it was trained on, as pytest --model")],
    update: Annotated[bool, opt.flag("--update", _UPDATE)] = False,
    revision: Annotated[str | None, opt.text("REV", "move to this commit, branch or tag")] = None,
    force: opt.Force = False,
) -> None:
    """Download a head, and put it where the gate finds it.

    models.lock gets the commit and the sha256 of every file; another head in its place is refused.
    """
    from natadv.models.hub.fetch import Place
    from natadv.models.resolve import resolve_one
    from natadv.training.hub_heads import fetch_head

    if update and revision is not None:
        context.fail("--revision is not allowed with --update")
    root = Path.cwd()
    found = fetch_head(
        _hub_id(repository),
        resolve_one(model, root=root, wanted="that the head is for"),
        place=Place(root=root, cache=hub.cache_folder()),
        progress_to=sys.stderr,
        update=update,
        revision=revision,
        force=force,
    )
    print(f"{fetched_line(found.fetched)}; in {found.folder}")


def _hub_id(name: str) -> str:
    if not hub.is_id(name):
        raise ConfigError(f"expected a repository of the hub as owner/name, got {name!r}")
    return name


def _trainer(task: TrainedTask) -> Callable[..., None]:
    def train_head(
        model: opt.Model,
        data: opt.Data,
        out: Annotated[Path, opt.output("gets the head")],
        section: opt.Section = None,
        overrides: opt.Overrides = None,
        limit: opt.Limit = None,
        device: opt.Device = "auto",
        threads: opt.Threads = opt.CPUS,
        fresh: Annotated[bool, opt.flag("--fresh", _FRESH)] = False,
    ) -> None:
        """Train the head and print a summary."""
        root = Path.cwd()
        settings = settings_for(task, root=root, section=section, overrides=overrides or [])
        from natadv.training.train import TrainingPlan, summary, train

        plan = TrainingPlan(
            task=task,
            model=model,
            data=data,
            out=out,
            settings=settings,
            root=root,
            limit=limit,
            device=usable_device(device),
            threads=threads,
            fresh=fresh,
        )
        print(summary(train(plan), plan.out))

    return train_head


def _of_sae() -> str:
    """The settings that all kinds share, then those of single kinds."""
    shared = AutoencoderSettings.model_fields
    own = {kind: schema.model_fields.keys() - shared for kind, schema in SAE_SETTINGS.items()}
    more = (f"; of {kind} also {', '.join(sorted(names))}" for kind, names in own.items())
    return ", ".join(sorted(shared)) + "".join(more)


@train.command(
    "sae",
    cls=opt.Command,
    short_help="a sparse autoencoder",
    epilog=opt.example(
        "natadv train sae --model mini-clip --data mini --out sae",
        more=f"Settings (by default of section train-sae): {_of_sae()}.",
    ),
)
def train_autoencoder(
    model: opt.Model,
    data: Annotated[str, opt.text("D1[,D2...]", _SAE_DATA)],
    out: Annotated[Path, opt.output("gets the autoencoder")],
    layer: Annotated[int | None, opt.count(_LAYER, at_least=0)] = None,
    tokens: Annotated[ReadTokens, typer.Option(help=_TOKENS)] = "class",
    kind: Annotated[AutoencoderKind, typer.Option(help="what keeps it sparse")] = "batch-topk",
    section: opt.Section = None,
    overrides: opt.Overrides = None,
    limit: opt.Limit = None,
    device: opt.Device = "auto",
    threads: opt.Threads = opt.CPUS,
    fresh: Annotated[bool, opt.flag("--fresh", _FRESH)] = False,
) -> None:
    """Train a sparse autoencoder on activations of the frozen picture tower of a model.

    A training that was killed continues when it is started again in the same way, and ends with the
    same weights.
    """
    root = Path.cwd()
    settings = settings_of(
        SAE_SETTINGS[kind],
        "sae",
        root=root,
        usual="train-sae",
        section=section,
        overrides=overrides or [],
    )
    from natadv.training.train_sae import SaePlan, summary, train_sae

    plan = SaePlan(
        kind=kind,
        model=model,
        layer=layer,
        tokens=tokens,
        data=opt.split_names(data),
        out=out,
        settings=settings,
        root=root,
        limit=limit,
        device=usable_device(device),
        threads=threads,
        fresh=fresh,
    )
    print(summary(train_sae(plan), plan.out))


for _task, _settings in SETTINGS.items():
    train.command(
        _task,
        cls=opt.Command,
        help=f"Train a head for {_task}. A training that was killed continues when it is started "
        "again in the same way, and ends with the same weights.",
        short_help=f"a head for {_task}",
        epilog=opt.example(
            f"natadv train {_task} --model mini-clip --data mini --out {_task}",
            more=f"Settings (by default of section train-{_task}): "
            f"{', '.join(sorted(_settings.model_fields))}.",
        ),
    )(_trainer(_task))

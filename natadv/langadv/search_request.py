"""What a search is asked for by names, and the plan that they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from natadv.errors import ConfigError, unknown_name
from natadv.factories import entry_points, is_reference, made_by
from natadv.langadv.generator import GeneratorPlug
from natadv.langadv.genetic import settings_for
from natadv.langadv.word_space import SPACES, plural

if TYPE_CHECKING:
    from natadv.langadv.class_search import LangadvPlan
    from natadv.langadv.generator import Generator, TargetEnsemble
    from natadv.langadv.word_space import WordSpace

GROUP = "natadv.generators"
"""Of the entry points."""
ANIMALS = "butterfly,cat,chicken,cow,dog,elephant,horse,sheep,spider,squirrel"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """The options of `natadv langadv search`; another process can make the same plan of them."""

    generator: str
    """A folder, an id on the hub, `module:factory`, or an entry point."""
    out: Path
    target: str | None = None
    """Models with commas between them; None: the target of the generator."""
    consistency: str | None = None
    """The model that says whether pictures still show their class."""
    classes: str | None = None
    """Names with commas between them; None: those of the generator, or else `ANIMALS`."""
    words: str | None = None
    section: str | None = None
    """Of `params.yaml` in the working directory."""
    overrides: tuple[str, ...] = ()
    """`name=value` each."""
    dtype: str = "bfloat16"
    batch_size: int = 4
    steps: int | None = None
    guidance: float | None = None
    size_px: int | None = None
    revision: str | None = None


def plan_of(request: SearchRequest, device: str) -> LangadvPlan:
    """The plan of a request, with everything loaded."""
    from natadv.langadv.class_search import LangadvPlan

    settings = settings_for(Path.cwd(), section=request.section, overrides=request.overrides)
    plug = plug_named(request.generator)
    if request.classes is not None:
        classes = [name.strip() for name in request.classes.split(",") if name.strip()]
    else:
        classes = list(plug.classes) if plug else ANIMALS.split(",")
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise ConfigError(f"expected two classes at least, each once, came {','.join(classes)!r}")
    return LangadvPlan(
        out=request.out,
        classes={name: plural(name) for name in classes},
        space=_space(request, plug),
        settings=settings,
        generator=plug.generator if plug else _pipeline(request, device),
        target=_target(request, plug, classes, device),
        plug=request.generator if plug else None,
    )


def plug_named(name: str) -> GeneratorPlug | None:
    """The generator of `module:factory` or of an entry point; None if the name is neither."""
    reference = name if is_reference(name) else entry_points(GROUP).get(name)
    if reference is None:
        return None
    return made_by(reference, GeneratorPlug, base=Path.cwd(), option="--generator")


def _space(request: SearchRequest, plug: GeneratorPlug | None) -> WordSpace:
    name = request.words
    if name is None:
        return plug.words if plug else SPACES["animals"]
    if name in SPACES:
        return SPACES[name]
    if other := plug_named(name):
        return other.words
    raise unknown_name("word space", name, [*SPACES, *entry_points(GROUP)])


def _pipeline(request: SearchRequest, device: str) -> Generator:
    from natadv.langadv.diffusion import PUBLISHED, DiffusionGenerator, Drawing

    source = request.generator
    if "/" not in source and not Path(source).is_dir():
        raise ConfigError(
            f"{unknown_name('generator', source, entry_points(GROUP))}; install what brings it "
            "(in a clone: pip install --editable .), or give module:factory, a folder, or an id on "
            "the hub, OWNER/NAME"
        )
    usual = PUBLISHED.get(source, Drawing())
    drawing = Drawing(
        steps=request.steps or usual.steps,
        guidance=usual.guidance if request.guidance is None else request.guidance,
        side_px=request.size_px or usual.side_px,
        batch=request.batch_size,
        dtype=request.dtype,
        revision=request.revision,
    )
    return DiffusionGenerator(source, drawing, device=device)


def _target(
    request: SearchRequest, plug: GeneratorPlug | None, classes: list[str], device: str
) -> TargetEnsemble:
    if request.target is None:
        return _own_target(request, plug, classes)
    if request.consistency is None:
        raise ConfigError("--target needs --consistency MODEL, which is not among the targets")
    from natadv.langadv.zero_shot_target import ZeroShotTarget

    return ZeroShotTarget(
        request.target.split(","), request.consistency, classes, root=Path.cwd(), device=device
    )


def _own_target(
    request: SearchRequest, plug: GeneratorPlug | None, classes: list[str]
) -> TargetEnsemble:
    if plug is None or plug.target is None:
        raise ConfigError(f"--generator {request.generator} needs --target and --consistency")
    if classes != list(plug.classes):
        raise ConfigError(
            f"the target of --generator {request.generator} knows just these classes, in this "
            f"order: {','.join(plug.classes)}; leave --classes out, or name other models with "
            "--target"
        )
    return plug.target()

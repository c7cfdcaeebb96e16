"""`natadv langadv search|pack ...`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from natadv.errors import ConfigError, unknown_name
from natadv.factories import entry_points, is_reference, made_by
from natadv.pipelines.langadv.settings import settings_for
from natadv.scenarios.langadv.generator import GeneratorPlug
from natadv.scenarios.langadv.words import SPACES, plural

if TYPE_CHECKING:
    from natadv.pipelines.langadv.run import Plan
    from natadv.scenarios.langadv.generator import Generator, Target
    from natadv.scenarios.langadv.words import WordSpace

GROUP = "natadv.generators"
"""Of the entry points."""
ANIMALS = "butterfly,cat,chicken,cow,dog,elephant,horse,sheep,spider,squirrel"


def plan_of(options: argparse.Namespace, device: str) -> Plan:
    """What the options ask for, with everything loaded."""
    from natadv.pipelines.langadv.run import Plan

    settings = settings_for(Path.cwd(), section=options.settings, overrides=options.set)
    plug = plug_named(options.generator)
    if options.classes is not None:
        classes = [name.strip() for name in options.classes.split(",") if name.strip()]
    else:
        classes = list(plug.classes) if plug else ANIMALS.split(",")
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise ConfigError(f"expected two classes at least, each once, came {','.join(classes)!r}")
    return Plan(
        out=options.out,
        classes={name: plural(name) for name in classes},
        space=_space(options, plug),
        settings=settings,
        generator=plug.generator if plug else _pipeline(options, device),
        target=_target(options, plug, classes, device),
        plug=options.generator if plug else None,
    )


def plug_named(name: str) -> GeneratorPlug | None:
    """Of `module:factory`, or of an entry point; None if the name is neither."""
    reference = name if is_reference(name) else entry_points(GROUP).get(name)
    if reference is None:
        return None
    return made_by(reference, GeneratorPlug, base=Path.cwd(), option="--generator")


def _space(options: argparse.Namespace, plug: GeneratorPlug | None) -> WordSpace:
    name = options.words
    if name is None:
        return plug.words if plug else SPACES["animals"]
    if name in SPACES:
        return SPACES[name]
    if other := plug_named(name):
        return other.words
    raise unknown_name("word space", name, [*SPACES, *entry_points(GROUP)])


def _pipeline(options: argparse.Namespace, device: str) -> Generator:
    from natadv.pipelines.langadv.diffusion import PUBLISHED, Drawing, diffusion_generator

    source = options.generator
    if "/" not in source and not Path(source).is_dir():
        raise ConfigError(
            f"{unknown_name('generator', source, entry_points(GROUP))}; install what brings it "
            "(in a clone: pip install --editable .), or give module:factory, a folder, or an id on "
            "the hub, OWNER/NAME"
        )
    usual = PUBLISHED.get(source, Drawing())
    drawing = Drawing(
        steps=options.steps or usual.steps,
        guidance=usual.guidance if options.guidance is None else options.guidance,
        side_px=options.size or usual.side_px,
        batch=options.batch_size,
        dtype=options.dtype,
        revision=options.revision,
    )
    return diffusion_generator(source, drawing, device=device)


def _target(
    options: argparse.Namespace, plug: GeneratorPlug | None, classes: list[str], device: str
) -> Target:
    if options.target is None:
        return _own_target(options, plug, classes)
    if options.consistency is None:
        raise ConfigError("--target needs --consistency MODEL, which is not among the targets")
    from natadv.pipelines.langadv.zero_shot import zero_shot_target

    return zero_shot_target(
        options.target.split(","),
        options.consistency,
        classes,
        root=Path.cwd(),
        device=device,
        dtype=None,
        threads=1,
    )


def _own_target(
    options: argparse.Namespace, plug: GeneratorPlug | None, classes: list[str]
) -> Target:
    if plug is None or plug.target is None:
        raise ConfigError(f"--generator {options.generator} needs --target and --consistency")
    if classes != list(plug.classes):
        raise ConfigError(
            f"the target of --generator {options.generator} knows just these classes, in this "
            f"order: {','.join(plug.classes)}; leave --classes out, or name other models with "
            "--target"
        )
    return plug.target()

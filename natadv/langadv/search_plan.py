"""The plan of a search, and how the names that a user gives become one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natadv.errors import ConfigError, unknown_name
from natadv.factories import entry_points, is_reference, made_by
from natadv.langadv.diffusion import DiffusionGenerator, Drawing
from natadv.langadv.generator import Generator, GeneratorPlug, TargetEnsemble
from natadv.langadv.genetic import SearchSettings
from natadv.langadv.word_space import SPACES, WordSpace, plural
from natadv.langadv.zero_shot_target import ZeroShotTarget

GROUP = "natadv.generators"
"""Of the entry points."""
ANIMALS = "butterfly,cat,chicken,cow,dog,elephant,horse,sheep,spider,squirrel"


@dataclass(frozen=True)
class LangadvPlan:
    """Everything that decides the result of a search, and its folder."""

    out: Path
    classes: Mapping[str, str]
    """Singular -> plural, in the order of the labels."""
    space: WordSpace
    settings: SearchSettings
    generator: Generator
    target: TargetEnsemble
    plug: str | None = None
    """The value of `--generator` if it names a factory: packing finds the factory by it."""

    def identity(self) -> dict[str, Any]:
        """What a resumed search must have in common with the one before."""
        generator = self.generator.name
        if self.plug not in (None, generator):
            generator = f"{self.plug} {generator}"
        return {
            "classes": list(self.classes),
            "generator": generator,
            "target": self.target.name,
            "words": {gene: list(words) for gene, words in self.space.words.items()},
            "template": self.space.template,
            "settings": self.settings.model_dump(mode="json"),
        }


def plan_of(
    device: str,
    *,
    out: Path,
    settings: SearchSettings,
    generator: str,
    drawing: Drawing,
    classes: str | None,
    words: str | None,
    target: str | None,
    consistency: str | None,
) -> LangadvPlan:
    """Load everything that a search needs; None leaves a choice to the generator.

    Args:
        generator: A folder, an id on the hub, `module:factory`, or an entry point.
        drawing: The options of the generator if it is a diffusion pipeline.
        classes: Names, separated by commas; None for a diffusion pipeline means `ANIMALS`.
        words: A word space or a generator; None for a diffusion pipeline means `animals`.
        target: Models to fool, separated by commas.
        consistency: The model that measures whether pictures still show their class.
    """
    if target is not None and consistency is None:
        raise ConfigError("--target needs --consistency MODEL, which is not among the targets")
    if consistency is not None and target is None:
        raise ConfigError("--consistency needs --target M1,M2: the models to fool")
    plug = plug_named(generator)
    if classes is not None:
        names = [name.strip() for name in classes.split(",") if name.strip()]
    else:
        names = list(plug.classes) if plug else ANIMALS.split(",")
    if len(set(names)) != len(names) or len(names) < 2:
        raise ConfigError(f"expected at least two classes, each once, got {','.join(names)!r}")
    # The words are checked before anything is loaded.
    space = _space(words, plug)
    source = plug.generator if plug else _pipeline(generator, drawing, device)
    if target is None or consistency is None:
        ensemble = _target_of(plug, generator, names)
    else:
        ensemble = ZeroShotTarget(
            target.split(","), consistency, names, root=Path.cwd(), device=device
        )
    return LangadvPlan(
        out=out,
        classes={name: plural(name) for name in names},
        space=space,
        settings=settings,
        generator=source,
        target=ensemble,
        plug=generator if plug else None,
    )


def plug_named(name: str) -> GeneratorPlug | None:
    """The generator of `module:factory` or of an entry point; None if the name is neither."""
    reference = name if is_reference(name) else entry_points(GROUP).get(name)
    if reference is None:
        return None
    return made_by(reference, GeneratorPlug, base=Path.cwd(), option="--generator")


def _space(name: str | None, plug: GeneratorPlug | None) -> WordSpace:
    if name is None:
        return plug.words if plug else SPACES["animals"]
    if name in SPACES:
        return SPACES[name]
    if other := plug_named(name):
        return other.words
    raise unknown_name("word space", name, [*SPACES, *entry_points(GROUP)])


def _pipeline(source: str, drawing: Drawing, device: str) -> Generator:
    if "/" not in source and not Path(source).is_dir():
        raise ConfigError(
            f"{unknown_name('generator', source, entry_points(GROUP))}; install what brings it "
            "(in a clone: pip install --editable .), or give module:factory, a folder, or an id on "
            "the hub, OWNER/NAME"
        )
    return DiffusionGenerator(source, drawing, device=device)


def _target_of(plug: GeneratorPlug | None, generator: str, names: list[str]) -> TargetEnsemble:
    """The classifiers that the generator brings. Raises ConfigError if they do not fit."""
    if plug is None or plug.target is None:
        raise ConfigError(f"--generator {generator} needs --target and --consistency")
    if names != list(plug.classes):
        raise ConfigError(
            f"the target of --generator {generator} knows just these classes, in this order: "
            f"{','.join(plug.classes)}; leave --classes out, or name other models with --target"
        )
    return plug.target()

"""An attack that was found on one model, shown to another one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from natadv.engine.bench import Bench
from natadv.engine.datasets import Dataset
from natadv.engine.pictured import attack_sheet
from natadv.engine.shown import Shown
from natadv.engine.store import Store
from natadv.engine.trial import trial_on
from natadv.errors import DataError, UnknownNameError, unknown_name
from natadv.files import write_whole
from natadv.pipelines.attacks.asking import asked, done, opened_run, workbench
from natadv.pipelines.drawing import ground_named
from natadv.pipelines.members import Arithmetic, one_model
from natadv.scenarios.typographic.attack import Attack, read_attack

USUAL_PICTURES, MOST_AT_ONCE = 16, 64
"""A search asks by itself for so many pictures, and shows at most so many at once. A replay shows
as many at once as the search did, as another number moves last bits."""


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """Which attack is shown to which model."""

    file: Path
    model: str
    store: Path
    sheet: Path | None = None
    """Where the contact sheet goes; None for one in `attacks`, named after file and model."""
    attacks: Path = Path()
    root: Path = Path()
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Replayed:
    """What an attack does to a model, beside what it did to the one that it was found on."""

    model: str
    found: Attack
    now: Attack | None
    """None if the model is wrong about all of the pictures when they are clean."""
    weights: str
    sheet: Path | None

    @property
    def in_words(self) -> str:
        found = self.found
        other = " with other weights" if found.model == self.model and not self.same else ""
        before = f"found on {found.model}{other}: {_flips(found, of='')}"
        if self.now is None:
            return (
                f"on {self.model}: nothing to flip, as it is wrong about all of "
                f"{len(found.pictures)} clean pictures of {found.subject}; {before}"
            )
        return (
            f"on {self.model}: flips {_flips(self.now, of=f' pictures of {found.subject}')}; "
            + (before)
        )

    @property
    def remarks(self) -> list[str]:
        """What has to be said besides."""
        pictures, now = self.found.pictures, self.now
        remarks: list[str] = []
        if now is not None and len(now.pictures) < len(pictures):
            remarks.append(
                f"left out: {len(pictures) - len(now.pictures)} of {len(pictures)} pictures, which "
                f"{self.model} is wrong about when they are clean"
            )
        if self.same and (now is None or _effect(now) != _effect(self.found)):
            remarks.append(
                "this is the very model that the attack was found on, and yet it does not do the "
                "same: it was found on another device or with other packages, or the file was "
                "edited; search again"
            )
        return remarks

    @property
    def same(self) -> bool:
        """Whether it is the very model that the attack was found on."""
        return self.weights == self.found.weights


def replay(plan: ReplayPlan) -> Replayed:
    """Show the same overlay with the same text on the same pictures, those left out that the model
    is wrong about when they are clean.

    Raises:
        NatadvError: The file, the dataset or the model is not there or does not fit.
    """
    attack = read_attack(plan.file)
    dataset = dataset_of(attack, root=plan.root, file=plan.file)
    spec = one_model(plan.model, root=plan.root, wanted="to show it to")
    at_once = min(MOST_AT_ONCE, max(USUAL_PICTURES, len(attack.pictures)))
    arithmetic = Arithmetic(plan.device, batch_size=at_once)
    who = asked(attack.task, spec, dataset, arithmetic=arithmetic, store=plan.store)
    store = Store(plan.store)
    bench = workbench(who, store, opened_run(store))

    def shown(lent: Bench) -> tuple[Attack, tuple[Shown, ...]] | None:
        trial = trial_on(who.unit, dataset, attack, lent)
        if not trial.ground:
            return None
        return trial.attack(attack.drawn), trial.shown_under(attack.drawn)

    came = done(bench, who.unit, shown)
    weights = who.unit.answers_with
    if came is None:
        return Replayed(spec.name, attack, None, weights, None)
    now, pictures = came
    sheet = plan.sheet or plan.attacks / f"{plan.file.stem}__on__{spec.name}.png"
    write_whole(sheet, attack_sheet(now, pictures))
    return Replayed(spec.name, attack, now, weights, sheet)


def dataset_of(attack: Attack, *, root: Path, file: Path) -> Dataset:
    """The dataset of the attack's pictures, in the state in which they were attacked.

    Raises:
        DataError: It is not there, or in another state.
    """
    needs = f"{file}: its pictures are of {attack.dataset!r} of revision {attack.revision[:12]}"
    remedy = f"run dvc pull fixtures/datasets/{attack.dataset}"
    try:
        dataset = ground_named(attack.dataset, root)
    except UnknownNameError as error:
        raise DataError(f"{needs}, which is not there; {remedy}") from error
    card = dataset.card
    if card.revision != attack.revision:
        raise DataError(f"{needs}, but {card.revision[:12]} is there; {remedy}, or search again")
    if attack.subject not in card.classes:
        raise unknown_name(f"class of {dataset.name}", attack.subject, card.classes)
    return dataset


def _flips(attack: Attack, *, of: str) -> str:
    """As `2 of 15 (13 %), 1 of them without letters too`."""
    return (
        f"{len(attack.flipped)} of {len(attack.pictures)}{of} ({100 * attack.share:.0f} %), "
        f"{attack.hidden_in_words}"
    )


def _effect(attack: Attack) -> tuple[frozenset[str], ...]:
    return frozenset(attack.pictures), frozenset(attack.flipped), frozenset(attack.hidden)

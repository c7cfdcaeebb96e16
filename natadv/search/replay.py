"""Shows an attack that was found on one model to another one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.store import Store
from natadv.pipelines.members import Arithmetic, one_model
from natadv.search.attack import Attack, read_attack
from natadv.search.contact_sheet import attack_sheet, attacked_samples
from natadv.search.objective import objective_of_attack
from natadv.search.predictions import PredictionPair
from natadv.search.target import dataset_of, find_target, prepare_run, with_model
from natadv.storage.atomic import write_whole

USUAL_PICTURES, MOST_AT_ONCE = 16, 64
"""A search asks for so many pictures by default, and shows at most so many at once. A replay shows
as many at once as the search did, because another number moves last bits."""


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """The attack, and the model that it is shown to."""

    file: Path
    model: str
    store: Path
    sheet: Path | None = None
    """Where the contact sheet goes; None for one in `attacks`, named after file and model."""
    attacks: Path = Path()
    root: Path = Path()
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Replay:
    """What an attack does to a model, compared with the model that it was found on."""

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
        """Whatever else the reader has to know."""
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


def replay(plan: ReplayPlan) -> Replay:
    """Show the same overlay with the same text on the same pictures, without those that the model
    is wrong about when they are clean.

    Raises:
        NatadvError: The file, the dataset or the model does not exist or does not fit.
    """
    attack = read_attack(plan.file)
    dataset = dataset_of(attack, root=plan.root, file=plan.file)
    spec = one_model(plan.model, root=plan.root, wanted="to show it to")
    at_once = min(MOST_AT_ONCE, max(USUAL_PICTURES, len(attack.pictures)))
    arithmetic = Arithmetic(plan.device, batch_size=at_once)
    target = find_target(attack.task, spec, dataset, arithmetic=arithmetic, store=plan.store)
    store = Store(plan.store)
    runner = target.runner(store, prepare_run(store))

    def attacked(loaded: LoadedModel) -> tuple[Attack, tuple[PredictionPair, ...]] | None:
        objective = objective_of_attack(target.unit, dataset, attack, loaded)
        if not objective.samples:
            return None
        return objective.attack(attack.drawn), objective.predictions(attack.drawn)

    found = with_model(runner, target.unit, attacked)
    weights = target.unit.answers_with
    if found is None:
        return Replay(spec.name, attack, None, weights, None)
    now, predictions = found
    sheet = plan.sheet or plan.attacks / f"{plan.file.stem}__on__{spec.name}.png"
    write_whole(sheet, attack_sheet(now, attacked_samples(now, predictions, dataset)))
    return Replay(spec.name, attack, now, weights, sheet)


def _flips(attack: Attack, *, of: str) -> str:
    """As `2 of 15 (13 %), 1 of them without letters too`."""
    return (
        f"{len(attack.flipped)} of {len(attack.pictures)}{of} ({100 * attack.share:.0f} %), "
        f"{attack.hidden_in_words}"
    )


def _effect(attack: Attack) -> tuple[frozenset[str], ...]:
    return frozenset(attack.pictures), frozenset(attack.flipped), frozenset(attack.hidden)

"""`natadv train segmentation|vqa ...`"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from natadv.cli import shared_options as opt
from natadv.evaluate.devices import device_kind
from natadv.training.head_settings import SETTINGS, TrainedTask, settings_for

app = opt.command_group()
train = opt.command_group(
    "Train a head for segmentation or vqa on the frozen picture tower of a model.", metavar="TASK"
)
app.add_typer(train, name="train")
_FRESH = "begin again, and replace an existing head"


def _trainer(task: TrainedTask) -> Callable[..., None]:
    def train_head(
        model: opt.Model,
        data: opt.Data,
        out: Annotated[Path, opt.path("gets the head")],
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
            device=device_kind(device),
            threads=threads,
            fresh=fresh,
        )
        print(summary(train(plan), plan.out))

    return train_head


for _task, _settings in SETTINGS.items():
    train.command(
        _task,
        cls=opt.Command,
        help=f"Train a head for {_task}. A training that was killed continues when it is started "
        "again in the same way, and ends with the same weights.",
        short_help=f"a head for {_task}",
        epilog=f"Settings (by default of section train-{_task}): "
        f"{', '.join(sorted(_settings.model_fields))}.",
    )(_trainer(_task))

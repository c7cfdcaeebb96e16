"""Every picture of a search on disk: one Parquet file per prompt, written once, never repeated."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from natadv.errors import DataError
from natadv.pipelines.langadv.judging import Judged
from natadv.storage.atomic import replacing, writing

SCHEMA = pa.schema(
    [
        pa.field("prompt", pa.string()),
        pa.field("seed", pa.int64()),
        pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        pa.field("facts", pa.string()),
        pa.field("fooled", pa.bool_()),
        pa.field("p_true", pa.float64()),
        pa.field("consistency", pa.float64()),
    ]
)


REMEDY = "free space, and run again: what is stored already is kept"


class Picture(NamedTuple):
    """One generated picture, with all that was found of it."""

    prompt: str
    seed: int
    image: bytes
    """The encoded file."""
    facts: str
    judged: Judged


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of one class, in a folder."""

    folder: Path

    def path(self, prompt: str) -> Path:
        digest = hashlib.sha256(prompt.encode()).hexdigest()
        return self.folder / f"{digest[:16]}.parquet"

    def read(self, prompt: str, seeds: list[int]) -> list[Picture] | None:
        """None if they are not made yet. Raises DataError if the file holds something else."""
        path = self.path(prompt)
        if not path.exists():
            return None
        pictures = self.all_of(prompt)
        if [(p.prompt, p.seed) for p in pictures] != [(prompt, seed) for seed in seeds]:
            raise DataError(
                f"{path}: expected {len(seeds)} pictures of {prompt!r} with the seeds of this "
                "search, came others; delete it, and run again"
            )
        return pictures

    def all_of(self, prompt: str) -> list[Picture]:
        """Raises DataError if they cannot be read."""
        path = self.path(prompt)
        try:
            rows = pq.read_table(path, schema=SCHEMA).to_pylist()
            return [_picture(row) for row in rows]
        except (OSError, pa.ArrowException, KeyError, TypeError) as error:
            raise DataError(f"{path}: cannot be read ({error}); delete it, and run again") from None

    def write(self, pictures: list[Picture]) -> None:
        """Whole or not at all."""
        path = self.path(pictures[0].prompt)
        table = pa.Table.from_pylist([_row(picture) for picture in pictures], schema=SCHEMA)
        with writing(path, remedy=REMEDY), replacing(path) as temporary:
            pq.write_table(table, temporary, compression="none")


def _row(picture: Picture) -> dict[str, object]:
    return {
        "prompt": picture.prompt,
        "seed": picture.seed,
        "image": {"bytes": picture.image, "path": None},
        "facts": picture.facts,
        **picture.judged._asdict(),
    }


def _picture(row: dict[str, object]) -> Picture:
    image = row["image"]
    assert isinstance(image, dict)
    judged = Judged(bool(row["fooled"]), float(row["p_true"]), float(row["consistency"]))  # type: ignore[arg-type]
    return Picture(
        str(row["prompt"]),
        int(row["seed"]),  # type: ignore[call-overload]
        image["bytes"],
        str(row["facts"]),
        judged,
    )

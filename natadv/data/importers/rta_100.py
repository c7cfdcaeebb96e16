"""RTA-100 and PAINT: photographs of things with a wrong word; the file name states both."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from natadv.data.dataset_plan import DatasetPlan, SetAside
from natadv.data.importers import ImportRequest
from natadv.data.importers.sources import identify, picture_paths, plan_pictures, refuse_collisions
from natadv.errors import DataError
from natadv.types import Sample

# Labels and words may contain spaces and underscores, so the name is not split at those.
_NAME = re.compile(r"label=(?P<label>.+)_text=(?P<text>.+)\.(?:jpe?g|png)", re.IGNORECASE)


def plan(request: ImportRequest) -> DatasetPlan:
    """Plan a dataset whose classes are all labels and all written words, sorted.

    A picture with another name, or whose written word is its label, is set aside.
    """
    return _plan(request, candidates=False)


def plan_pairs(request: ImportRequest) -> DatasetPlan:
    """As `plan`, but a model chooses between the label and the word of each picture alone, as in
    the evaluation of SCAM's authors."""
    return _plan(request, candidates=True)


def _plan(request: ImportRequest, *, candidates: bool) -> DatasetPlan:
    source = identify(request)
    paths = picture_paths(request.path)
    pairs = [pair for path in paths if (pair := _label_and_word(path))]
    if not pairs:
        raise DataError(
            f"{request.path}: expected names such as label=<thing>_text=<written word>.png, got "
            f"{paths[0]!r}; is this {request.format.name}?"
        )
    classes = sorted({name for pair in pairs for name in pair})
    refuse_collisions(classes, request.path)
    index = {name: label for label, name in enumerate(classes)}

    def describe(path: str) -> Sample | SetAside:
        """The sample of a picture's path, still without the picture."""
        name, pair = PurePosixPath(path).name, _label_and_word(path)
        if pair is None:
            return SetAside(path, "not named label=..._text=...")
        label, word = pair
        if label == word:
            return SetAside(path, "the written word is the truth")
        choices = (label, word) if candidates else ()
        return Sample(name, name, b"", label=index[label], decoy=word, candidates=choices)

    return plan_pictures(
        request,
        source,
        describe,
        what="Photographs with a handwritten wrong word",
        classes=classes,
        scenario="typographic",
        candidates=candidates,
    )


def _label_and_word(path: str) -> tuple[str, str] | None:
    match = _NAME.fullmatch(PurePosixPath(path).name)
    return (match["label"].strip(), match["text"].strip()) if match else None

from __future__ import annotations

import importlib.util
import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natadv.data.card import Card, find_datasets, load_card
from natadv.data.classes import TEMPLATES, class_table
from natadv.data.importers import FORMATS, ImportRequest, import_dataset
from natadv.data.reader import read_samples
from natadv.errors import ConfigError, DataError

Encode = Callable[..., bytes]


def import_imagefolder(
    path: Path, *, name: str, root: Path, force: bool = False, **options: Any
) -> Card:
    request = ImportRequest(FORMATS["imagefolder"], path, name, **options)
    return import_dataset(request, root=root, force=force).card


@pytest.fixture
def photos(tmp_path: Path, encode: Encode) -> Path:
    """Two classes by WordNet id, three pictures, and a hidden file."""
    path = tmp_path / "photos"
    for name, data in {
        "n01443537/b.JPEG": encode(1, format="JPEG"),
        "n01443537/a.png": encode(2),
        "n01440764/ünï.webp": encode(3, format="WEBP"),
        "n01440764/.DS_Store": b"\0",
    }.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def test_pictures_keep_their_bytes_and_come_in_order(photos: Path, root: Path) -> None:
    card = import_imagefolder(photos, name="fish", root=root)
    samples = read_samples(find_datasets(root)["fish"], card, start=0, stop=3)

    assert [s.id for s in samples] == ["n01440764/ünï.webp", "n01443537/a.png", "n01443537/b.JPEG"]
    assert [s.image for s in samples] == [(photos / s.id).read_bytes() for s in samples]
    assert [s.label for s in samples] == [0, 1, 1]
    assert len({s.group for s in samples}) == 3


def test_without_a_table_the_folders_are_the_classes(photos: Path, root: Path) -> None:
    card = import_imagefolder(photos, name="fish", root=root)

    assert card.classes == ("n01440764", "n01443537")
    assert card.templates == ("a photo of a {}.",)
    assert (card.tasks, card.scenario) == (("classification",), "clean")


def test_imagenet_classes_are_all_1000_in_index_order(photos: Path, root: Path) -> None:
    card = import_imagefolder(photos, name="fish", root=root, classes="imagenet")
    samples = read_samples(find_datasets(root)["fish"], card, start=0, stop=3)

    assert len(card.classes) == 1000
    assert [card.classes[s.label or 0] for s in samples] == ["tench", "goldfish", "goldfish"]
    assert load_card(find_datasets(root)["fish"]) == card


def test_the_same_pictures_give_the_same_revision(photos: Path, root: Path, tmp_path: Path) -> None:
    first = import_imagefolder(photos, name="fish", root=root)
    photos.rename(tmp_path / "moved")

    second = import_imagefolder(tmp_path / "moved", name="fish", root=root, force=True)

    assert second.revision == first.revision


def test_a_template_set_can_be_chosen(photos: Path, root: Path) -> None:
    card = import_imagefolder(photos, name="fish", root=root, templates="openai-80")

    assert card.templates == TEMPLATES["openai-80"]


def test_progress_counts_pictures_up_to_the_last(photos: Path, root: Path) -> None:
    stream = io.StringIO()

    import_imagefolder(photos, name="fish", root=root, stream=stream)

    assert stream.getvalue().startswith("fish: 3 of 3 pictures, ")


def write(name: str, data: bytes) -> Callable[[Path], None]:
    def sabotage(photos: Path) -> None:
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_bytes(data)

    return sabotage


def cut(photos: Path) -> None:
    path = photos / "n01443537/b.JPEG"
    path.write_bytes(path.read_bytes()[:-200])


def bomb(photos: Path) -> None:
    data = bytearray((photos / "n01443537/a.png").read_bytes())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (photos / "n01443537/a.png").write_bytes(data)


def remove_all(photos: Path) -> None:
    for path in photos.glob("*/*"):
        path.unlink()
    for path in photos.iterdir():
        path.rmdir()


def empty_class(photos: Path) -> None:
    (photos / "n01484850").mkdir()


def nested(photos: Path) -> None:
    (photos / "n01443537/more").mkdir()


def dangling(photos: Path) -> None:
    (photos / "n01443537/z.png").symlink_to("nowhere.png")


def pipe(photos: Path) -> None:
    os.mkfifo(photos / "n01443537/z.png")


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (cut, r"n01443537/b\.JPEG: damaged picture"),
    "bomb": (bomb, r"n01443537/a\.png: .*pixels"),
    "not a picture": (write("n01443537/z.txt", b"words"), r"n01443537/z\.txt: not a picture"),
    "empty file": (write("n01443537/z.JPEG", b""), r"n01443537/z\.JPEG: not a picture"),
    "outside a class": (write("z.JPEG", b"x"), r"photos/z\.JPEG: lies outside a class folder"),
    "unlabelled class": (write("fish/z.JPEG", b"x"), r"photos/fish: unlabelled class: 'fish'"),
    "empty folder": (remove_all, "photos: no class folders with pictures"),
    "empty class": (empty_class, "n01484850: class folder without pictures"),
    "nested folder": (nested, "n01443537/more: expected a picture"),
    "dangling link": (dangling, r"n01443537/z\.png: expected a picture"),
    "pipe": (pipe, r"n01443537/z\.png: expected a picture"),
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_bad_input_is_named_and_nothing_is_written(photos: Path, root: Path, hostile: str) -> None:
    sabotage, complaint = HOSTILE[hostile]
    sabotage(photos)

    with pytest.raises(DataError, match=complaint):
        import_imagefolder(photos, name="fish", root=root, classes="imagenet")

    assert [path for path in root.rglob("*") if not path.is_dir()] == []
    assert find_datasets(root) == {}
    assert list((root / "fixtures/datasets").glob(".*")) == []


def test_path_that_is_no_folder_is_named(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DataError, match="nowhere: expected a folder with one folder per class"):
        import_imagefolder(tmp_path / "nowhere", name="fish", root=root)


def test_a_folder_has_no_hash(photos: Path, root: Path) -> None:
    with pytest.raises(ConfigError, match="a folder has no sha256"):
        import_imagefolder(photos, name="fish", root=root, sha256="0" * 64)


def test_existing_dataset_is_kept_without_force(photos: Path, root: Path) -> None:
    before = import_imagefolder(photos, name="fish", root=root)

    with pytest.raises(ConfigError, match="dataset 'fish' exists; replace it with --force"):
        import_imagefolder(photos, name="fish", root=root, classes="imagenet")

    assert load_card(find_datasets(root)["fish"]) == before


def test_bad_picture_does_not_cost_the_dataset_that_it_should_replace(
    photos: Path, root: Path
) -> None:
    before = import_imagefolder(photos, name="fish", root=root)
    cut(photos)

    with pytest.raises(DataError, match="damaged"):
        import_imagefolder(photos, name="fish", root=root, force=True)

    assert load_card(find_datasets(root)["fish"]) == before


@pytest.mark.parametrize("name", ["../fish", "Fish", "a/b", ""])
def test_name_that_is_no_name_is_refused(photos: Path, root: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name: "):
        import_imagefolder(photos, name=name, root=root)


def test_unknown_class_table_and_template_set_name_the_known_ones(photos: Path, root: Path) -> None:
    with pytest.raises(ConfigError, match="unknown class table 'imagnet', did you mean 'imagenet'"):
        import_imagefolder(photos, name="fish", root=root, classes="imagnet")
    with pytest.raises(ConfigError, match="unknown template set 'openai-81'"):
        import_imagefolder(photos, name="fish", root=root, templates="openai-81")


def test_imagenet_table_has_1000_different_names_in_wnid_order() -> None:
    table = class_table("imagenet")
    wnids, names = list(table), list(table.values())

    assert len(wnids) == len(set(names)) == 1000
    assert wnids == sorted(wnids)
    assert (names[0], names[207], names[999]) == ("tench", "Golden Retriever", "toilet paper")


def test_imagenet_a_is_a_question_of_200_of_the_1000() -> None:
    few, all_of_them = class_table("imagenet-a"), class_table("imagenet")
    positions = [list(all_of_them).index(wnid) for wnid in few]

    assert len(few) == 200
    assert positions == sorted(positions)
    assert (positions[:3], positions[-1]) == ([6, 11, 13], 988)
    assert all(all_of_them[wnid] == name for wnid, name in few.items())


def test_imagenet_a_is_never_asked_among_1000(tmp_path: Path, root: Path, encode: Encode) -> None:
    path, picture = tmp_path / "imagenet-a", encode(1)
    for wnid in class_table("imagenet-a"):
        (path / wnid).mkdir(parents=True)
        (path / wnid / "0.png").write_bytes(picture)

    with pytest.raises(DataError, match="use --classes imagenet-a"):
        import_imagefolder(path, name="a", root=root, classes="imagenet")
    assert import_imagefolder(path, name="a", root=root, classes="imagenet-a").rows == 200


def test_the_two_names_that_were_there_twice_are_told_apart() -> None:
    names = list(class_table("imagenet").values())

    assert (names[657], names[744]) == ("missile", "projectile")
    assert (names[836], names[837]) == ("sunglass", "sunglasses")


def published() -> Any:
    """The metadata module of open_clip alone; the package would load torch."""
    package = importlib.util.find_spec("open_clip")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).with_name("zero_shot_metadata.py")
    spec = importlib.util.spec_from_file_location("zero_shot_metadata", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_imagenet_names_are_those_of_open_clip_but_for_these_two() -> None:
    metadata = published()
    ours = list(class_table("imagenet").values())

    differ = [i for i, name in enumerate(metadata.IMAGENET_CLASSNAMES) if name != ours[i]]

    assert differ == [744, 836]


def test_template_sets_are_those_that_openai_published() -> None:
    metadata = published()

    def filled(name: str) -> list[str]:
        return [template.format("sea lion") for template in TEMPLATES[name]]

    assert filled("openai-80") == [t("sea lion") for t in metadata.OPENAI_IMAGENET_TEMPLATES]
    assert filled("openai-7") == [t("sea lion") for t in metadata.SIMPLE_IMAGENET_TEMPLATES]
    assert filled("single") == ["a photo of a sea lion."]

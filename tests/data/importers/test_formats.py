"""What every row of the table of formats promises."""

from __future__ import annotations

import subprocess
import sys

import pytest

from natadv.data.classes import TEMPLATES
from natadv.data.importers import FORMATS, Checksum
from natadv.errors import DataError

LENGTHS = {"sha256": 64, "md5": 32, "git-blob": 40}


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_can_be_planned_and_says_how_to_get_it(name: str) -> None:
    row = FORMATS[name]

    assert callable(row.plan)
    assert row.templates in TEMPLATES
    assert set(row.needs) <= set(row.takes)
    if row.name:
        assert row.name == name
        # The authors of PAINT state no number, and that of RIO-Bench was not seen.
        assert row.rows > 0 or name.startswith(("paint", "rio-bench"))
        assert row.licence
        assert row.source.startswith("https://")
        assert row.access


@pytest.mark.parametrize(
    "checksum", [checksum for row in FORMATS.values() for checksum in row.published.values()]
)
def test_a_published_hash_has_its_length(checksum: Checksum) -> None:
    assert len(checksum.digest) == LENGTHS[checksum.algorithm]
    assert set(checksum.digest) <= set("0123456789abcdef")


@pytest.mark.parametrize("name", [name for name, row in FORMATS.items() if row.access])
def test_a_source_that_is_not_there_is_told_how_to_get(importing, name, tmp_path) -> None:
    nowhere = tmp_path / "nowhere"
    options = dict.fromkeys(FORMATS[name].needs, nowhere)

    with pytest.raises(DataError, match=r"nowhere: (is not there; to get it:\n|expected the Parq)"):
        importing(name, nowhere, **options)


def test_the_table_loads_no_importer() -> None:
    code = "import sys, natadv.data.importers; assert not {'pyarrow', 'PIL'} & set(sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)

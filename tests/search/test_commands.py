from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "pyarrow", "transformers", "hypothesis"}


@pytest.mark.parametrize("command", ["search", "replay", "freeze"])
def test_help_needs_nothing_heavy(command):
    code = (
        "import sys; from natadv.cli import main\n"
        f"try: main(['{command}', '--help'])\n"
        "except SystemExit: pass\n"
        f"assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

from __future__ import annotations

import subprocess
import sys

HEAVY = {"torch", "pyarrow", "transformers", "hypothesis"}


def test_help_needs_nothing_heavy():
    for command in ("search", "replay", "freeze"):
        code = (
            "import sys; from natadv.cli import main\n"
            f"try: main(['{command}', '--help'])\n"
            "except SystemExit: pass\n"
            f"assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)"
        )

        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

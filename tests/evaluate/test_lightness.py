"""A run that finds all of its units in the store must not wait for PyTorch."""

from __future__ import annotations

import subprocess
import sys


def test_the_workbench_is_there_without_pytorch():
    code = (
        "import sys, natadv.evaluate.model_runner; "
        "sys.exit(' '.join({'torch', 'transformers', 'open_clip'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr.strip()) == (0, "")

import re
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).resolve().parent / "kills.py"


@pytest.mark.slow
@pytest.mark.timeout(660)  # on a busy machine
@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
def test_a_run_that_is_killed_ends_as_one_that_was_not():
    command = [sys.executable, str(KILLS), "--kills", "4", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^4 kills in \d+ runs; 0 differ", done.stdout, re.M)

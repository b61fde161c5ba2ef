"""Reads damaged files, one after the other, and prints each one's result.

The seed and a case's number determine it, except for dates in some files. It runs in its own
process, since a reader may crash it.
"""

import random
import re
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.mutations import damaged
from fuzz.targets import TARGETS, Target

FREE_MB, TIMES_THE_FILE = 200, 4
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def case(seed: int, number: int, originals: dict[str, dict[str, bytes]]) -> tuple[Target, bytes]:
    """The target of a case, and the damaged file's content."""
    target = TARGETS[number % len(TARGETS)]
    rng = random.Random(f"{seed} {number}")
    return target, damaged(originals[target.name]["damaged"], rng)


def write_originals(folder: Path) -> dict[str, dict[str, bytes]]:
    """For each target its valid files' contents by name, and the one to damage."""
    originals = {}
    for number, target in enumerate(TARGETS):
        place = folder / str(number)
        place.mkdir(parents=True)
        path = target.write(place)
        originals[target.name] = {"damaged": path.read_bytes(), "name": path.name.encode()}
        target.read(path)  # the valid file is read
    return originals


def outcome(target: Target, path: Path, content: bytes) -> str:
    """'read' or 'refused'; or a fault: 'unnamed', 'memory', 'slow', or the exception's name."""
    path.write_bytes(content)
    CLEAR.write_text("5")
    before, start = memory_mb("VmRSS"), time.monotonic()
    try:
        target.read(path)
        result = "read"
    except (OSError, ValueError) as error:
        result = "refused" if str(path.parent) in str(error) else f"unnamed: {error}"
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    took = memory_mb("VmHWM") - before
    if took > FREE_MB + TIMES_THE_FILE * len(content) / 1e6:
        result = f"memory: {took:.0f} MB for {len(content):,} bytes"
    if time.monotonic() - start > 20:
        result = "slow"
    return " ".join(result.split())[:300]


def memory_mb(key: str) -> float:
    match = re.search(rf"{key}:\s*(\d+) kB", STATUS.read_text())
    return int(match[1]) / 1000 if match else 0.0


def main(seed: int, first: int, step: int, end: int) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        originals = write_originals(Path(folder))
        print("ready", flush=True)
        for number in range(first, end, step):
            target, content = case(seed, number, originals)
            place = Path(folder) / str(number % len(TARGETS))
            path = place / originals[target.name]["name"].decode()
            print(number, outcome(target, path, content), flush=True)
            path.write_bytes(originals[target.name]["damaged"])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

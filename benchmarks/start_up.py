"""Measure the start-up of commands: CPU seconds of --help, an error, and one photo.

    python benchmarks/start_up.py [PHOTO] [--repeats 3]

User and system time of a separate process, the minimum over several runs, also as a multiple of the
start-up time of Python with NumPy. PHOTO is scikit-image's astronaut by default.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from keras_scnn.settings import FAILURE

HELP = ("train", "evaluate", "prepare", "reconstruct", "compare", "serve", "ablate", "export")
HELP += ("demo", "presets")
ERRORS = ("train --p-sam 1", "train --people 0")


def cpu_seconds(words: list[str], repeats: int, status: int) -> float:
    """Minimum user plus system time of ``python WORDS``, including its child processes.

    Raises:
        RuntimeError: it ends with another exit status, so its time is no result.
    """
    times = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run = subprocess.run([sys.executable, *words], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if run.returncode != status:
            last = run.stderr.strip().splitlines()[-1:]
            raise RuntimeError(f"{' '.join(words)}: status {run.returncode}, not {status}: {last}")
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def astronaut(folder: Path) -> Path:
    """scikit-image's photo as a JPEG in ``folder``."""
    import cv2
    from skimage import data

    path = folder / "astronaut.jpg"
    cv2.imwrite(str(path), data.astronaut()[..., ::-1])
    return path


def main() -> None:
    """Time the commands in new processes, and print the minima over the repeats."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photo", nargs="?", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        photo, out = args.photo or astronaut(Path(place)), ["--out", f"{place}/out"]
        works = {"python, NumPy": ["-c", "import numpy"]}
        works |= {f"{name} --help": ["-m", "keras_scnn", name, "--help"] for name in HELP}
        for words in ERRORS:
            works[words] = ["-m", "keras_scnn", *words.split()]
        works["python, Keras"] = ["-c", "import keras"]
        works["reconstruct PHOTO"] = ["-m", "keras_scnn", "reconstruct", str(photo), *out]
        works["compare PHOTO PHOTO"] = ["-m", "keras_scnn", "compare", *[str(photo)] * 2, *out]
        unit = None
        for name, words in works.items():
            seconds = cpu_seconds(words, args.repeats, FAILURE if name in ERRORS else 0)
            unit = unit or seconds
            print(f"{name:24}{seconds:7.2f} s{seconds / unit:8.1f} x", flush=True)


if __name__ == "__main__":
    main()

"""Damage the project's own small files and read them: python tests/fuzz/run.py --cases 100000

Prints a table: tried, read (the damage did no harm), refused (a ValueError or OSError that names
the file), other (any other exception, or one that names no file), crashed (the process ended),
slow (over 20 s) and memory (over 4 times the file and 200 MB). The status is 1 where one of the
last four is not 0.
"""

import argparse
import collections
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent))
START_S, CASE_S = 120.0, 20.0
KINDS = ("tried", "read", "refused", "other", "crashed", "slow", "memory")


@dataclass
class Counts:
    """Results, in total and by the target's number, and one line for each fault."""

    total: collections.Counter = field(default_factory=collections.Counter)
    by_target: dict[int, collections.Counter] = field(
        default_factory=lambda: collections.defaultdict(collections.Counter)
    )
    faults: list[str] = field(default_factory=list)

    def add(self, number: int, result: str, targets: int) -> None:
        word = result.partition(":")[0]
        kind = word if word in KINDS else "other"
        for counter in (self.total, self.by_target[number % targets]):
            counter.update(["tried", kind])
        if kind not in ("read", "refused"):
            self.faults.append(f"case {number}: {result}")


def follow(seed: int, first: int, step: int, end: int, until: float, take) -> None:
    """Run worker processes over some cases; one that dies is followed by another."""
    while first < end and time.monotonic() < until:
        command = [sys.executable, str(FOLDER / "worker.py"), *map(str, (seed, first, step, end))]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        lines: queue.Queue = queue.Queue()
        reader = threading.Thread(target=_pump, args=(run, lines))
        reader.start()
        first = _take_lines(run, lines, first, step, until, take)
        run.kill()
        run.wait()
        reader.join()


def _pump(run: subprocess.Popen, lines: queue.Queue) -> None:
    for line in run.stdout:
        lines.put(line)
    lines.put(None)


def _take_lines(run, lines: queue.Queue, first: int, step: int, until: float, take) -> int:
    """Results until the worker is done, dies, hangs or time is over; the next case's number."""
    limit, started = START_S, False
    while time.monotonic() < until:
        try:
            line = lines.get(timeout=limit)
        except queue.Empty:
            take(first, "slow")
            return first + step
        if line is None:
            if not started:
                raise RuntimeError("the worker did not start: a valid file was not read")
            if run.wait():
                take(first, f"crashed: status {run.returncode}")
                return first + step
            return sys.maxsize
        if line == "ready\n":
            limit, started = CASE_S + 5, True
            continue
        number, _, result = line.strip().partition(" ")
        take(int(number), result)
        first = int(number) + step
    return first


def fuzz(cases: int, seed: int = 0, workers: int = 1, minutes: float = 60.0) -> Counts:
    """Run the cases 0 to ``cases`` - 1, or as many as there is time for."""
    from fuzz.targets import TARGETS

    counts, lock, until = Counts(), threading.Lock(), time.monotonic() + 60 * minutes

    def take(number: int, result: str) -> None:
        with lock:
            counts.add(number, result, len(TARGETS))

    threads = [
        threading.Thread(target=follow, args=(seed, i, workers, cases, until, take))
        for i in range(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=600)
    args = parser.parse_args()
    from fuzz.targets import TARGETS

    counts = fuzz(args.cases, args.seed, args.workers, args.minutes)
    print(f"{'':24}" + "".join(f"{kind:>9}" for kind in KINDS))
    rows = [(TARGETS[i].name, counts.by_target[i]) for i in sorted(counts.by_target)]
    for name, counter in [*rows, ("all", counts.total)]:
        print(f"{name:24}" + "".join(f"{counter[kind]:9,}" for kind in KINDS))
    for fault in counts.faults[:200]:
        print(fault)
    return 1 if counts.faults else 0


if __name__ == "__main__":
    sys.exit(main())

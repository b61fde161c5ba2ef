"""A few hundred damaged files; docs/reliability.md describes how to try 100,000."""

import random

import pytest
from fuzz.mutations import damaged
from fuzz.run import Counts, fuzz


@pytest.mark.integration
@pytest.mark.timeout(180)
def test_damaged_files_are_read_or_refused_and_nothing_else():
    cases = 400
    counts = fuzz(cases, seed=1, minutes=2)
    assert not counts.faults, "\n".join(counts.faults)
    assert counts.total["tried"] == cases == counts.total["read"] + counts.total["refused"]
    assert counts.total["refused"] > cases / 2


def test_a_case_is_the_same_each_time():
    data = bytes(range(256)) * 20
    first, again = ([damaged(data, random.Random(f"0 {n}")) for n in range(50)] for _ in range(2))
    assert first == again
    assert sum(one != data for one in first) > 45


def test_faults_are_counted_as_such():
    counts = Counts()
    for number, result in enumerate(
        ["read", "refused", "KeyError: x", "unnamed: a", "crashed: -11", "slow", "memory: 9"]
    ):
        counts.add(number, result, 3)
    once = dict.fromkeys(("read", "refused", "crashed", "slow", "memory"), 1)
    assert counts.total == {**once, "tried": 7, "other": 2} and len(counts.faults) == 5

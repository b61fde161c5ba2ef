"""Ranges of the losses' settings, checked when a loss is made."""

from __future__ import annotations

import math


def check_at_least(name: str, value: float, low: float = 0.0) -> None:
    """Raise a ValueError for a number that is below ``low``, or not finite."""
    if not low <= value < math.inf:
        raise ValueError(f"{name} is {value}; it must be {low:g} or more, and finite")


def check_above(name: str, value: float, low: float = 0.0) -> None:
    """Raise a ValueError for a number that is not above ``low``, or not finite."""
    if not low < value < math.inf:
        raise ValueError(f"{name} is {value}; it must be above {low:g}, and finite")


def check_share(name: str, value: float) -> None:
    """Raise a ValueError for a number that does not lie in 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it must lie in 0 to 1")

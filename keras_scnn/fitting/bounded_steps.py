"""Batches of bound-constrained quadratic programs: one step of fitting many photos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_BLOCK_PIVOTS, MAX_PIVOTS = 8, 40


@dataclass(eq=False)
class NormalEquations:
    """The quadratic ``x' H x / 2 + g' x`` of B photos in G groups, with an arrowhead matrix H.

    Each photo has P unknowns of its own, and the photos of a group are coupled only through K
    shared unknowns, which are therefore solved first (Schur complement), then the others.

    Attributes:
        own: (B, P, P), positive definite. own_slope: (B, P).
        coupling: (B, P, K).
        shared: (G, K, K), such that H is positive definite. shared_slope: (G, K).
        group: (B,) integers, 0 to G - 1.
    """

    own: np.ndarray
    own_slope: np.ndarray
    coupling: np.ndarray
    shared: np.ndarray
    shared_slope: np.ndarray
    group: np.ndarray

    def solve(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The minimum with ``low <= own unknowns <= high``.

        Block principal pivoting (Júdice and Pires 1994): guess the active set, solve for the free
        unknowns, exchange those that are infeasible (beyond a bound, or on one with a gradient that
        points inwards), until none is; all of them at once for ``MAX_BLOCK_PIVOTS`` rounds, then
        one per photo (Murty 1974), which cannot cycle.

        Args:
            low, high: (B, P), may be infinite.

        Returns:
            own (B, P) and shared (G, K) unknowns.
        """
        at_low = np.zeros(low.shape, bool)
        at_high = np.zeros(low.shape, bool)
        for pivot in range(MAX_PIVOTS):
            fixed = np.select([at_low, at_high], [low, high], np.nan)
            own, shared = self._solve_fixed(fixed)
            slope = self.slope(own, shared)
            free = ~(at_low | at_high)
            falls, rises = free & (own < low), free & (own > high)
            leaves = (at_low & (slope < 0)) | (at_high & (slope > 0))
            wrong = falls | rises | leaves
            if not wrong.any():
                break
            if pivot >= MAX_BLOCK_PIVOTS:
                wrong &= np.cumsum(wrong[:, ::-1], axis=1)[:, ::-1] == 1
            at_low = (at_low & ~wrong) | (falls & wrong)
            at_high = (at_high & ~wrong) | (rises & wrong)
        return np.clip(own, low, high), shared

    def slope(self, own: np.ndarray, shared: np.ndarray) -> np.ndarray:
        """(B, P): the quadratic's derivative with respect to the own unknowns."""
        inner = np.einsum("bij,bj->bi", self.own, own)
        return inner + np.einsum("bik,bk->bi", self.coupling, shared[self.group]) + self.own_slope

    def _solve_fixed(self, fixed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The minimum with own unknowns fixed to given values, (B, P); NaN leaves one free."""
        is_fixed = ~np.isnan(fixed)
        value = np.where(is_fixed, fixed, 0)
        slope = self.own_slope + np.einsum("bij,bj->bi", self.own, value)
        shared_slope = np.einsum("bik,bi->bk", self.coupling, value)
        free = ~is_fixed
        own = self.own * free[:, :, None] * free[:, None, :]
        index = np.arange(own.shape[-1])
        own[:, index, index] += is_fixed
        coupling = self.coupling * free[..., None]
        slope = slope * free
        solved = np.linalg.solve(own, np.concatenate([coupling, slope[..., None]], axis=-1))
        reduced = np.swapaxes(coupling, 1, 2) @ solved
        schur = self.shared - self._sum(reduced[..., :-1])
        right = self.shared_slope + self._sum(shared_slope - reduced[..., -1])
        shared = -np.linalg.solve(schur, right[..., None])
        step = -(solved[..., -1:] + solved[..., :-1] @ shared[self.group])
        return np.where(is_fixed, value, step[..., 0]), shared[..., 0]

    def _sum(self, values: np.ndarray) -> np.ndarray:
        return sum_by_group(values, self.group, len(self.shared))


def sum_by_group(values: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """(B, ...) values of photos to (G, ...) sums over the photos of each group."""
    if groups == len(group) and (group == np.arange(groups)).all():
        return values  # one photo in each group; np.add.at is slow
    total = np.zeros((groups, *values.shape[1:]))
    np.add.at(total, group, values)
    return total

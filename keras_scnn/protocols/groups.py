"""Verification by groups of people: does it work for everybody?

Every pair is decided with the threshold of its fold, which is the same for all people, as in use.
A group's accuracy is the mean of two shares: of its pairs of one person that are accepted, and of
its pairs of two people, both of the group, that are refused. Two people of one group look more
alike, so these pairs are harder (Grother, Ngan and Hanaoka, "Face Recognition Vendor Test Part 3:
Demographic Effects", 2019; the shares are 1 minus their false non-match and false match rates).
The AUC within a group does not depend on a threshold: a low accuracy with a high AUC means that the
common threshold does not suit the group.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keras_scnn.evaluation import Pairs
from keras_scnn.evaluation.bootstrap import weighted_mean
from keras_scnn.evaluation.report import Row
from keras_scnn.evaluation.verification import RankedPairs, area_under, rates, right_answers

MIN_PAIRS = 30
NOTE = (
    "by group: one threshold for all people; mean of the share of pairs of one person of the group "
    "that are accepted, and of pairs of two people of it that are refused; AUC: within the group, "
    f"free of a threshold; without groups of fewer than {MIN_PAIRS} pairs of a kind"
)


def group_summary(
    ranked: dict[str, RankedPairs], pairs: Pairs, groups: dict[str, np.ndarray]
) -> Callable[[np.ndarray], dict]:
    """Accuracy by attribute, group and kind of distance, as a function of the pairs' weights.

    Args:
        ranked: the ranked pairs, by kind of distance.
        pairs: the same P pairs.
        groups: by attribute: (n,) the group of each photo's person, '' if unknown.

    Returns:
        A function from (P,) weights to the accuracy in percent, its two shares, and the AUC, by
        attribute, group and kind. Groups with fewer than 30 pairs of one person or of two are left
        out.
    """
    right = {kind: right_answers(one) for kind, one in ranked.items()}
    members = {
        attribute: {
            group: chosen
            for group, chosen in _members(pairs, of).items()
            if _are_enough(pairs, chosen)
        }
        for attribute, of in groups.items()
    }

    def summary(weights: np.ndarray) -> dict:
        """All numbers; ``weights`` (P,) is how often each pair counts."""
        return {
            attribute: {
                group: {
                    kind: _shares(right[kind], chosen, pairs.same, weights)
                    | {"auc": _auc(ranked[kind], chosen * weights)}
                    for kind in right
                }
                for group, chosen in of.items()
            }
            for attribute, of in members.items()
        }

    return summary


def _members(pairs: Pairs, of: np.ndarray) -> dict[str, np.ndarray]:
    """By group, (P,) bool: both people of a pair are in it; ``of`` (n,) is each photo's group."""
    names = np.unique(of[of != ""])
    return {str(one): (of[pairs.first] == one) & (of[pairs.second] == one) for one in names}


def _are_enough(pairs: Pairs, chosen: np.ndarray) -> bool:
    return min((chosen & pairs.same).sum(), (chosen & ~pairs.same).sum()) >= MIN_PAIRS


def small_groups(pairs: Pairs, groups: dict[str, np.ndarray]) -> list[str]:
    """The attribute and name of each group that ``group_summary`` leaves out."""
    return [
        f"{attribute} {group}"
        for attribute, of in groups.items()
        for group, chosen in _members(pairs, of).items()
        if not _are_enough(pairs, chosen)
    ]


def _shares(right: np.ndarray, chosen: np.ndarray, same: np.ndarray, weights: np.ndarray) -> dict:
    accepted, refused = (
        100 * weighted_mean(right[chosen & kind], weights[chosen & kind]) for kind in (same, ~same)
    )
    return {
        "accuracy_percent": (accepted + refused) / 2,
        "accepted_percent": accepted,
        "refused_percent": refused,
    }


def _auc(ranked: RankedPairs, weights: np.ndarray) -> float:
    return area_under(*rates(ranked, weights[ranked.order]))


def group_rows(stem: str, values: dict) -> list[Row]:
    """Table rows for the numbers of ``group_summary``, stored under ``STEM.by``."""
    return [
        (
            f"{stem}.by.{attribute}.{group}.{kind}.{measure}",
            f"{stem}, {attribute} {group}: same person? by {kind}, {name}",
            unit,
        )
        for attribute, of in values.items()
        for group, kinds in of.items()
        for kind in kinds
        for measure, name, unit in (("accuracy_percent", "accuracy", "%"), ("auc", "AUC", ""))
    ]

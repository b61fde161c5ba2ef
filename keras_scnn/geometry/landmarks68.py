"""Index sets of the 68 landmarks of iBUG's markup."""

import numpy as np

JAW = slice(0, 17)
Site = tuple[tuple[int, int], tuple[tuple[int, int], ...]]
"""The two corners, and the pairs of an upper and a lower point, whose distance is the opening."""
EYES: dict[str, Site] = {
    "right": ((36, 39), ((37, 41), (38, 40))),
    "left": ((42, 45), ((43, 47), (44, 46))),
}
MOUTH: Site = ((60, 64), ((61, 67), (62, 66), (63, 65)))  # the inner lips
OPENINGS = np.array([pair for _, pairs in (*EYES.values(), MOUTH) for pair in pairs])
# Index of the landmark that each one becomes in a mirror image.
MIRROR68 = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48]
    + [59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)
MIRROR68.setflags(write=False)
# Two points of each eye's upper lid, and those of the lower lid below them.
LIDS = np.array([np.ravel(pairs, "F") for _, pairs in EYES.values()])
FLATNESS = 1e-6  # width / length up to which landmarks count as collinear


def with_lids_in_order(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks with the points of the lower lids in the same direction as those of the upper lids.

    CFP's profiles number the two points of the lower lid in reverse; its frontal photos do not.

    Args:
        landmarks: (n, 68, 2) px, NaN where not given.

    Returns:
        (n, 68, 2), in which the two points of a lower lid are swapped if they run opposite to
        those of the upper lid; and (n,) bool, whether any were swapped.
    """
    ordered, any_wrong = landmarks.copy(), np.zeros(len(landmarks), bool)
    for first_above, second_above, first_below, second_below in LIDS:
        above = landmarks[:, second_above] - landmarks[:, first_above]
        below = landmarks[:, second_below] - landmarks[:, first_below]
        wrong = (above * below).sum(axis=-1) < 0  # false where a point is not given
        ordered[wrong, first_below] = landmarks[wrong, second_below]
        ordered[wrong, second_below] = landmarks[wrong, first_below]
        any_wrong |= wrong
    return ordered, any_wrong


def on_one_line(landmarks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Whether landmarks are collinear or coincident, as those of a face never are.

    Args:
        landmarks: (..., M, 2) or (..., M, 3) px; depth is ignored.
        weights: (..., M); landmarks with a weight above 0 count, and there must be one.

    Returns:
        (...) bool: less than a millionth as wide as long.
    """
    shares = weights / np.sum(weights, axis=-1, keepdims=True)
    points = np.where(shares[..., None] > 0, landmarks[..., :2], 0)
    center = np.einsum("...m,...md->...d", shares, points)
    spread = (points - center[..., None, :]) * np.sqrt(shares)[..., None]
    lengths = np.linalg.svd(spread, compute_uv=False)
    return lengths[..., 1] <= FLATNESS * lengths[..., 0]

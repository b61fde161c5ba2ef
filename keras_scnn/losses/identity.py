"""The identity loss: a person stays recognizable in feature space."""

from __future__ import annotations

import keras
from keras import ops

from keras_scnn.losses.batches import mean_of_rows, paired
from keras_scnn.settings import check_number


def identity_loss(same, similarity, margin=0.2):
    """Cosine embedding loss: ``same (1 - cos) + (1 - same) max(cos - margin, 0)``.

    It aligns the features of one person, and pushes the cosine of two people's features below
    ``margin``.

    Args:
        same: (B,) 1 where both photos show one person, else 0.
        similarity: (B,) cosine of the two features, -1 to 1.
        margin: -1 to 1.

    Returns:
        Scalar float32, the mean over the pairs; a kind of pair that the batch lacks adds 0.

    Raises:
        ValueError: there are not as many cosines as labels.
    """
    return mean_of_rows(identity_rows(same, similarity, margin))


def identity_rows(same, similarity, margin):
    """(B,) the loss of each pair, whose mean is ``identity_loss``."""
    same, similarity = paired(same, "similarity", similarity)
    push = ops.maximum(similarity - margin, 0.0)
    return same * (1 - similarity) + (1 - same) * push


@keras.saving.register_keras_serializable("keras_scnn")
class IdentityLoss(keras.losses.Loss):
    """``identity_loss`` for the output ``feature_similarity``.

    ``y_true`` is ``same`` and ``y_pred`` the cosine, both (B,).

    >>> import numpy as np
    >>> loss = IdentityLoss(margin=0.5)  # one person at 0.75, two people at 0.75
    >>> float(loss(np.array([1.0, 0.0]), np.array([0.75, 0.75])))  # (0.25 + 0.25) / 2
    0.25

    Args:
        margin: -1 to 1, the cosine above which two people are pushed apart.

    Raises:
        ValueError: the margin is not in -1 to 1.
    """

    def __init__(self, margin: float = 0.2, name="identity_loss"):
        super().__init__(name=name)
        check_number("margin", margin)
        if not -1 <= margin <= 1:
            raise ValueError(f"margin is {margin}; a cosine lies in -1 to 1")
        self.margin = margin

    def call(self, y_true, y_pred):
        return identity_rows(y_true, y_pred, self.margin)

    def get_config(self):
        return {"margin": self.margin, "name": self.name}

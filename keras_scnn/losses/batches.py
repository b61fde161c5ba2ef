"""What all losses share: arrays of one batch that belong together, and means over its rows."""

from __future__ import annotations

from keras import ops


def matching(target, predicted, axes: int | None = None) -> list:
    """Labels and predictions as float32.

    Args:
        target: the labels.
        predicted: the predictions.
        axes: where to end the comparison of their shapes, as in a slice; None: all axes are equal.

    Raises:
        ValueError: their static shapes differ; they would be broadcast.
    """
    target, predicted = (ops.cast(array, "float32") for array in (target, predicted))
    true, ours = tuple(target.shape), tuple(predicted.shape)
    sizes = zip(true[:axes], ours[:axes], strict=False)
    if len(true[:axes]) != len(ours[:axes]) or any(a != b for a, b in sizes if None not in (a, b)):
        raise ValueError(f"labels have the shape {true} and predictions {ours}; they do not match")
    return [target, predicted]


def paired(same, name: str, values):
    """``same`` and the values of as many pairs, both (B,) float32.

    Raises:
        ValueError: there are not as many values as labels; a single one would be broadcast.
    """
    same, values = (ops.reshape(ops.cast(part, "float32"), (-1,)) for part in (same, values))
    count, labels = values.shape[0], same.shape[0]
    if None not in (count, labels) and count != labels:
        raise ValueError(
            f"{name} has {count} values and same {labels}; each pair needs one of both"
        )
    return same, values


def mean_of_rows(rows):
    """The mean of (B,), a loss for each pair or photo; 0 for an empty batch."""
    return ops.sum(rows) / ops.maximum(ops.cast(ops.shape(rows)[0], "float32"), 1.0)


def batch_mean(loss):
    """Reshape a scalar mean over a batch's pairs to (1,), for a loss without per-sample values.

    Keras divides a mean over samples by the number of replicas of a distribution strategy, whose
    gradients are summed. It would not divide a scalar, and N replicas would count N times.
    """
    return ops.reshape(loss, (1,))

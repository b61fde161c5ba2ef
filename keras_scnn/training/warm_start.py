"""Start a branch from what is known already: another network's encoder, a solved head."""

from __future__ import annotations

import keras
import numpy as np

from keras_scnn.models.encoders import PREFIX
from keras_scnn.models.presets import Preset
from keras_scnn.parameters import Whitening

HEADS = ("parameters/", "features_")
BATCH = 128


def warm_start(
    branch: keras.Model, source: keras.Model, images: np.ndarray, whitened: np.ndarray
) -> None:
    """``copy_encoder`` and then ``solve_head``, whose arguments and errors these are."""
    copy_encoder(branch, source)
    solve_head(branch, images, whitened)


def copy_encoder(branch: keras.Model, source: keras.Model) -> None:
    """Give a branch the encoder of another one; its heads stay as they are.

    So does an identity encoder where the other has none.

    Raises:
        ValueError: the two encoders differ.
    """
    lone = not any(w.path.startswith(PREFIX) for w in source.weights)
    kept = (*HEADS, PREFIX) if lone else HEADS
    mine, theirs = (
        {w.path: w for w in model.weights if not w.path.startswith(kept)}
        for model in (branch, source)
    )
    if {p: w.shape for p, w in mine.items()} != {p: w.shape for p, w in theirs.items()}:
        raise ValueError(
            "the network to start from has another encoder than the one to train; start from "
            "another preset, or from none"
        )
    for path, weight in mine.items():
        weight.assign(theirs[path])


def copy_network(branch: keras.Model, source: Preset, whitening: Whitening) -> None:
    """Give a branch all of a preset's network; it tells the same parameters by its own whitening.

    Raises:
        ValueError: the two networks differ.
    """
    theirs = {weight.path: weight for weight in source.core.weights}
    if {w.path: w.shape for w in branch.weights} != {p: w.shape for p, w in theirs.items()}:
        raise ValueError(
            "the network to start from is another one than the one to train: its encoder, feature "
            "head and face model must be the same; or take the encoder alone (start_with 'encoder')"
        )
    for weight in branch.weights:
        weight.assign(theirs[weight.path])
    head, old = branch.get_layer("parameters"), source.space.whitening
    kernel, bias = (np.float64(weight) for weight in head.get_weights())
    told = bias * old.scale + old.mean
    head.set_weights([kernel * old.scale / whitening.scale, whitening.whiten(told)])


def solve_head(
    branch: keras.Model, images: np.ndarray, whitened: np.ndarray, ridge: float = 1e-2
) -> None:
    """Set the parameter head to the ridge regression of the labels on the encoder's features.

    Args:
        branch: from ``build_branch``.
        images: (M, S, S, 3) uint8 RGB, a few thousand.
        whitened: (M, P) their whitened parameters.
        ridge: penalty, as a share of the features' mean variance.
    """
    solve_dense(branch, branch.get_layer("parameters"), images, whitened, ridge)


def solve_dense(
    model: keras.Model,
    layer: keras.layers.Dense,
    images: np.ndarray,
    targets: np.ndarray,
    ridge: float = 1e-2,
    columns: slice = slice(None),
) -> None:
    """Set a linear layer of a model to the ridge regression of targets on the layer's input.

    Args:
        model: with one image input.
        layer: one of its layers.
        images, ridge: as ``solve_head``.
        targets: (M, C) for the C units in ``columns``.
        columns: units to set; the others stay as they are.
    """
    features = keras.Model(model.input, layer.input)
    x = features.predict(images, batch_size=BATCH, verbose=0).astype(np.float64)
    center, mean = x.mean(axis=0), targets.mean(axis=0, dtype=np.float64)
    gram = (x - center).T @ (x - center) / len(x)
    gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    solved = np.linalg.solve(gram, (x - center).T @ (targets - mean) / len(x))
    kernel, bias = (np.array(weight) for weight in layer.get_weights())
    kernel[:, columns], bias[columns] = solved, mean - center @ solved
    layer.set_weights([kernel, bias])

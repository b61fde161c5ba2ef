"""Comparison of two networks by their layers and weights, regardless of the weights' values."""

from __future__ import annotations

import json

import keras

IGNORED = ("name", "dtype", "trainable")  # keys of a layer's configuration


def check_same_network(network: keras.Model, expected: keras.Model, what: str) -> None:
    """Compare weights by path, shape and kind, and layers by their configuration.

    Args:
        network: any functional model.
        expected: the reference; its weights' values, precision and trainability do not matter.
        what: describes the expected network in the error.

    Raises:
        ValueError: a weight or a layer was added, removed or changed.
    """
    _check_weights(network, expected, what)
    for layer, known in zip(network.layers, expected.layers, strict=False):
        if (type(layer), _plain(layer)) != (type(known), _plain(known)):
            raise ValueError(
                f"layer '{layer.name}' differs from {what}, which stores weights, not layers"
            )
    if len(network.layers) != len(expected.layers):
        raise ValueError(
            f"the network has {len(network.layers)} layers, {what} has {len(expected.layers)}"
        )


def _check_weights(network: keras.Model, expected: keras.Model, what: str) -> None:
    ours, theirs = ({w.path: w for w in one.weights} for one in (network, expected))
    for path in theirs | ours:
        there, known = ours.get(path), theirs.get(path)
        if there is None or known is None or there.shape != known.shape:
            found = "is missing" if there is None else f"has the shape {there.shape}"
            wanted = "no such weight" if known is None else f"it with the shape {known.shape}"
            raise ValueError(
                f"weight {path} {found}; {what} has {wanted}. Merge or remove what was added to "
                "the network (LoRA, quantization, layers) first"
            )
        if not there.dtype.startswith(("float", "bfloat")):
            raise ValueError(f"weight {path} is {there.dtype}; {what} stores float weights")


def _plain(layer: keras.layers.Layer) -> str:
    """A layer's configuration without numbered names, precision and training mode."""

    def kept(value):
        if isinstance(value, dict):
            return {k: kept(v) for k, v in value.items() if k not in IGNORED}
        return [kept(v) for v in value] if isinstance(value, (list, tuple)) else value

    return json.dumps(kept(layer.get_config()), sort_keys=True, default=str)

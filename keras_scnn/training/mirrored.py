"""A network that several devices of one process train, on TensorFlow, as if they were one.

Each replica has the whole batch, changes it by the same random numbers, takes its own rows through
the branch, and gathers the rows of all: so its losses are those of the whole batch, all pairs
compared. The gradient of gathering sums over replicas, so the mean of the replicas' gradients,
which is clipped, is the whole batch's gradient, over the number of replicas by which Keras divides
each loss; the optimizer then adds them up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from keras_scnn.data.replicas import all_rows, own_rows
from keras_scnn.models.micro_batches import InParts


class _OwnRows(keras.layers.Layer):
    """A network that each replica calls on its own rows of a batch; all get the outputs of all.

    Args:
        network: from one array to one array or a dictionary of them, with an axis of samples.
    """

    def __init__(self, network: keras.layers.Layer, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})  # the network's layers cast
        self.network = network

    def call(self, images, training=None, mask=None):
        return all_rows(self.network(own_rows(images), training=training))

    def compute_output_shape(self, input_shape):
        return self.network.compute_output_shape(input_shape)


class Mirrored(keras.Model):
    """A functional model whose steps see the whole batch, of which each replica is given rows."""

    def train_step(self, data: Any) -> Any:
        return super().train_step(all_rows(data))

    def test_step(self, data: Any) -> Any:
        return super().test_step(all_rows(data))


def mirror(network: keras.Model) -> keras.Model:
    """The same network with its layer 'branch' divided among replicas, batch norm synchronized.

    Args:
        network: of ``build_siamese`` or ``build_group``; its layers become the other's.
    """
    for layer in _all_layers(network):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True

    branch = network.get_layer("branch")
    divided = _OwnRows(branch, name=branch.name)
    copy = keras.models.clone_model(
        network, clone_function=lambda layer: divided if layer is branch else layer
    )
    return Mirrored(copy.input, copy.output, name=network.name)


def _all_layers(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    yield layer
    for inner in [layer.network] if isinstance(layer, InParts) else getattr(layer, "layers", []):
        yield from _all_layers(inner)

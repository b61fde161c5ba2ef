"""Training on several devices of one process, on TensorFlow, as if on one device.

Each replica has the whole batch, augments it with the same random numbers, runs the branch on its
own rows, and gathers the outputs for all rows: its losses are those of the whole batch, with all
pairs compared. The gradient of gathering sums over replicas, and Keras divides each loss by the
number of replicas, so the mean of the replicas' gradients, which is what is clipped, is the whole
batch's gradient divided by that number; the optimizer then sums over replicas.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from keras_scnn.data.replicas import all_rows, own_rows
from keras_scnn.models.micro_batches import InParts


class _OwnRows(keras.layers.Layer):
    """Calls a network on each replica's own rows of a batch, and gathers the outputs for all rows.

    Args:
        network: from one array to one array or a dictionary of arrays, all batched.
    """

    def __init__(self, network: keras.layers.Layer, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})  # the network's layers cast
        self.network = network

    def call(self, images, training=None, mask=None):
        return all_rows(self.network(own_rows(images), training=training))

    def compute_output_shape(self, input_shape):
        return self.network.compute_output_shape(input_shape)


class Mirrored(keras.Model):
    """A functional model whose steps gather the whole batch from the rows given to each replica."""

    def train_step(self, data: Any) -> Any:
        return super().train_step(all_rows(data))

    def test_step(self, data: Any) -> Any:
        return super().test_step(all_rows(data))


def mirror(network: keras.Model) -> keras.Model:
    """The same network with its layer 'branch' divided among replicas, batch norm synchronized.

    Args:
        network: of ``build_siamese`` or ``build_group``; the result shares its layers.
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

"""A network that processes a batch in micro-batches, for batches that exceed a device's memory.

Gao, Zhang, Han and Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup", 2021 (GradCache), by rematerialization: the forward pass keeps only the outputs of each
part, the losses compare all pairs of the whole batch, and the backward pass recomputes each part.
Loss and gradients are thus those of the whole batch, in a little more than 4/3 of the time.
"""

from __future__ import annotations

import keras
from keras import ops, tree

from keras_scnn.settings import whole


@keras.saving.register_keras_serializable("keras_scnn")
class InParts(keras.layers.Layer):
    """Calls a network on equal micro-batches (parts) of a batch, one after the other, in training.

    Batch norm uses each part's own statistics, and updates its moving averages once per part. Part
    i has the rows i, i + parts, ..., so that each part of a sharded batch is sharded too.

    Args:
        network: with one input, and one array or a dictionary of arrays as output, all batched.
        parts: number of parts, 1 or more; the batch size must be a multiple of it.

    Raises:
        ValueError: parts is not a whole number of at least 1; or, in training, the size of a batch
            is known, and is not a multiple of it.
    """

    def __init__(self, network: keras.Model, parts: int, **kwargs):
        # Always float32: under a mixed policy this layer would cast the network's variables to
        # bfloat16, and those values would be assigned back. The network's layers cast themselves.
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.network, self.parts = network, whole("parts", parts)

    def call(self, images, training=None):
        if not training or self.parts == 1:
            return self.network(images, training=training)
        count = images.shape[0]
        if count is not None and count % self.parts:
            raise ValueError(f"a batch of {count} rows cannot be divided into {self.parts} parts")
        variables = self.network.trainable_variables, self.network.non_trainable_variables
        weights, state = ([ops.convert_to_tensor(v) for v in some] for some in variables)
        one_part = keras.remat(self._one_part)
        rows = ops.reshape(images, (-1, self.parts, *images.shape[1:]))

        def step(state, part):
            output, state = one_part(weights, state, part)
            return state, output

        state, outputs = _scan(step, state, ops.swapaxes(rows, 0, 1))
        for variable, value in zip(variables[1], state, strict=True):
            variable.assign(value)
        return tree.map_structure(_in_order, outputs)

    def _one_part(self, weights, state, images):
        return self.network.stateless_call(weights, state, images, training=True)

    def compute_output_shape(self, input_shape):
        return self.network.compute_output_shape(input_shape)

    def get_config(self):
        network = keras.saving.serialize_keras_object(self.network)
        return {**super().get_config(), "network": network, "parts": self.parts}

    @classmethod
    def from_config(cls, config):
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**{**config, "network": network})


def _scan(step, state, parts):
    """``ops.scan`` on JAX, where XLA would run unrolled steps at once, in the memory of all.

    Elsewhere the loop is unrolled: on TensorFlow ``ops.scan`` returns no outputs but the state.
    """
    if keras.backend.backend() == "jax":
        return ops.scan(step, state, parts)
    outputs = []
    for i in range(parts.shape[0]):
        state, output = step(state, parts[i])
        outputs.append(output)
    return state, tree.map_structure(lambda *rows: ops.stack(rows), *outputs)


def _in_order(parts):
    """(parts, B / parts, ...) to (B, ...), where part i has the rows i, i + parts, ..."""
    return ops.reshape(ops.swapaxes(parts, 0, 1), (-1, *parts.shape[2:]))

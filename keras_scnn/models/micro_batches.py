"""A network that goes through a batch in parts, for batches that do not fit a device's memory.

Gao, Zhang, Han and Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup", 2021 (GradCache), by means of rematerialization: the first pass keeps a part's outputs
alone, the losses compare all pairs of the whole batch, and the gradient's pass computes each part
anew. So loss and gradients are those of the whole batch, for somewhat more than 4/3 of the time.
"""

from __future__ import annotations

import keras
from keras import ops, tree

from keras_scnn.settings import whole


@keras.saving.register_keras_serializable("keras_scnn")
class InParts(keras.layers.Layer):
    """Calls a network on each of some equal parts of a batch, one after the other, in training.

    Batch norm takes each part's own statistics, and moves its averages once for each part. Part i
    has the rows i, i + parts, ...: of a batch that lies on several devices each part does too.

    Args:
        network: of one input and one array or a dictionary of outputs, with an axis of samples.
        parts: 1 or more; the batch's size must be a multiple of it.

    Raises:
        ValueError: parts is no whole number, or below 1.
    """

    def __init__(self, network: keras.Model, parts: int, **kwargs):
        # Without a type of its own to cast to: it hands on all variables, and what is cast here
        # (bfloat16 under a mixed policy) would be assigned to them. The network's layers cast.
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.network, self.parts = network, whole("parts", parts)

    def call(self, images, training=None):
        if not training or self.parts == 1:
            return self.network(images, training=training)
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
    """``ops.scan``; in JAX a loop, for XLA would run unrolled steps at once, in the memory of all.

    In TensorFlow the steps in a row: its ``ops.scan`` has no outputs but the state.
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

"""The optimizers of a run, and the running mean of the weights."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_scnn.data.replicas import mean_over_replicas, replica_count
from keras_scnn.models.identity_encoder import PREFIX
from keras_scnn.training.config import TrainConfig

CLIP = 10.0  # largest norm of the gradients
STATISTICS_STEPS = 50  # batches; with a momentum of 0.9 the last ten or so count


class _OfAllReplicas(keras.optimizers.Optimizer):
    """Averages the gradients over the replicas first.

    Keras adds them up only after it has clipped each, and checked one for values not finite.
    """

    def apply(self, grads, trainable_variables=None):
        super().apply(mean_over_replicas(grads), trainable_variables)


class _WarmedAverage(_OfAllReplicas):
    """A running mean of the weights whose momentum grows: ``min(momentum, (1 + n) / (10 + n))``.

    So that the mean of a short run does not stay near the initial weights (n: steps so far; the
    rule of TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``).
    """

    def _update_model_variables_moving_average(self, trainable_variables):
        if not self.use_ema:
            return
        steps = ops.cast(self.iterations, "float32")
        momentum = ops.minimum(self.ema_momentum, (1 + steps) / (10 + steps))
        momentum = ops.where(steps > 0, momentum, 0.0)
        averages = self._model_variables_moving_average
        for variable, average in zip(trainable_variables, averages, strict=True):
            if average is not None:
                average.assign(momentum * average + (1 - momentum) * variable)


@keras.saving.register_keras_serializable("keras_scnn")
class Adam(_WarmedAverage, keras.optimizers.Adam):
    """Keras's Adam, with ``_WarmedAverage``."""


@keras.saving.register_keras_serializable("keras_scnn")
class SGD(_WarmedAverage, keras.optimizers.SGD):
    """Keras's SGD, with ``_WarmedAverage``."""


@keras.saving.register_keras_serializable("keras_scnn")
class KernelAdamW(Adam):
    """Adam with decoupled weight decay of kernels only, and a separate rate for one encoder.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019; biases and normalization
    are not decayed.

    Args:
        learning_rate: of all but the identity encoder.
        kernel_decay: of weights with more than one axis, per step, times the learning rate.
        identity_rate: learning rate of the identity encoder, relative to ``learning_rate``.
        options: of ``keras.optimizers.Adam``.
    """

    def __init__(self, learning_rate, kernel_decay: float, identity_rate: float = 1.0, **options):
        super().__init__(learning_rate, **options)
        self._kernel_decay, self._identity_rate = kernel_decay, identity_rate
        self._shares: tuple[float, ...] = ()

    def get_config(self) -> dict:
        own = {"kernel_decay": self._kernel_decay, "identity_rate": self._identity_rate}
        return super().get_config() | own

    def build(self, variables):
        super().build(variables)
        is_identity = [variable.path.startswith(PREFIX) for variable in variables]
        self._shares = tuple(self._identity_rate if own else 1.0 for own in is_identity)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        share = self._shares[self._get_variable_index(variable)]
        rate = share * ops.cast(learning_rate, variable.dtype)
        if len(variable.shape) > 1:
            self.assign_sub(variable, rate * self._kernel_decay * variable)
        super().update_step(gradient, variable, rate)


@keras.saving.register_keras_serializable("keras_scnn")
class LossScaleOptimizer(_OfAllReplicas, keras.optimizers.LossScaleOptimizer):
    """Keras's, which ``compile`` adds for mixed_float16, with ``_OfAllReplicas``.

    It is built once, like other optimizers: Keras's would create its variables again, so that a
    resumed run would begin with the initial scale, and save more variables than it loads.
    """

    def build(self, variables):
        if not self.built:
            super().build(variables)


def make_optimizer(config: TrainConfig) -> keras.optimizers.Optimizer:
    """The optimizer that the settings ask for; its learning rate is set at each training step."""
    # Keras divides each replica's loss by their number and adds the gradients up after clipping:
    # what is clipped, the mean over replicas, is the whole batch's gradient divided by it.
    options = {"global_clipnorm": CLIP / replica_count()}
    if config.weight_average:
        options |= {"use_ema": True, "ema_momentum": config.weight_average}
    optimizer: keras.optimizers.Optimizer = Adam(config.learning_rate, **options)
    if config.optimizer == "sgd":
        optimizer = SGD(config.learning_rate, 0.9, nesterov=True, **options)
    elif config.optimizer == "adamw":
        decay = config.weight_decay, config.identity_rate
        optimizer = KernelAdamW(config.learning_rate, *decay, epsilon=1e-8, **options)
    return LossScaleOptimizer(optimizer) if config.precision == "mixed_float16" else optimizer


def finish(network: keras.Model, stream: Any) -> None:
    """Set a network to the running mean of its weights, with batch norm statistics that match.

    After training the moving statistics are those of the last weights, not of their mean; they are
    estimated again by passes over training batches (Izmailov et al., "Averaging Weights Leads to
    Wider Optima and Better Generalization", 2018, section 3.2).

    Args:
        network: compiled with an optimizer that keeps a running mean, at the end of training.
        stream: endless, of training batches ``(inputs, targets)``.
    """
    network.optimizer.finalize_variable_values(network.trainable_variables)
    InTrainingMode(network).predict(stream, steps=STATISTICS_STEPS, verbose=0)


class InTrainingMode(keras.Model):
    """Runs a network in training mode, in which batch norm updates its moving statistics."""

    def __init__(self, network: keras.Model):
        super().__init__()
        self.network = network

    def call(self, inputs):
        return self.network(inputs, training=True)

"""Losses as layers, for a network whose labels are also inputs.

Such a network trains with ``compile(optimizer)`` and ``fit(stream)`` alone::

    network = add_loss_layers(
        build_siamese(build_encoder("mobilenet_0.5"), space),
        {"parameter_distance": ContrastiveLoss(margin=1.0), "feature_similarity": IdentityLoss()},
    )
    network.compile("adam")
    network.fit(pair_dataset(records, space.whitening, sampler, input_names=network.input), ...)

Loss and gradients equal those of the same losses passed to ``compile`` by output name.
"""

from __future__ import annotations

import keras
from keras import ops

from keras_scnn.losses.batches import mean_of_rows
from keras_scnn.losses.contrastive import ContrastiveLoss
from keras_scnn.losses.identity import IdentityLoss
from keras_scnn.settings import check_at_least, wrong_type

PAIR_OUTPUTS = ("parameter_distance", "feature_similarity")  # their label is "same"


@keras.saving.register_keras_serializable("keras_scnn")
class LossLayer(keras.layers.Layer):
    """Adds a loss to the network that contains it, and returns the output unchanged.

    Its result must become an output of the network: Keras drops a layer that leads to no output,
    and its loss. The loss is a mean over the batch; under a distribution strategy over the global
    batch, since Keras divides added losses by the number of replicas.

    Args:
        loss: any ``keras.losses.Loss`` that is a mean, e.g. ``LandmarkDistance()``.
        weight: of the loss in the network's total, 0 or more.

    Raises:
        ValueError: the weight is negative, or not finite, or the loss has another type or is a sum
            over the batch.
    """

    def __init__(self, loss: keras.losses.Loss, weight: float = 1.0, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_at_least("weight", weight)
        _check_loss("loss", loss)
        if loss.reduction == "sum":
            raise ValueError(f"loss '{loss.name}' has reduction 'sum'; a loss layer adds a mean")
        self.loss, self.weight = loss, weight

    def call(self, output, label):
        # Not self.loss(...): Keras would divide by the number of replicas twice.
        self.add_loss(self.weight * _mean(self.loss.call(label, output)))
        return output

    def compute_output_shape(self, output_shape, label_shape):
        return output_shape

    def get_config(self):
        loss = keras.saving.serialize_keras_object(self.loss)
        return {**super().get_config(), "loss": loss, "weight": self.weight}

    @classmethod
    def from_config(cls, config):
        loss = keras.saving.deserialize_keras_object(config["loss"])
        return cls(**{**config, "loss": loss})


def _mean(values):
    """The mean over all values of a loss; 0 for an empty batch."""
    return mean_of_rows(ops.reshape(values, (-1,)))


def _check_loss(name: str, loss: object) -> None:
    if not isinstance(loss, keras.losses.Loss):
        raise wrong_type(name, loss, "a keras.losses.Loss, such as LandmarkDistance()")


class _FixedLossLayer(LossLayer):
    """A ``LossLayer`` whose configuration stores its loss's settings instead of the loss."""

    def get_config(self):
        config = super().get_config()
        del config["loss"]
        settings = self.loss.get_config()
        del settings["name"]
        return {**config, **settings}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable("keras_scnn")
class ContrastiveLossLayer(_FixedLossLayer):
    """``LossLayer`` of a ``ContrastiveLoss``: adds the loss of ``(distance, same)``.

    Args:
        margin, margin_quantile, margin_factor: as for ``ContrastiveLoss``.
        weight: of the loss in the network's total.
        **kwargs: options of a Keras layer, such as ``name``.

    Raises:
        ValueError: as ``ContrastiveLoss``.

    >>> distance, same = keras.Input((), name="distance"), keras.Input((), name="same")
    >>> output = ContrastiveLossLayer(margin=1.0)(distance, same)
    >>> network = keras.Model({"distance": distance, "same": same}, {"distance": output})
    >>> network.compile()
    >>> batch = {"distance": ops.array([2.0, 0.5]), "same": ops.array([1.0, 0.0])}
    >>> network.evaluate(batch, verbose=0)
    1.0625
    """

    def __init__(
        self, margin=None, margin_quantile=None, margin_factor=1.0, weight: float = 1.0, **kwargs
    ):
        super().__init__(ContrastiveLoss(margin, margin_quantile, margin_factor), weight, **kwargs)


@keras.saving.register_keras_serializable("keras_scnn")
class IdentityLossLayer(_FixedLossLayer):
    """``LossLayer`` of an ``IdentityLoss``: adds the loss of ``(similarity, same)``.

    Args:
        margin: as for ``IdentityLoss``, -1 to 1.
        weight: of the loss in the network's total.

    Raises:
        ValueError: as ``IdentityLoss``.
    """

    def __init__(self, margin: float = 0.2, weight: float = 1.0, **kwargs):
        super().__init__(IdentityLoss(margin), weight, **kwargs)


def add_loss_layers(
    network: keras.Model,
    losses: dict[str, keras.losses.Loss],
    weights: dict[str, float] | None = None,
    labels: dict[str, keras.KerasTensor] | None = None,
) -> keras.Model:
    """Add losses to a network's outputs as layers, with the labels as inputs.

    Args:
        network: functional, with dictionaries of inputs and outputs, as from ``build_siamese``.
        losses: the loss of each output, by the output's name.
        weights: of the losses, by the output's name; 1 by default.
        labels: inputs for labels, by the output's name, where a label's shape is not the output's.
            By default the outputs ``parameter_distance`` and ``feature_similarity`` share one input
            ``same`` (B,), and any other output gets an input ``<output>_label`` of its own shape.
            For landmarks (B, 68, 3) these are x, y and a weight, as from ``pair_dataset``; labels
            of x, y and depth need ``LandmarkDistance(columns="xyd")``.

    Returns:
        A model with the same outputs and layers, to be trained with ``compile(optimizer)`` and
        ``fit`` on ``pair_dataset(..., input_names=network.input)``. It shares the given network's
        weights; ``network`` itself can still be used without labels.

    Raises:
        ValueError: the network's inputs and outputs are not dictionaries; ``losses`` is not a
            dictionary of losses; a loss is a sum over the batch, or is for an output that the
            network lacks or that already has a loss layer; a weight or label is for an output
            without a loss; or a weight is negative or not finite.
    """
    weights, labels = weights or {}, labels or {}
    if not isinstance(network.input, dict) or not isinstance(network.output, dict):
        raise ValueError(
            f"network '{network.name}' has no dictionaries of inputs and outputs, such as those of "
            "build_siamese; for another network pass the losses to compile"
        )
    if not isinstance(losses, dict):
        raise wrong_type("losses", losses, "a dictionary of losses by the names of their outputs")
    _check_names(network, losses, {"weights": weights, "labels": labels})
    for name, loss in losses.items():
        _check_loss(f"losses['{name}']", loss)
    inputs, outputs = dict(network.input), dict(network.output)
    labels = _label_inputs(inputs, outputs, losses) | labels
    for name, loss in losses.items():
        layer = LossLayer(loss, weights.get(name, 1.0), name=f"{name}_loss")
        outputs[name] = layer(outputs[name], labels[name])
        inputs[labels[name].name] = labels[name]
    return keras.Model(inputs, outputs, name=f"{network.name}_with_losses")


def _check_names(network: keras.Model, losses: dict, options: dict[str, dict]) -> None:
    there = {layer.name for layer in network.layers}
    for name in (*losses, *(name for given in options.values() for name in given)):
        if name not in network.output:
            known = ", ".join(network.output)
            raise ValueError(f"unknown output '{name}'; those of the network are {known}")
        if f"{name}_loss" in there:
            raise ValueError(f"output '{name}' already has a loss layer; it can have only one")
    for what, given in options.items():
        if without := sorted(given.keys() - losses.keys()):
            known = ", ".join(losses)
            raise ValueError(f"{what}: '{without[0]}' has no loss; outputs with one are {known}")


def _label_inputs(inputs: dict, outputs: dict, names) -> dict[str, keras.KerasTensor]:
    same = inputs.get("same", keras.Input((), name="same"))  # from loss layers added before
    return {
        name: same
        if name in PAIR_OUTPUTS
        else keras.Input(outputs[name].shape[1:], name=f"{name}_label")
        for name in names
    }

"""The network that ``distill`` trains: losses, optimizer, the running mean of its weights."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from device_supply import Supply
from keras_scnn.data.labels.recognizer import EMBEDDING_SIZE
from keras_scnn.losses import (
    EmbeddingDistance,
    GroupContrastiveLoss,
    LandmarkDistance,
    ParameterLoss,
    RelationalLoss,
    SupervisedContrastiveLoss,
)
from keras_scnn.models import Preset, build_branch, build_encoder, build_group
from keras_scnn.models.encoders import PREFIX
from keras_scnn.training.warm_start import copy_network
from pack_photos import CROP

GROUP_SHARE = 0.55  # of the parameter loss; the photos in groups are fewer than the single ones
CLIP, DECAY = 10.0, 1e-2  # of the gradient's norm; of kernels, per step and unit of the rate


class Network:
    """A group network in training.

    Args:
        supply: what it learns from.
        start: preset of the same kind of network.
        identity_rate: learning rate of the identity encoder, as a share of the others'.
        without: names of losses to leave out.

    Attributes:
        state: weights, other variables, moments of the optimizer, and means of the first two.
    """

    def __init__(self, supply: Supply, start: Preset, identity_rate: float, without: list[str]):
        self._supply, self._start = supply, start
        encoder = build_encoder(start.encoder, CROP)
        sizes = start.feature_size, start.feature_channels, start.has_identity_encoder
        branch = build_branch(encoder, supply.layout, *sizes)
        copy_network(branch, start, supply.space.whitening)
        self.model = build_group(branch, supply.space, EMBEDDING_SIZE)
        variables = self.model.trainable_variables
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(CLIP),
            optax.scale_by_adam(),
            optax.add_decayed_weights(DECAY, mask=[len(v.shape) > 1 for v in variables]),
        )
        self._rates = [identity_rate if v.path.startswith(PREFIX) else 1.0 for v in variables]
        losses = robust_losses(supply)
        self._losses = {name: loss for name, loss in losses.items() if name not in without}
        weights = [v.value for v in variables]
        others = [v.value for v in self.model.non_trainable_variables]
        means = jax.tree.map(jnp.array, (weights, others))  # the state is given away step by step
        self.state = weights, others, self._optimizer.init(weights), means

    def step(self, state, images, targets, rate, keep):
        """One step: the new state, and the losses by name.

        Args:
            state: see above.
            images, targets: of ``Supply.batch``.
            rate: of learning.
            keep: momentum of the means.
        """
        weights, others, moments, means = state
        slopes, (parts, others) = jax.grad(self._loss, has_aux=True)(
            weights, others, images, targets
        )
        updates, moments = self._optimizer.update(slopes, moments, weights)
        weights = [
            w - rate * share * u for w, u, share in zip(weights, updates, self._rates, strict=True)
        ]
        means = jax.tree.map(
            lambda mean, now: keep * mean + (1 - keep) * now, means, (weights, others)
        )
        return (weights, others, moments, means), parts

    def _loss(self, weights, others, images, targets):
        told, others = self.model.stateless_call(weights, others, images, training=True)
        count, parts = self._supply.plan.grouped, {}
        for name, (loss, weight, label) in self._losses.items():
            kinds = [(1.0, slice(None))]
            if name == "parameters":
                kinds = [(GROUP_SHARE, slice(count)), (1 - GROUP_SHARE, slice(count, None))]
            parts[name] = weight * sum(
                share * loss.call(targets[label][rows], told[name][rows]) for share, rows in kinds
            )
        return sum(parts.values()), (parts, others)

    def averaged(self, metadata: dict) -> Preset:
        """The preset with the running mean of the weights."""
        parts = self.model.trainable_variables, self.model.non_trainable_variables
        for variables, means in zip(parts, jax.device_get(self.state[3]), strict=True):
            for variable, value in zip(variables, means, strict=True):
                variable.assign(value)
        return dataclasses.replace(
            self._start,
            branch=self.model.get_layer("branch"),
            space=self._supply.space,
            metadata=metadata,
            within_person_covariance=None,
        )


def robust_losses(supply: Supply) -> dict:
    """Loss, weight and label of each output, as the recipe ``robust`` has them."""
    parameters = ParameterLoss(supply.space, 0.02, 0.36)
    return {
        "parameters": (parameters, 1.0, "parameters"),
        "landmarks": (LandmarkDistance(10.0, 1.0), 1.0, "landmarks"),
        "shape": (GroupContrastiveLoss(margin_quantile=0.7), 0.06, "person"),
        "features": (SupervisedContrastiveLoss(), 0.06, "person"),
        "embedding": (EmbeddingDistance(), 1.2, "embedding"),
        "feature_likeness": (RelationalLoss(), 0.6, "embedding"),
    }

"""Losses: pure functions of ``keras.ops``, thin ``keras.losses.Loss`` classes, and layers."""

from keras_scnn.losses.contrastive import (
    ContrastiveLoss,
    ExponentialContrastiveLoss,
    contrastive_loss,
    exponential_contrastive_loss,
)
from keras_scnn.losses.groups import (
    EmbeddingDistance,
    GroupContrastiveLoss,
    NeighborhoodLoss,
    RelationalLoss,
    SupervisedContrastiveLoss,
    embedding_distance,
    group_contrastive_loss,
    neighborhood_loss,
    relational_loss,
    supervised_contrastive_loss,
)
from keras_scnn.losses.identity import IdentityLoss, identity_loss
from keras_scnn.losses.layers import (
    ContrastiveLossLayer,
    IdentityLossLayer,
    LossLayer,
    add_loss_layers,
)
from keras_scnn.losses.regression import (
    WPDC,
    LandmarkDistance,
    ParameterLoss,
    VertexDistance,
    landmark_distance,
    vertex_distance,
    wpdc,
)

__all__ = [
    "WPDC",
    "ContrastiveLoss",
    "ContrastiveLossLayer",
    "EmbeddingDistance",
    "ExponentialContrastiveLoss",
    "GroupContrastiveLoss",
    "IdentityLoss",
    "IdentityLossLayer",
    "LandmarkDistance",
    "LossLayer",
    "NeighborhoodLoss",
    "ParameterLoss",
    "RelationalLoss",
    "SupervisedContrastiveLoss",
    "VertexDistance",
    "add_loss_layers",
    "contrastive_loss",
    "embedding_distance",
    "exponential_contrastive_loss",
    "group_contrastive_loss",
    "identity_loss",
    "landmark_distance",
    "neighborhood_loss",
    "relational_loss",
    "supervised_contrastive_loss",
    "vertex_distance",
    "wpdc",
]

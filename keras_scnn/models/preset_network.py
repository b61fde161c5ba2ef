"""A preset in memory: its network, the meaning of its outputs, and the settings that describe it.

Keras is imported only when a network is built or read.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_scnn.models.backend import start_keras
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import ParameterLayout, ParameterSpace

if TYPE_CHECKING:
    import keras

CHANNELS = ("feature_channels", "expression_channels", "gaze_channels")
HEADS = (*CHANNELS, "identity_encoder", "joint_head", "recognizers")
"""Settings that are arguments of ``build_branch`` and that older presets may lack."""


class _WithSpace:
    """Properties derived from a preset's parameter space."""

    space: ParameterSpace

    @property
    def face_model(self) -> MorphableModel:
        """The face model of the parameter space."""
        return self.space.face_model

    @property
    def layout(self) -> ParameterLayout:
        """Positions of pose, identity and expression in the branch's parameters."""
        return self.space.layout


@dataclass(frozen=True, eq=False)
class PresetData(_WithSpace):
    """A preset without its network, to interpret the outputs of LiteRT or a server.

    Attributes:
        space, encoder, metadata, within_person_covariance: as in ``Preset``.
        input_size: width and height of the crop, px.
        feature_size: length of the identity feature; 0 where the network has no feature head.
    """

    space: ParameterSpace
    encoder: str
    input_size: int
    feature_size: int
    metadata: dict = field(default_factory=dict)
    within_person_covariance: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Preset(_WithSpace):
    """A trained single-image network and the meaning of its outputs.

    Attributes:
        branch: from ``build_branch``, or from ``build_flip_averaged`` around one.
        space: of the branch's parameters; its face model has the landmark offsets from training.
        encoder: name of the encoder.
        within_person_covariance: (K, K) float32, mm², of this network's neutral shapes
            (``shape_distance.within_person_covariance``); None if it was not measured.
        metadata: values that fit JSON: data, seed, results, license.
    """

    branch: keras.Model
    space: ParameterSpace
    encoder: str
    metadata: dict = field(default_factory=dict)
    within_person_covariance: np.ndarray | None = None

    @property
    def core(self) -> keras.Model:
        """The trained network: the branch, or the one within a flip-averaged branch."""
        inner = [layer for layer in self.branch.layers if layer.name == "branch"]
        return inner[0] if inner else self.branch

    @property
    def is_flip_averaged(self) -> bool:
        """Whether outputs are averaged over the crop and its mirror image at test time."""
        return self.core is not self.branch

    @property
    def input_size(self) -> int:
        """Width and height of the crop, px."""
        return self.branch.input_shape[1]

    @property
    def feature_size(self) -> int:
        """Length of the identity feature; 0 where the network has no feature head."""
        features = self.branch.output.get("features")
        return 0 if features is None else features.shape[-1]

    @property
    def feature_channels(self) -> int:
        """Channels of a global depthwise convolution (GDC) head; 0 where the head is linear."""
        from keras_scnn.models.heads import GDC

        return self._channels(GDC)

    @property
    def expression_channels(self) -> int:
        """Channels of the head that adds to the expression; 0 where there is none."""
        from keras_scnn.models.heads import FINE

        return self._channels(FINE)

    @property
    def gaze_channels(self) -> int:
        """Channels of the head that adds to the gaze; 0 where there is none."""
        from keras_scnn.models.heads import GAZE

        return self._channels(GAZE)

    def _channels(self, head: str) -> int:
        layers = [layer for layer in self.core.layers if layer.name == f"{head}mix"]
        return layers[0].filters if layers else 0

    @property
    def has_joint_head(self) -> bool:
        """Whether the parameters are linear in the output of the GDC head too."""
        return any(layer.name == "both_heads" for layer in self.core.layers)

    @property
    def recognizers(self) -> str:
        """Names of the recognizers that predict identity, joined by '+'; '' for none."""
        from keras_scnn.models.recognizers.layers import recognizer_layers

        return "+".join(recognizer_layers(self.core))

    @property
    def has_identity_encoder(self) -> bool:
        """Whether a second encoder predicts identity; see ``models.identity_encoder``."""
        from keras_scnn.models.identity_encoder import PREFIX

        return any(layer.name == f"{PREFIX}stem" for layer in self.core.layers)


def network_settings(preset: Preset) -> dict:
    """The part of a preset's settings that describes its network, but for its recognizers."""
    return {
        "encoder": preset.encoder,
        "input_size": preset.input_size,
        "feature_size": preset.feature_size,
        **{name: getattr(preset, name) for name in CHANNELS},
        "identity_encoder": preset.has_identity_encoder,
        "joint_head": preset.has_joint_head,
    }


def build_network(settings: dict, layout: ParameterLayout) -> keras.Model:
    """The network that settings describe, with random weights and without flip averaging.

    Args:
        settings: as of ``network_settings``, with ``recognizers`` if there are any.
        layout: of its parameters.

    Raises:
        ValueError: as ``build_encoder`` and ``build_branch``.
    """
    start_keras()
    from keras_scnn.models.encoders import build_encoder
    from keras_scnn.models.heads import build_branch

    encoder = build_encoder(settings["encoder"], settings["input_size"])
    options = {name: settings[name] for name in HEADS if name in settings}
    return build_branch(encoder, layout, settings["feature_size"], **options)


def with_settings(
    preset: Preset, new: tuple[str, ...] = (), **changes: Any
) -> tuple[Preset, list[keras.Variable]]:
    """A preset whose network has other settings, with the given preset's weights where they fit.

    A weight is copied if the given network has one of the same path and shape. Flip averaging is
    kept.

    Args:
        preset: is not changed.
        new: beginnings of the paths of weights that are not copied even if they fit.
        changes: settings that differ, such as ``feature_size`` or ``gaze_channels``.

    Returns:
        the preset, and the weights of its network that were not copied and have initial values.

    Raises:
        ValueError: as ``build_branch``.
    """
    settings = network_settings(preset) | {"recognizers": preset.recognizers} | changes
    branch, left = build_network(settings, preset.layout), []
    known = {weight.path: weight for weight in preset.core.weights}
    for weight in branch.weights:
        old = known.get(weight.path)
        if old is None or old.shape != weight.shape or weight.path.startswith(new):
            left.append(weight)
        else:
            weight.assign(old)
    if preset.is_flip_averaged:
        from keras_scnn.models.flip_averaging import build_flip_averaged

        branch = build_flip_averaged(branch, preset.space)
    return replace(preset, branch=branch), left

"""The table of encoders; importable without Keras, for the settings and their help texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

MAX_INPUT_SIZE = 1024
"""Width and height of the largest crops that a preset takes, px."""
# Mean of ImageNet in BGR order, which ResNet50's published weights expect to be subtracted.
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)


def check_input_size(size: int) -> None:
    """Raise a ValueError if crops of ``size`` px are too large for a preset."""
    if size > MAX_INPUT_SIZE:
        raise ValueError(f"crops of {size} px; a network takes {MAX_INPUT_SIZE} px at most")


def to_unit(image):
    """RGB, -1 to 1."""
    import keras

    return keras.layers.Rescaling(1 / 127.5, offset=-1, name="to_unit")(image)


def to_caffe(image):
    """BGR, 0 to 255, minus ImageNet's mean."""
    import keras

    centered = [-value for value in IMAGENET_MEAN_BGR]
    flipped = keras.ops.flip(image, axis=-1)
    return keras.layers.Rescaling(1.0, offset=centered, name="to_caffe")(flipped)


def _to_dlib(image):
    """RGB minus dlib's mean color, about -0.5 to 0.5."""
    from keras_scnn.models.identity_encoder import to_dlib  # it imports Keras

    return to_dlib(image)


def _dlib_mobilenet(**arguments) -> keras.Model:
    from keras_scnn.models.dlib_stem import dlib_mobilenet

    return dlib_mobilenet(**arguments)


@dataclass(frozen=True)
class Encoder:
    """How to build an encoder.

    Attributes:
        build: the name of a function of ``keras.applications``, or a function with the same
            arguments; the network's last layer pools a feature map.
        options: further arguments of ``build``.
        preprocess: from RGB, 0 to 255, to the values that the published weights expect.
        weights: names of the published weights that it can be initialized with.
    """

    build: str | Callable[..., keras.Model]
    options: dict = field(default_factory=dict)
    preprocess: Callable = to_unit
    weights: tuple[str, ...] = ("imagenet",)

    def __call__(self, **arguments) -> keras.Model:
        """Build the network, with the arguments of ``keras.applications``."""
        import keras

        build = self.build
        if isinstance(build, str):
            build = getattr(keras.applications, build)
        return build(**arguments, **self.options)

    def check_weights(self, weights: str | None, name: str) -> None:
        """Raise a ValueError if this encoder, called ``name``, has no such published weights."""
        if weights and weights not in self.weights:
            known = " or ".join(f"'{one}'" for one in self.weights)
            raise ValueError(f"encoder '{name}' has no weights '{weights}'; it has {known}")


ENCODERS = {
    "mobilenet_0.5": Encoder("MobileNet", {"alpha": 0.5}),
    "mobilenet_1.0": Encoder("MobileNet", {"alpha": 1.0}),
    "mobilenet_v2": Encoder("MobileNetV2"),
    "mobilenet_v3_small": Encoder("MobileNetV3Small", {"include_preprocessing": False}),
    "mobilenet_v3_large": Encoder("MobileNetV3Large", {"include_preprocessing": False}),
    "resnet50": Encoder("ResNet50", preprocess=to_caffe),
    "resnet50_v2": Encoder("ResNet50V2"),
    "dlib_mobilenet": Encoder(_dlib_mobilenet, preprocess=_to_dlib, weights=("dlib",)),
}

"""A server's interface to a network, independent of its runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from keras_scnn import __version__
from keras_scnn.models.crops import check_crops
from keras_scnn.models.inference import Network, decoded_outputs, keras_network, open_network
from keras_scnn.models.litert import LiteNetwork
from keras_scnn.models.preset_network import Preset, PresetData
from keras_scnn.models.presets import preset_digest
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.photos.detection import FaceDetector
from keras_scnn.reconstruction.faces import Faces
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.serving.shared_batches import SharedBatches

Outputs = dict[str, np.ndarray]
MAX_FACES = 256  # of one request
WARM_UP = (1, 2, 4)  # batch sizes; the third makes TensorFlow compile for any


class Predictor(Protocol):
    """From crops and photos to named arrays; may be called from several threads at once.

    Outputs have one row per face, float32: ``parameters`` (M, 12 + K + L), ``rotation`` (M, 3, 3),
    ``euler_degrees`` (M, 3), ``scale`` (M,) px per mm, ``translation`` (M, 3) px, ``landmarks``
    (M, 68, 3) px and depth; ``features`` (M, F) and ``vertices`` (M, N, 3) mm, if there are any.

    Attributes:
        input_size: side of a crop, px.
        shapes: by output, the shape of one row.
    """

    input_size: int
    shapes: dict[str, tuple[int, ...]]

    def crops(self, crops: np.ndarray) -> Outputs:
        """Outputs for (M, S, S, 3) uint8 RGB crops, M above 0, in px of the crop."""

    def boxes(self, images: Sequence[np.ndarray], boxes: Sequence[FaceBox]) -> Outputs:
        """Outputs for M unrefined boxes, one per photo, M above 0, in px of the photo."""

    def faces(self, image: np.ndarray) -> tuple[Outputs, tuple[FaceBox, ...]] | None:
        """Outputs and boxes, px of the photo, highest score first; None: no face.

        Raises:
            ValueError: more than ``MAX_FACES`` faces.
        """


def model_version(name_or_path: str | os.PathLike) -> str:
    """The package's version and twelve digits of the preset's digest; errors as ``load_preset``."""
    return f"{__version__}+{preset_digest(name_or_path)[:12]}"


class PresetPredictor:
    """A ``Predictor`` with a preset.

    Args:
        preset: the trained network, or its data if ``network`` is given.
        vertices: whether outputs include all vertices.
        network: runs the preset's branch, from several threads at once; None runs it in Keras,
            where simultaneous requests share batches.
        on_batch: called with the number of crops of each run of the network.
    """

    def __init__(
        self,
        preset: Preset | PresetData,
        vertices: bool = False,
        network: LiteNetwork | None = None,
        on_batch: Callable[[int], object] | None = None,
    ):
        self.input_size, self._vertices = preset.input_size, vertices
        black = np.zeros((max(WARM_UP), preset.input_size, preset.input_size, 3), np.uint8)
        self._batches: SharedBatches | None = None
        self._is_open = True
        runner: Network = network or keras_network(preset)
        for count in () if network else WARM_UP:
            runner(black[:count])
        self._on_batch: Callable[[int], object] | None = None
        runner = self._counted(runner)
        if network is None:
            runner = self._batches = SharedBatches(runner)
        self._reconstructor = Reconstructor(preset, FaceDetector(), runner)
        self.shapes = {key: value.shape[1:] for key, value in self.crops(black[:1]).items()}
        self._on_batch = on_batch

    @classmethod
    def from_preset(
        cls,
        name_or_path: str | os.PathLike,
        vertices: bool = False,
        on_batch: Callable[[int], object] | None = None,
    ) -> PresetPredictor:
        """Load a preset that comes with the package, or a preset or run folder."""
        preset, network = open_network(name_or_path)
        lite = network if isinstance(network, LiteNetwork) else None
        return cls(preset, vertices, lite, on_batch)

    def crops(self, crops: np.ndarray) -> Outputs:
        """See ``Predictor``."""
        size = self.input_size
        check_crops(crops, size)
        return self.boxes(list(crops), [FaceBox(0, 0, size, size)] * len(crops))

    def boxes(self, images: Sequence[np.ndarray], boxes: Sequence[FaceBox]) -> Outputs:
        """See ``Predictor``."""
        self._check_open()
        return self._outputs(self._reconstructor.reconstruct_many(images, boxes, passes=1))

    def faces(self, image: np.ndarray) -> tuple[Outputs, tuple[FaceBox, ...]] | None:
        """See ``Predictor``."""
        self._check_open()
        boxes = self._reconstructor.detect(image)
        if len(boxes) > MAX_FACES:
            raise ValueError(f"{len(boxes)} faces in one photo; at most {MAX_FACES} are answered")
        if not boxes:
            return None
        reconstructed = self._reconstructor.reconstruct_many([image] * len(boxes), boxes)
        return self._outputs(reconstructed), reconstructed.boxes

    def close(self) -> None:
        """Answer open calls and end the network's thread, if it has one; refuse later calls."""
        self._is_open = False
        if self._batches is not None:
            self._batches.close()

    def _check_open(self) -> None:
        if not self._is_open:
            raise RuntimeError("the predictor was closed")

    def _counted(self, network: Network) -> Network:
        """The network; ``on_batch`` is called for each of its runs."""

        def run(crops: np.ndarray) -> Outputs:
            if self._on_batch is not None:
                self._on_batch(len(crops))
            return network(crops)

        return run

    def _outputs(self, faces: Faces) -> Outputs:
        parameters = faces.parameters
        outputs = decoded_outputs(faces.model, parameters)
        if faces.features is not None:
            outputs["features"] = faces.features
        if self._vertices:
            outputs["vertices"] = faces.model.vertices(parameters.identity, parameters.expression)
        return {key: np.asarray(value, np.float32) for key, value in outputs.items()}

"""keras_scnn: one photo to a 3D face with a shape predicted for that person.

``__init__.pyi`` lists the public names, for Python and for type checkers alike. Each is imported on
first use, so that reading a face model starts neither Keras nor TensorFlow.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

import lazy_loader
from wrapt import register_post_import_hook

__version__ = "0.2.0"
_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Old names of modules and objects that the README and notebooks used; kept for one release.
_MOVED_MODULES = {
    "batch": "folders.folder",
    "cropping": "photos.cropping",
    "data.pairs": "data.samplers",
    "data.pipeline": "data.stream",
    "data.synthetic": "data.synthesis.rendered_people",
    "detection": "photos.detection",
    "drawing": "reconstruction.drawing",
    "models.warm_start": "training.warm_start",
    "prediction": "models.inference",
    "predictor": "serving.predictor",
    "reconstructor": "reconstruction.reconstructor",
    "reconstruction.texture": "texturing.texture",
    "texture": "texturing.texture",
}
_MOVED_NAMES = {
    "": {"fit_person": "fitting.fit_person_landmarks"},
    "evaluate": {
        "evaluate_records": "protocols.records.evaluate_records",
        "write_results": "protocols.evaluation.write_results",
    },
    "fitting": {"fit_person": "fitting.fit_person_landmarks"},
    "io": {
        "mesh_files": "meshes.files.mesh_files",
        "write_mesh": "meshes.files.write_mesh",
    },
    "serve": {"build_server": "serving.server.build_server"},
}

# Layers, losses and optimizers by module, for models that are loaded before it is imported.
_KERAS_OBJECTS = {
    "losses.contrastive": ("ContrastiveLoss", "ExponentialContrastiveLoss"),
    "losses.groups": (
        "EmbeddingDistance",
        "GroupContrastiveLoss",
        "NeighborhoodLoss",
        "RelationalLoss",
        "SupervisedContrastiveLoss",
    ),
    "losses.identity": ("IdentityLoss",),
    "losses.layers": ("ContrastiveLossLayer", "IdentityLossLayer", "LossLayer"),
    "losses.regression": ("WPDC", "LandmarkDistance", "ParameterLoss", "VertexDistance"),
    "models.augmentation": (
        "MoveParameters",
        "RandomBlocks",
        "RandomChannelGain",
        "RandomMove",
        "RandomNoise",
    ),
    "models.heads": ("FaceDecoder", "ShapeCode"),
    "models.micro_batches": ("InParts",),
    "models.recognizers.layers": ("AlignedChip", "DlibEmbedding", "SFaceEmbedding"),
    "models.siamese": ("WeightedDistance",),
    "training.objectives": ("SplitLoss",),
    "training.optimizers": ("SGD", "Adam", "KernelAdamW", "LossScaleOptimizer"),
}


def __getattr__(name: str) -> Any:
    return _moved_name("", name, 3) if name in _MOVED_NAMES[""] else _attribute(name)


def _moved_name(module: str, name: str, stacklevel: int = 2) -> Any:
    """The object that an old name of a module refers to, with a deprecation warning."""
    if name not in _MOVED_NAMES[module]:
        raise AttributeError(f"module '{__name__}.{module}' has no attribute '{name}'")
    home, _, attribute = _MOVED_NAMES[module][name].rpartition(".")
    message = f"{name} is now {__name__}.{home}.{attribute}; the next release drops the old name"
    warnings.warn(message, DeprecationWarning, stacklevel)
    return getattr(importlib.import_module(f"{__name__}.{home}"), attribute)


def _add_moved_names(module: Any) -> None:
    module.__getattr__ = partial(_moved_name, module.__name__.partition(".")[2])


class _MovedModules(MetaPathFinder, Loader):
    """Resolves old module names to the modules' new locations, with a deprecation warning."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, _, rest = name.partition(".")
        is_moved = package == __name__ and rest in _MOVED_MODULES
        return ModuleSpec(name, self) if is_moved else None

    def exec_module(self, module: Any) -> None:
        old = module.__name__
        new = f"{__name__}.{_MOVED_MODULES[old.partition('.')[2]]}"
        message = f"{old} is now {new}; the next release drops the old name"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        sys.modules[old] = importlib.import_module(new)


class _LazyKerasObject:
    """Placeholder of a layer or loss until a saved model needs it; its module then registers it."""

    def __init__(self, module: str, name: str):
        self._module, self.__name__ = module, name

    def from_config(self, config: dict) -> Any:
        """The object that a saved model's settings describe."""
        module = importlib.import_module(f"{__name__}.{self._module}")
        return getattr(module, self.__name__).from_config(config)


def _register(keras: Any) -> None:
    objects = keras.saving.get_custom_objects()
    for module, names in _KERAS_OBJECTS.items():
        for name in names:
            objects.setdefault(f"{__name__}>{name}", _LazyKerasObject(module, name))


sys.meta_path.append(_MovedModules())
for _module in filter(None, _MOVED_NAMES):
    register_post_import_hook(_add_moved_names, f"{__name__}.{_module}")
register_post_import_hook(_register, "keras")  # immediately if Keras has already been imported

"""Face models: the embedded one, and readers of other formats."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import lazy_loader

from keras_scnn.face_models.checks import check_head
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.storage.arrays import array_names
from keras_scnn.storage.guard import existing_file

if TYPE_CHECKING:
    from keras_scnn.face_models.bfm import read_bfm2009
    from keras_scnn.face_models.bfm_h5 import read_bfm_h5
    from keras_scnn.face_models.flame import read_flame
    from keras_scnn.face_models.gnm import read_gnm
    from keras_scnn.face_models.ict import read_ict

__all__ = [
    "load_face_model", "read_bfm2009", "read_bfm_h5", "read_flame", "read_gnm", "read_ict",
]  # fmt: skip

FACE_MODEL = "face_model.npz"  # beside records and in presets, where it is not the embedded one

# Each module's reader, and the suffixes of its files. Readers are imported on first use, since the
# embedded model does not need the packages that read foreign formats.
_READERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "bfm": ("read_bfm2009", (".mat",)),
    "bfm_h5": ("read_bfm_h5", (".h5", ".hdf5")),
    "flame": ("read_flame", (".pkl",)),
    "gnm": ("read_gnm", ()),  # an .npz file, recognized by its arrays
    "ict": ("read_ict", ()),  # a folder
}
# Arrays by which an .npz file is recognized.
_ARRAYS = {
    "read_flame": {"v_template", "shapedirs", "f"},
    "read_gnm": {"template_vertex_positions", "vertex_identity_basis"},
}
_OF_SUFFIX = {suffix: reader for reader, suffixes in _READERS.values() for suffix in suffixes}
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__, submod_attrs={module: [reader] for module, (reader, _) in _READERS.items()}
)


def load_face_model(name_or_path: str | os.PathLike, **options) -> MorphableModel:
    """Load the embedded face model by its name, or a face model from disk.

    Args:
        name_or_path: 'open_face'; a file written by MorphableModel.save (.npz); BFM 2009 (.mat);
            BFM 2017 or 2019 (.h5); FLAME (.pkl or .npz); GNM Head (.npz); the folder of
            ICT-FaceKit.
        options: passed to the reader: ``landmark_indices`` for each foreign format, ``expression``
            and ``model_info`` for BFM 2009, and so on; see the readers.

    Returns:
        a MorphableModel in mm, in the model frame.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the suffix is unknown, the file's content does not fit its suffix, or its unit
            or frame is not that of the published files.
        TypeError: the reader does not have an option.

    >>> model = load_face_model("open_face")
    >>> model.n_identity, model.n_expression
    (80, 52)
    """
    if str(name_or_path) == "open_face":
        return MorphableModel.open_face(**options)
    path = Path(name_or_path)
    return _reader(path)(path, **options)


def face_model_beside(path: Path, name: str) -> MorphableModel:
    """The face model of a preset: ``FACE_MODEL`` beside its settings, or the embedded one.

    Args:
        path: of the file of the settings.
        name: of the face model, as in the settings.

    Raises:
        FileNotFoundError: the model is not the embedded one, and ``FACE_MODEL`` is missing.
        ValueError: the file is damaged, or not a face model.
    """
    file = path.with_name(FACE_MODEL)
    if name == "open_face" and not file.is_file():
        return MorphableModel.open_face()
    model = f"the face model '{name}' that the network was trained with (MorphableModel.save)"
    return MorphableModel.load(existing_file(file, model))


def keep_face_model(aside: Path, model: MorphableModel, folder: Path) -> None:
    """Save a preset's face model for ``face_model_beside``, which has the embedded one anyway.

    Args:
        aside: where the preset's files are written before they are moved to ``folder``.
        model: of the preset. If it is the embedded one, maybe with fewer components, it is not
            saved, and the face model of an older preset in ``folder`` is deleted.
        folder: of the preset.
    """
    own = MorphableModel.open_face()
    sizes = min(model.n_identity, own.n_identity), min(model.n_expression, own.n_expression)
    if model.name != own.name or model.digest != own.truncated(*sizes).digest:
        model.save(aside / FACE_MODEL)
    elif (older := folder / FACE_MODEL).is_file():
        older.unlink()


def _reader(path: Path) -> Callable[..., MorphableModel]:
    suffix = path.suffix.lower()
    if path.is_dir():
        return __getattr__("read_ict")
    if suffix == ".npz":
        return _npz_reader(path)
    if suffix in _OF_SUFFIX:
        return __getattr__(_OF_SUFFIX[suffix])
    raise ValueError(
        f"{path}: not a face model; expected 'open_face', a folder of ICT-FaceKit, or a file whose "
        f"name ends in .npz, {', '.join(_OF_SUFFIX)}"
    )


def _read_own(path: Path, **options) -> MorphableModel:
    model = MorphableModel.load(path)
    check_head(path, model)
    if options:  # checked last, so that errors of the file take precedence
        raise TypeError(f"{path}: a face model of this package takes no {', '.join(options)}")
    return model


def _npz_reader(path: Path) -> Callable[..., MorphableModel]:
    """The reader for an .npz file, by its arrays; files of this package have the array 'format'."""
    names = set(array_names(existing_file(path, "a face model (.npz)")))
    for reader, arrays in _ARRAYS.items():
        if "format" not in names and names & arrays:
            return __getattr__(reader)
    return _read_own

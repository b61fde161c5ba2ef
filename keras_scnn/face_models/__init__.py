"""Face models: the embedded one, and readers for those that users own."""

from __future__ import annotations

import importlib
import os
import zipfile
from pathlib import Path
from typing import Any

from keras_scnn.morphable_model import MorphableModel

__all__ = ["load_face_model", "read_bfm2009", "read_bfm_h5", "read_flame", "read_ict"]  # noqa: F822

_READERS = {
    ".mat": "read_bfm2009",
    ".h5": "read_bfm_h5",
    ".hdf5": "read_bfm_h5",
    ".pkl": "read_flame",
}
# Imported on first use: the embedded model needs none of the packages that read foreign formats.
_HOMES = {
    "read_bfm2009": "bfm",
    "read_bfm_h5": "bfm_h5",
    "read_flame": "flame",
    "read_ict": "ict",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'keras_scnn.face_models' has no attribute '{name}'")
    return getattr(importlib.import_module(f"keras_scnn.face_models.{_HOMES[name]}"), name)


def load_face_model(name_or_path: str | os.PathLike, **options) -> MorphableModel:
    """The embedded face model by its name, or any face model that can be read from disk.

    Args:
        name_or_path: 'open_face'; a file written by MorphableModel.save (.npz); BFM 2009 (.mat);
            BFM 2017 or 2019 (.h5); FLAME (.pkl or .npz); the folder of ICT-FaceKit.
        options: passed to the reader: ``landmark_indices`` to each of the foreign formats,
            ``expression`` and ``model_info`` to BFM 2009, and so on; see the reader.

    Returns:
        a MorphableModel in mm, in the model frame.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the suffix is of no known format, or the file is not what its suffix says.
        TypeError: an option that the reader does not have.
    """
    path = Path(name_or_path)
    if str(name_or_path) == "open_face":
        reader, arguments = MorphableModel.open_face, ()
    elif path.is_dir():
        reader, arguments = __getattr__("read_ict"), (path,)
    elif path.suffix.lower() == ".npz":
        reader, arguments = (
            __getattr__("read_flame") if _is_flame(path) else MorphableModel.load,
            (path,),
        )
    elif path.suffix.lower() in _READERS:
        reader, arguments = __getattr__(_READERS[path.suffix.lower()]), (path,)
    else:
        raise ValueError(
            f"{name_or_path}: no face model; expected 'open_face', a folder of ICT-FaceKit, or a "
            f"file whose name ends in .npz, {', '.join(_READERS)}"
        )
    return reader(*arguments, **options)


def _is_flame(path: Path) -> bool:
    return zipfile.is_zipfile(path) and "v_template.npy" in zipfile.ZipFile(path).namelist()

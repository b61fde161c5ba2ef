"""Results of ``reconstruct`` as parameters of another face model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_scnn.face_models import load_face_model
from keras_scnn.face_models.correspondence import Correspondence, make_correspondence
from keras_scnn.fitting.conversion import convert_parameters
from keras_scnn.meshes.files import write_mesh
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.storage.guard import existing_file, reading
from keras_scnn.storage.outputs import Results, real_path
from keras_scnn.storage.shards import PLAN
from keras_scnn.storage.text import read_json, utf8_text

RESULT = "a result of keras-scnn reconstruct"
EMBEDDINGS = (".npy", ".npz", ".pkl")  # of FLAME's landmarks


def result_files(paths: Sequence[Path]) -> list[Path]:
    """The JSON files of some paths, each a JSON file or a folder of JSON files.

    Raises:
        FileNotFoundError: a path does not exist, or a folder has no JSON file.
        ValueError: a folder has the results of a folder of photos, or of a video.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
        if (path / PLAN).is_file():
            raise ValueError(
                f"{path}: results of a folder of photos or of a video, in Parquet; convert reads "
                "the JSON files of single photos (keras-scnn reconstruct PHOTO ...)"
            )
        found = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not found:
            raise FileNotFoundError(f"{path}: has no .json file; give a folder of reconstruct")
        files += found
    return list(dict.fromkeys(files))


def landmark_option(path: Path) -> dict[str, Path | np.ndarray]:
    """A file of 68 landmarks as the option of ``load_face_model`` that takes it.

    Args:
        path: text with 68 0-based vertices in iBUG's order, separated by blanks, commas or line
            breaks; or FLAME's or GNM's own file: see ``read_flame`` and ``read_gnm``.

    Returns:
        landmark_indices, (68,) int64; landmark_embedding; or landmark_file.

    Raises:
        FileNotFoundError: there is no such text file; other files are checked by their readers.
        IsADirectoryError: it is a folder.
        ValueError: it has neither 68 whole numbers nor 68 rows of 6.
    """
    if path.suffix.lower() in EMBEDDINGS:
        return {"landmark_embedding": path}
    what = "a text file of 68 vertex numbers"
    with reading(existing_file(path, what), what):
        words = utf8_text(path).replace(",", " ").split()
        if len(words) == 68 * 6:  # three vertices of a triangle, each with its weight
            return {"landmark_file": path}
        if len(words) != 68:
            raise ValueError(f"{len(words)} numbers; 68 are needed")
        return {"landmark_indices": np.array([int(word) for word in words])}


def load_target(path: str | os.PathLike, landmarks: Path | None = None) -> MorphableModel:
    """The face model to convert to.

    Args:
        path: see ``load_face_model``.
        landmarks: see ``landmark_option``; for models whose files do not contain them.

    Raises:
        FileNotFoundError, ValueError: see ``load_face_model`` and ``landmark_option``.
    """
    if landmarks is None:
        return load_face_model(path)
    option: dict[str, Any] = landmark_option(landmarks)
    try:
        return load_face_model(path, **option)
    except TypeError as error:  # an option that its reader does not have
        what = "has landmarks of its own; leave out --landmarks"
        if "landmark_indices" not in option:
            what = f"give 68 vertex numbers instead of {landmarks}, or, if it {what}"
        raise ValueError(f"{path}: {what}") from error


def read_parameters(path: str | os.PathLike, model: MorphableModel) -> FaceParameters:
    """The parameters in a result of ``reconstruct``.

    Args:
        path: the JSON file.
        model: the face model of the result.

    Returns:
        pose image_from_model (3, 4), px per mm and px; identity (K,); expression (L,).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a result, or one for another face model.
    """
    content = read_json(path, RESULT)
    with reading(path, RESULT):
        name = _part(content, "face_model")
        if name != model.name:
            raise ValueError(
                f"it is for the face model '{name}', not '{model.name}'; give that model with "
                "--from"
            )
        weights = _part(content, "expression")
        if not isinstance(weights, dict) or weights.keys() != set(model.expression_names):
            raise ValueError(f"its expressions are not those of '{model.name}'")
        pose = _part(content, "pose", "image_from_model")
        return FaceParameters(
            _numbers("pose.image_from_model", pose, (3, 4)),
            _numbers("identity", _part(content, "identity"), (model.n_identity,)),
            _numbers(
                "expression",
                [weights[name] for name in model.expression_names],
                (model.n_expression,),
            ),
        )


def _part(content: Any, *names: str) -> Any:
    """The value under nested names."""
    for i, name in enumerate(names):
        if not isinstance(content, dict) or name not in content:
            raise ValueError(f"it has no {'.'.join(names[: i + 1])}")
        content = content[name]
    return content


def _numbers(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A JSON file's lists of numbers as float64; a ValueError if they are something else."""
    array = np.array(value, object)
    if array.shape != shape:
        raise ValueError(f"{name} has the shape {array.shape}; it must be {shape}")
    if not all(type(one) in (int, float) for one in array.flat):
        raise ValueError(f"{name} has values that are not numbers")
    return array.astype(np.float64)


@dataclass(frozen=True, eq=False)
class Converter:
    """Converts results of one face model to another one.

    Attributes:
        source, target: the face models.
        target_path: the file of the target, recorded in results as one of the files that they are
            made from. None for the embedded model.
        correspondence: of their points.
        with_scale: see ``convert_parameters``.
    """

    source: MorphableModel
    target: MorphableModel
    target_path: Path | None
    correspondence: Correspondence
    with_scale: bool = True

    @classmethod
    def of(
        cls,
        source: MorphableModel,
        target: MorphableModel,
        target_path: Path | None,
        correspondence: str | os.PathLike | None = None,
        with_scale: bool = True,
    ) -> Converter:
        """With the correspondence from a file, or one made from the models' landmarks.

        Raises:
            FileNotFoundError, ValueError: see ``Correspondence.load`` and ``make_correspondence``.
        """
        if correspondence is None:
            made = make_correspondence(source, target)
            return cls(source, target, target_path, made, with_scale)
        loaded = Correspondence.load(correspondence)
        loaded.check_models(source, target)
        return cls(source, target, target_path, loaded, with_scale)

    def convert_file(self, path: Path, out: Path, mesh_format: str | None = None) -> float:
        """Write a result's face as the target's parameters.

        Args:
            path: JSON file of ``reconstruct``.
            out: folder for the JSON file of the same name, and the mesh (m, as the photo shows the
                face) where a format is given: obj, ply or glb.
            mesh_format: see ``out``.

        Returns:
            the root mean square distance of corresponding points, mm.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: see ``read_parameters`` and ``convert_parameters``; an earlier result of the
                file is then removed. Or ``out`` has another file of that name.
        """
        made_of = (path,) if self.target_path is None else (path, self.target_path)
        results = Results(out, made_of, frozenset([real_path(path)]))
        try:
            converted, residual = self._convert(path)
        except (OSError, ValueError):
            results.remove_earlier([path.stem])  # made from the file's earlier content
            raise

        def write(stem: Path) -> None:
            if mesh_format is not None:
                model = self.target
                vertices = model.vertices(converted.identity, converted.expression)
                file = stem.with_name(f"{stem.name}.{mesh_format}")
                write_mesh(file, vertices, model.triangles, model.uv)

        numbers = self._numbers(converted, float(residual))
        results.publish(path.stem, numbers, write)
        return float(residual)

    def _convert(self, path: Path) -> tuple[FaceParameters, np.ndarray]:
        """A result's face as the target's parameters, and the residual, mm."""
        parameters = read_parameters(path, self.source)
        with reading(path, RESULT):
            return convert_parameters(
                self.source, self.target, parameters, self.correspondence, self.with_scale
            )

    def _numbers(self, converted: FaceParameters, residual: float) -> dict:
        names, weights = self.target.expression_names, converted.expression.tolist()
        return {
            "face_model": self.target.name,
            "converted_from": self.source.name,
            "residual_mm": residual,
            "pose": {"image_from_model": converted.pose.tolist()},
            "identity": converted.identity.tolist(),
            "expression": dict(zip(names, weights, strict=True)),
        }

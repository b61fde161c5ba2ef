"""The data sets that ``keras_scnn.prepare`` reads, made from its command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from keras_scnn.data.aflw2000 import Aflw2000
from keras_scnn.data.aflw_crops import AflwCrops
from keras_scnn.data.bfm_full import FullBfm
from keras_scnn.data.bfm_landmarks import BfmLandmarks, recover_from_folder
from keras_scnn.data.blends import BlendedFaces
from keras_scnn.data.landmark_offsets import with_annotated_mean
from keras_scnn.data.mixing import open_mixture
from keras_scnn.data.pts import PtsFolder
from keras_scnn.data.sources import PhotoSource
from keras_scnn.data.tfds_sources import Tfds300WLP, TfdsAflw2000
from keras_scnn.data.w300lp import W300LP
from keras_scnn.face_models import load_face_model
from keras_scnn.morphable_model import MorphableModel


def _w300lp(args: argparse.Namespace) -> PhotoSource:
    own, bfm, components = args.authors_identity, _bfm(args), tuple(args.components)
    return W300LP(args.folder, _basis(args), own, bfm, components)


def _tfds300wlp(args: argparse.Namespace) -> PhotoSource:
    return Tfds300WLP(args.folder, basis=_basis(args))


def _basis(args: argparse.Namespace) -> BfmLandmarks | None:
    if args.basis is None or not args.basis.is_dir():
        return args.basis and BfmLandmarks.load(args.basis)
    found = recover_from_folder(args.basis)
    print(
        f"landmark basis from {found.n_annotations} annotations in {args.basis}: it misses them "
        f"by {found.residual_px:.2g} px (root mean square), {found.worst_px:.2g} px at worst"
    )
    return found.basis


def _bfm(args: argparse.Namespace) -> FullBfm | None:
    if args.bfm_info is None and args.bfm_expression is None:
        return None
    return FullBfm.read(args.face_model, args.bfm_expression, args.bfm_info)


def _people(args: argparse.Namespace) -> PhotoSource:
    from keras_scnn.data.people import PeopleFolder  # starts Keras

    return PeopleFolder(args.folder, teacher=args.teacher_embeddings)


def _blends(args: argparse.Namespace) -> PhotoSource:
    mixture = open_mixture(str(args.folder))
    model = mixture.annotated(load_face_model(args.face_model))
    return BlendedFaces(mixture.records, model, args.count, args.held_out)


SOURCES: dict[str, tuple[str, Callable[[argparse.Namespace], PhotoSource]]] = {
    "300w-lp": ("300W-LP: AFW, HELEN, ... and their _Flip; jpg + mat; needs --basis", _w300lp),
    "aflw2000": ("AFLW2000-3D: jpg + mat", lambda args: Aflw2000(args.folder)),
    "people": ("one folder a person, any photos in it", _people),
    "pts": ("photos with 300-W's .pts files beside them", lambda args: PtsFolder(args.folder)),
    "tfds-300w-lp": ("the300w_lp of TensorFlow Datasets; DIR is its data_dir", _tfds300wlp),
    "tfds-aflw2000": ("aflw2k3d of TensorFlow Datasets", lambda args: TfdsAflw2000(args.folder)),
    "aflw": ("crops of AFLW: crops/ and labels.npz", lambda a: AflwCrops(a.folder, a.part)),
    "blends": ("new faces out of face records; DIR is CACHE[,CACHE ...]", _blends),
}


def chosen_face_model(args: argparse.Namespace) -> MorphableModel:
    """The face model that the command line asks for, with the landmark offsets."""
    if args.source == "blends":
        return open_mixture(str(args.folder)).annotated(load_face_model(args.face_model))
    if Path(args.offsets).suffix == ".npz":
        mean = BfmLandmarks.load(args.offsets)
        return with_annotated_mean(load_face_model(args.face_model), mean)
    if args.offsets and args.face_model == "open_face":
        # Here, so that worker processes, which import this module, do not start Keras.
        from keras_scnn.models import preset_face_model

        return preset_face_model(args.offsets)
    bfm = _bfm(args)
    if bfm is None:
        return load_face_model(args.face_model)
    if args.source != "300w-lp":
        raise ValueError("--bfm-info and --bfm-expression are for 300w-lp, whose parameters fit")
    return bfm.model.truncated(*args.components)

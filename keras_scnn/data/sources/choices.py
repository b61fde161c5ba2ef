"""The data sets that ``keras_scnn.prepare`` reads, and the options for them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from keras_scnn.photos.files import describe_passed_over
from keras_scnn.settings import check_at_least, flag, folders_of

# Readers are imported by the functions that need them, to parse the command line without delay.
if TYPE_CHECKING:
    from keras_scnn.data.photo_source import PhotoSource
    from keras_scnn.data.sources.bfm_full import FullBfm
    from keras_scnn.data.sources.bfm_landmarks import BfmLandmarks
    from keras_scnn.morphable_model import MorphableModel

AFLW_PARTS = ("all", "train", "held_out")


def _w300lp(args: argparse.Namespace) -> PhotoSource:
    from keras_scnn.data.sources.w300lp import W300LP

    return W300LP(args.folder, _basis(args), _bfm(args), tuple(args.components))


def _tfds300wlp(args: argparse.Namespace) -> PhotoSource:
    from keras_scnn.data.sources.tfds import Tfds300WLP

    return Tfds300WLP(args.folder, basis=_basis(args))


def _basis(args: argparse.Namespace) -> BfmLandmarks | None:
    from keras_scnn.data.sources.bfm_landmarks import BfmLandmarks, recover_from_folder

    if args.basis is None or not args.basis.is_dir():
        return args.basis and BfmLandmarks.load(args.basis)
    result = recover_from_folder(args.basis)
    print(
        f"landmark basis from {result.n_annotations} annotations in {args.basis}: the error is "
        f"{result.residual_px:.2g} px (root mean square), at most {result.worst_px:.2g} px"
    )
    if result.passed_over:
        print(f"{args.basis}: {describe_passed_over(result.passed_over)}", file=sys.stderr)
    return result.basis


def _bfm(args: argparse.Namespace) -> FullBfm | None:
    if args.bfm_info is None and args.bfm_expression is None:
        return None
    from keras_scnn.data.sources.bfm_full import FullBfm

    return FullBfm.read(args.face_model, args.bfm_expression, args.bfm_info)


def _people(args: argparse.Namespace) -> PhotoSource:
    from keras_scnn.data.sources.people import PeopleFolder  # starts Keras

    return PeopleFolder(args.folder, teacher=args.teacher_embeddings)


def _blends(args: argparse.Namespace) -> PhotoSource:
    from keras_scnn.data.mixture import open_mixture
    from keras_scnn.data.sources.blends import BlendedFaces
    from keras_scnn.face_models import load_face_model

    mixture = open_mixture(str(args.folder))
    model = mixture.annotated(load_face_model(args.face_model))
    return BlendedFaces(mixture.records, model, args.count, args.held_out)


def _blinks(args: argparse.Namespace) -> PhotoSource:
    from keras_scnn.data.mixture import open_mixture
    from keras_scnn.data.sources.blinks import ClosedEyes

    return ClosedEyes(open_mixture(str(args.folder)).records, args.count, args.held_out)


def _aflw2000(args: argparse.Namespace) -> PhotoSource:
    from keras_scnn.data.sources.aflw2000 import Aflw2000

    return Aflw2000(args.folder)


def _tfds_aflw2000(args: argparse.Namespace) -> PhotoSource:
    from keras_scnn.data.sources.tfds import TfdsAflw2000

    return TfdsAflw2000(args.folder)


def _pts(args: argparse.Namespace) -> PhotoSource:
    from keras_scnn.data.sources.pts import PtsFolder

    return PtsFolder(args.folder)


def _aflw(args: argparse.Namespace) -> PhotoSource:
    from keras_scnn.data.sources.aflw import AflwCrops

    return AflwCrops(args.folder, args.part)


def _cfp(args: argparse.Namespace) -> PhotoSource:
    from keras_scnn.data.sources.cfp import CfpPhotos

    return CfpPhotos(args.folder)


SOURCES: dict[str, tuple[str, Callable[[argparse.Namespace], PhotoSource]]] = {
    "300w-lp": ("300W-LP: AFW, HELEN, ... and their _Flip; jpg + mat; needs --basis", _w300lp),
    "aflw2000": ("AFLW2000-3D: jpg + mat", _aflw2000),
    "people": ("one folder per person, with any photos in it", _people),
    "pts": ("photos with 300-W's .pts files beside them", _pts),
    "tfds-300w-lp": ("the300w_lp of TensorFlow Datasets; DIR is its data_dir", _tfds300wlp),
    "tfds-aflw2000": ("aflw2k3d of TensorFlow Datasets", _tfds_aflw2000),
    "aflw": ("crops of AFLW: crops/ and labels.npz", _aflw),
    "cfp": ("CFP: PERSON/{frontal,profile}_NN.jpg and labels.npz", _cfp),
    "blends": ("new faces blended from face records; DIR is CACHE[,CACHE ...]", _blends),
    "blinks": ("photos of face records, with their eyes closed; DIR likewise", _blinks),
}
OF_RECORDS = ("blends", "blinks")
"""Sources that are made from one or several folders of face records."""


def chosen_face_model(args: argparse.Namespace) -> MorphableModel:
    """The face model given on the command line, with the landmark offsets."""
    from keras_scnn.data.mixture import open_mixture
    from keras_scnn.data.sources.bfm_landmarks import BfmLandmarks, with_annotated_mean
    from keras_scnn.face_models import load_face_model

    if args.source in OF_RECORDS:
        return open_mixture(str(args.folder)).annotated(load_face_model(args.face_model))
    if Path(args.offsets).suffix == ".npz":
        mean = BfmLandmarks.load(args.offsets)
        return with_annotated_mean(load_face_model(args.face_model), mean)
    if args.offsets and args.face_model == "open_face":
        from keras_scnn.models.presets import preset_face_model

        return preset_face_model(args.offsets)
    bfm = _bfm(args)
    if bfm is None:
        return load_face_model(args.face_model)
    return bfm.model.truncated(*args.components)


ONLY_FOR = {
    "part": ("aflw",),
    "authors_identity": ("300w-lp", "tfds-300w-lp"),
    "basis": ("300w-lp", "tfds-300w-lp"),
    "bfm_expression": ("300w-lp",),
    "bfm_info": ("300w-lp",),
    "components": ("300w-lp",),
    "count": OF_RECORDS,
    "held_out": OF_RECORDS,
    "offsets": tuple(name for name in SOURCES if name not in OF_RECORDS),
}
"""The sources for which an option has an effect, if not for all."""


def check_source_options(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Raise a ValueError for options out of range, or without effect for the source."""
    check_at_least("--count", args.count, 1)
    check_at_least("--held-out", args.held_out)
    for count in args.components:
        check_at_least("--components", count)
    wrong: dict[tuple[str, ...], list[str]] = {}
    for name, sources in ONLY_FOR.items():
        if args.source not in sources and getattr(args, name) != parser.get_default(name):
            wrong.setdefault(sources, []).append(flag(name))
    for sources, options in wrong.items():
        those = f"{' and '.join(options)} {'is' if len(options) == 1 else 'are'}"
        raise ValueError(f"{those} for {', '.join(sources)}, not for {args.source}")
    _check_together(args, parser)


def _check_together(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Raise a ValueError for an option without effect in combination with the others."""
    is_preset = args.offsets not in ("", parser.get_default("offsets")) and (
        Path(args.offsets).suffix != ".npz"
    )
    if is_preset and args.face_model != "open_face":
        raise ValueError(
            f"--offsets is '{args.offsets}', but a preset's offsets are for 'open_face'; for "
            "another --face-model give bfm_landmarks68.npz, or omit --offsets"
        )
    has_bfm = args.bfm_info is not None or args.bfm_expression is not None
    if tuple(args.components) != parser.get_default("components") and not has_bfm:
        raise ValueError("--components has no effect without --bfm-expression and --bfm-info")


DECIDING = ("source", "crop_size", "face_model", "offsets", "separate", "authors_identity") + (
    "teacher_embeddings",
    "turned",
    "components",
    "part",
)
MADE_FROM_RECORDS = ("count", "held_out")  # further such settings of OF_RECORDS


def deciding_settings(args: argparse.Namespace) -> dict:
    """The options that determine the records, for their manifest."""
    from keras_scnn.data.records import MANIFEST
    from keras_scnn.storage.shards import file_digest

    config = {name: getattr(args, name) for name in DECIDING}
    if args.authors_identity:  # in 0.2 these records had no mirror images
        config["mirror_images"] = "known"
    if args.source not in OF_RECORDS:
        return config
    config |= {name: getattr(args, name) for name in MADE_FROM_RECORDS}
    # The photos' names do not show from which records they are made.
    manifests = (Path(folder) / MANIFEST for folder in folders_of(str(args.folder)))
    digests = [file_digest(path) for path in manifests if path.is_file()]
    return config | {"of": str(args.folder), "of_manifests": digests}


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that determine the records made from a data set."""
    parser.add_argument("--crop-size", type=int, default=120, help="px (120)")
    parser.add_argument("--face-model", default="open_face", help="'open_face', or a file")
    parser.add_argument(
        "--offsets",
        default="aflw-mobilenet-0.5",
        help="preset whose landmark offsets move the open face model's landmarks to where "
        "annotators put them; or bfm_landmarks68.npz, to whose mean face the landmarks of any face "
        "model are moved; '': none",
    )
    parser.add_argument(
        "--separate", action="store_true", help="fit each photo by itself, not a person's together"
    )
    parser.add_argument(
        "--turned",
        type=int,
        default=0,
        metavar="N",
        help="add N copies of each photo, with the "
        "face turned by up to 45 degrees, so that one photo of a person makes a pair (0)",
    )
    parser.add_argument(
        "--part",
        choices=AFLW_PARTS,
        default="all",
        help="aflw: 'held_out' is one photo in 20 (all)",
    )
    parser.add_argument(
        "--authors-identity",
        action="store_true",
        help="300w-lp: training may pair a person with the mirror image as two people, as the "
        "authors' released code does; the two are held out together in any case",
    )
    parser.add_argument(
        "--teacher-embeddings",
        action="store_true",
        help="store each photo's embedding by dlib's face recognizer; people: also use it to find "
        "photos of strangers (extra 'teacher')",
    )
    _add_blend_options(parser)
    _add_bfm_options(parser)


def _add_blend_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--count", type=int, default=20000, help="blends, blinks: number of new photos (20000)"
    )
    parser.add_argument(
        "--held-out",
        type=int,
        default=0,
        metavar="N",
        help="blends, blinks: leave out the N people that training on these records holds out (0)",
    )


def _add_bfm_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--basis",
        type=Path,
        metavar="FILE_OR_DIR",
        help="300w-lp: .npz of the 68 landmarks' basis, or a folder of 400 or more .mat files with "
        "pt3d_68, such as AFLW2000-3D's, from which it is recovered",
    )
    parser.add_argument(
        "--bfm-expression", type=Path, metavar="MAT", help="300w-lp: Model_Expression.mat of 3DDFA"
    )
    parser.add_argument(
        "--bfm-info",
        type=Path,
        metavar="MAT",
        help="300w-lp: model_info.mat of 3DDFA; with this, --bfm-expression and --face-model "
        "01_MorphableModel.mat the annotation's own parameters are used, and nothing is fitted",
    )
    parser.add_argument(
        "--components",
        type=int,
        nargs=2,
        default=(40, 10),
        metavar=("K", "L"),
        help="300w-lp: number of identity and expression components of the Basel Face Model to "
        "keep (40 10)",
    )

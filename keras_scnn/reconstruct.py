"""Photos or a video to textured 3D faces: ``keras-scnn reconstruct PHOTO --out DIR``.

Given photos, it writes a mesh, its numbers and pictures for each face. Given one folder, it
processes all photos in it and writes Parquet files: on all cores, in constant memory, and resumable
at any time (see docs/batch.md); folder and results may be URLs (s3://photos). Given one video, it
writes each face as an animation, and the faces drawn over the video (see docs/video.md).
"""

from __future__ import annotations

import argparse
import shlex
import sys

from keras_scnn.photos.files import describe_passed_over
from keras_scnn.reconstruction.options import parse_options
from keras_scnn.settings import command, list_failures
from keras_scnn.storage.text import counted, failure


@command
def main(argv: list[str] | None = None) -> int:
    """Reconstruct all photos; list those that fail, in which case the exit status is 1."""
    args = parse_options(argv, __doc__ or "")
    from keras_scnn.storage.outputs import check_out

    check_out(args.out)
    words = ["python", "-m", "keras_scnn.reconstruct", *(sys.argv[1:] if argv is None else argv)]
    args.command = shlex.join(words)
    return {"photos": _photos, "folder": _folder, "video": _video}[args.kind](args)


def _folder(args: argparse.Namespace) -> int:
    from keras_scnn.export.first_use import ensure_network
    from keras_scnn.folders.batch import BatchSettings
    from keras_scnn.folders.folder import FAILED, reconstruct_folder

    ensure_network(args.preset)
    meshes = args.format if args.meshes else None
    settings = BatchSettings(args.preset, args.crops, not args.no_tiles, meshes, args.mesh_options)
    engine = args.engine or "local"
    done = reconstruct_folder(
        args.photos[0], args.out, settings, args.workers, args.command, engine
    )
    photos = counted(done.photos - done.failed, "photo")
    print(f"{counted(done.faces, 'face')} of {photos} written to {args.out}")
    if done.failed:
        print(
            f"{counted(done.failed, 'photo')} failed; reasons: {args.out / FAILED}", file=sys.stderr
        )
    if done.passed_over:
        print(describe_passed_over(done.passed_over), file=sys.stderr)
    return 1 if done.failed else 0


def _video(args: argparse.Namespace) -> int:
    from keras_scnn.export.first_use import ensure_network
    from keras_scnn.video.clip import open_clip
    from keras_scnn.video.run import ClipSettings, reconstruct_clip

    clip = open_clip(args.photos[0])
    ensure_network(args.preset)
    settings = ClipSettings(args.preset, not args.no_tiles, args.min_score, args.mesh_options)
    done = reconstruct_clip(clip, args.out, settings, args.workers, args.command)
    frames = counted(done.frames, "frame")
    print(f"{counted(done.tracks, 'face')} of {frames} written to {args.out}")
    for line in done.failures + done.notes:
        print(line, file=sys.stderr)
    return 1 if done.failures else 0


def _photos(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from keras_scnn.export.first_use import ensure_network
    from keras_scnn.meshes.parts import check_parts
    from keras_scnn.photos.detection import FaceDetector, LargestFaceDetector
    from keras_scnn.reconstruction.files import reconstruct_file
    from keras_scnn.reconstruction.reconstructor import Reconstructor

    ensure_network(args.preset)
    score = args.min_score
    largest = LargestFaceDetector(min_score=score) if args.largest else None
    detector = None if score is None or args.largest else FaceDetector(score, score)
    reconstructor = Reconstructor.from_preset(args.preset, detector)
    check_parts(reconstructor.preset.face_model, args.mesh_options.parts)
    failed, faces = [], 0
    for photo in tqdm(args.photos, desc="photos", disable=len(args.photos) == 1):
        try:
            faces += reconstruct_file(reconstructor, photo, args, largest)
        except (OSError, ValueError) as error:
            failed.append(failure(photo, error))
    photos = counted(len(args.photos) - len(failed), "photo")
    print(f"{counted(faces, 'face')} of {photos} written to {args.out}")
    return list_failures(failed)


if __name__ == "__main__":
    sys.exit(main())

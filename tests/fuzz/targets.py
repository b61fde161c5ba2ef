"""Small valid files of every kind that the package reads, and the function that reads each."""

import csv
import io
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import PIL.Image
import scipy.io
import yaml
from annotated_faces import write_pts
from bfm_files import write_bfm
from dlib_files import write_recognizer
from icc_profiles import rgb_profile

from keras_scnn.data.mixture import Mixture
from keras_scnn.data.records import FaceRecords, load_records, save_records
from keras_scnn.data.sources.aflw import load_targets
from keras_scnn.data.sources.aflw2000 import read_good_faces
from keras_scnn.data.sources.bfm_landmarks import BfmLandmarks
from keras_scnn.data.sources.fold_pairs import read_fold_pairs
from keras_scnn.data.sources.mat_files import read_bfm_annotation
from keras_scnn.data.sources.people_groups import read_groups
from keras_scnn.data.sources.photo_lists import read_pairs
from keras_scnn.data.sources.pts import read_pts
from keras_scnn.data.sources.reannotation import read_reannotation
from keras_scnn.face_models import load_face_model
from keras_scnn.face_models.bfm_h5 import IBUG_OF_NAME
from keras_scnn.face_models.correspondence import Correspondence
from keras_scnn.io import read_image
from keras_scnn.models.presets import read_preset
from keras_scnn.models.recognizers.dlib import read_recognizer
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.protocols.given_points import read_points
from keras_scnn.protocols.openings import read_shut_photos
from keras_scnn.settings import read_yaml
from keras_scnn.storage import write_npz
from keras_scnn.storage.tflite import read_lite_file
from keras_scnn.training.matching.pack import read_pack, write_pack
from keras_scnn.video.clip import open_clip

PHOTOS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")
COMPONENTS = 3


@dataclass(frozen=True)
class Target:
    """A reader, and what it reads.

    Attributes:
        name: of the kind of file.
        write: puts valid files into an empty folder; returns the one that is damaged.
        read: reads them, given the damaged one.
    """

    name: str
    write: Callable[[Path], Path]
    read: Callable[[Path], object]


def photo(kind: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
        exif = PIL.Image.Exif()
        exif[0x0112] = 6  # the orientation
        extras = {"exif": exif, "icc_profile": rgb_profile("p3")}
        options = extras if kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}
        PIL.Image.fromarray(pixels).save(folder / "photo.bin", kind, **options)
        return folder / "photo.bin"

    return write


def dome(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of a small face of 81 vertices, mm."""
    paths, model, expression, landmarks = write_bfm(folder, COMPONENTS, COMPONENTS)
    for path in paths:
        path.unlink()
    return {
        "mean": np.float32(model["shapeMU"].reshape(-1, 3) / 1000),
        "basis": np.float32(model["shapePC"].reshape(-1, 3, COMPONENTS)),
        "expression": np.float32(expression["w_exp"].reshape(-1, 3, COMPONENTS) / 1000),
        "triangles": np.int32(model["tl"] - 1),
        "landmarks": np.int32(landmarks),
    }


def face_model(folder: Path) -> MorphableModel:
    arrays = dome(folder)
    return MorphableModel(
        "dome", arrays["mean"], arrays["basis"], arrays["expression"], arrays["triangles"],
        arrays["landmarks"], [f"e{i}" for i in range(COMPONENTS)],
        np.tile(np.float32([0, 1]), (COMPONENTS, 1)),
    )  # fmt: skip


def own_model(folder: Path) -> Path:
    face_model(folder).save(folder / "model.npz")
    return folder / "model.npz"


def bfm2009(damaged: int, compressed: bool) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        paths = write_bfm(folder, COMPONENTS, COMPONENTS)[0]
        for path in paths:
            arrays = {k: v for k, v in scipy.io.loadmat(path).items() if k[0] != "_"}
            scipy.io.savemat(path, arrays, do_compression=compressed)
        return paths[damaged]

    return write


def read_bfm2009(path: Path) -> object:
    model, expression, info = (
        path.with_name(name) for name in ("01_MorphableModel.mat", "expression.mat", "info.mat")
    )
    return load_face_model(model, expression=expression, model_info=info)


def bfm_h5(compression: str | None) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        arrays = dome(folder)
        with h5py.File(folder / "model.h5", "w") as file:
            for part, basis in (("shape", "basis"), ("expression", "expression")):
                file[f"{part}/model/mean"] = arrays["mean"].reshape(-1)
                columns = arrays[basis].reshape(-1, COMPONENTS)
                file.create_dataset(f"{part}/model/pcaBasis", data=columns, compression=compression)
                file[f"{part}/model/pcaVariance"] = np.ones(COMPONENTS, np.float32)
            file["shape/representer/cells"] = arrays["triangles"].T
            places = zip(IBUG_OF_NAME, arrays["mean"][5::6].tolist(), strict=False)
            named = [{"id": name, "coordinates": place} for name, place in places]
            file["metadata/landmarks/json"] = json.dumps(named)
        return folder / "model.h5"

    return write


def flame(suffix: str, protocol: int = 2) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        arrays = dome(folder)
        table = {
            "v_template": np.float64(arrays["mean"]) / 1000,
            "shapedirs": np.concatenate([arrays["basis"], arrays["expression"]], axis=-1) / 1000,
            "f": np.uint32(arrays["triangles"]),
        }
        if suffix == ".npz":
            np.savez(folder / "flame.npz", **table)
        else:
            content = {**table, "bs_style": "lbs", "list": [1, (2.5, None)]}
            (folder / "flame.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
        return folder / f"flame{suffix}"

    return write


def read_flame(path: Path) -> object:
    return load_face_model(path, landmark_indices=np.arange(68), n_identity=COMPONENTS)


def gnm(damaged: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        arrays = dome(folder)
        np.savez(
            folder / "gnm_head.npz",
            template_vertex_positions=arrays["mean"] / 1000,
            vertex_identity_basis=np.moveaxis(arrays["basis"], -1, 0) / 1000,
            expression_basis=np.moveaxis(arrays["expression"], -1, 0) / 1000,
            triangles=arrays["triangles"],
        )
        rows = [f"{i} 0.9 {i + 1} 0.05 {i + 2} 0.05\n" for i in range(68)]
        (folder / "landmarks.txt").write_text("".join(rows))
        return folder / damaged

    return write


def read_gnm(path: Path) -> object:
    landmarks = path.with_name("landmarks.txt")
    return load_face_model(path.with_name("gnm_head.npz"), landmark_file=landmarks)


def correspondence(folder: Path) -> Path:
    corners, weights = np.arange(60).reshape(20, 3), np.full((20, 3), 1 / 3)
    Correspondence(np.arange(20), corners, weights).save(folder / "correspondence.npz")
    return folder / "correspondence.npz"


def ict(damaged: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        arrays = dome(folder)
        faces = "".join("f {} {} {}\n".format(*(t + 1)) for t in arrays["triangles"])
        for name in ("generic_neutral_mesh", "identity000", "smile"):
            centimeters = arrays["mean"] / 10
            places = "".join("v {:.5f} {:.5f} {:.5f}\n".format(*v) for v in centimeters)
            (folder / f"{name}.obj").write_text(places + faces)
        names = {"expressions": ["smile"], "idx_to_landmark_verts": list(range(68))}
        (folder / "vertex_indices.json").write_text(json.dumps(names))
        return folder / damaged

    return write


def annotation(compressed: bool) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        rng = np.random.default_rng(0)
        shapes = {"Shape_Para": (199, 1), "Exp_Para": (29, 1), "Pose_Para": (1, 7)}
        arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
        arrays |= {"pt3d_68": np.float32(rng.normal(size=(3, 68))), "roi": np.uint8([[1, 2]])}
        scipy.io.savemat(folder / "face.mat", arrays, do_compression=compressed)
        return folder / "face.mat"

    return write


def records(damaged: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        count, rng = 2, np.random.default_rng(0)
        save_records(
            folder,
            FaceRecords(
                rng.integers(0, 256, (count, 8, 8, 3), np.uint8),
                np.zeros((count, 18), np.float32), np.zeros((count, 68, 3), np.float32),
                np.arange(count, dtype=np.int32), "dome", {"a": 1}, name=np.array(["a", "b"]),
            ),
        )  # fmt: skip
        return folder / damaged

    return write


def preset(damaged: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        model = face_model(folder)
        model.save(folder / "dome.npz")
        size = 12 + 2 * COMPONENTS
        arrays = {"whitening_mean": np.zeros(size), "whitening_scale": np.ones(size)}
        arrays |= {"landmark_offsets": np.zeros((68, 3)), "network/a": np.zeros((3, size))}
        write_npz(folder / "weights.npz", "keras_scnn.preset", 1, **arrays)
        settings = {
            "format": "keras_scnn.preset", "version": 1, "encoder": "mobilenet_0.5",
            "input_size": 120, "feature_size": 0, "feature_channels": 0, "mirrored": False,
            "face_model": "dome", "n_identity": COMPONENTS, "n_expression": COMPONENTS,
            "metadata": {"license": "none"},
        }  # fmt: skip
        (folder / "preset.json").write_text(json.dumps(settings))
        return folder / damaged

    return write


def clip(name: str, codec: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        import av

        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for level in range(20, 200, 30):
                image = np.full((48, 64, 3), level, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        return folder / name

    return write


def read_clip(path: Path) -> int:
    return sum(1 for _ in open_clip(path).frames(2))


def read_dome_preset(path: Path) -> object:
    return read_preset(path.parent, MorphableModel.load(path.with_name("dome.npz")))


def configuration(folder: Path) -> Path:
    values = {"batches": "pairs", "steps": 100, "learning_rate": 1e-3, "flip": True, "start": ""}
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return folder / "config.yaml"


def points(folder: Path) -> Path:
    write_pts(folder / "face.pts", np.random.default_rng(0).uniform(0, 400, (68, 2)))
    return folder / "face.pts"


def pairs(folder: Path) -> Path:
    (folder / "pairs.txt").write_text("2 1\nann 1 2\nann 1 bob 3\nbob 1 2\nann 2 bob 1\n")
    return folder / "pairs.txt"


def array(folder: Path) -> Path:
    np.save(folder / "points.npy", np.random.default_rng(0).normal(size=(2, 68, 2)))
    return folder / "points.npy"


def basis(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(68, 3)), rng.normal(size=(68, 3, 4)), rng.normal(size=(68, 3, 2))
    BfmLandmarks(*parts).save(folder / "basis.npz")
    return folder / "basis.npz"


def aflw(folder: Path) -> Path:
    count, rng = 4, np.random.default_rng(0)
    np.savez(
        folder / "labels.npz",
        name=np.array([f"image{i:05d}_1.jpg" for i in range(count)]),
        yaw_degrees=np.zeros(count, np.float32),
        landmarks68=rng.uniform(0, 120, (count, 68, 2)).astype(np.float32),
        visibility68=np.full((count, 68), 2, np.uint8),
        landmarks68_residual=np.zeros(count, np.float32),
        teacher_landmarks68=rng.uniform(0, 120, (count, 68, 3)).astype(np.float32),
        teacher_bfm62=rng.normal(size=(count, 62)).astype(np.float32),
    )
    return folder / "labels.npz"


def protocol(folder: Path) -> Path:
    annotation(False)(folder).rename(folder / "face.mat")
    PIL.Image.new("RGB", (8, 8)).save(folder / "face.jpg")
    file = io.StringIO()
    rows = [("name", "yaw_degrees", "crop_x0", "crop_y0", "crop_x1", "crop_y1")]
    csv.writer(file).writerows([*rows, ("face", 3.5, 0, 0, 8, 8)])
    (folder / "protocol.csv").write_text(file.getvalue())
    return folder / "protocol.csv"


def lite(folder: Path) -> Path:
    from keras_scnn.photos.blazeface import model_path
    from keras_scnn.storage.tflite import with_metadata

    content = with_metadata(model_path().read_bytes(), {"format": "a"})
    (folder / "network.tflite").write_bytes(content)
    return folder / "network.tflite"


def photo_pack(folder: Path) -> Path:
    count, rng = 2, np.random.default_rng(0)
    records = FaceRecords(
        rng.integers(0, 256, (count, 24, 24, 3), np.uint8),
        np.zeros((count, 18), np.float32), np.zeros((count, 68, 3), np.float32),
        np.arange(count, dtype=np.int32), "dome", {"a": 1},
    )  # fmt: skip
    write_pack(folder / "pack.npz", Mixture(records, np.zeros(count, int)), face_model(folder))
    return folder / "pack.npz"


def recognizer(folder: Path) -> Path:
    write_recognizer(folder / "recognizer.dat", (16,) * 29, 8)
    return folder / "recognizer.dat"


def given_points(folder: Path) -> Path:
    landmarks = np.random.default_rng(0).uniform(0, 120, (2, 68, 2))
    np.savez(folder / "points.npz", name=np.array(["a.jpg", "b.jpg"]), landmarks68=landmarks)
    return folder / "points.npz"


def shut_photos(folder: Path) -> Path:
    (folder / "shut.csv").write_text('photo,why\nindoor_001,laughs\nindoor_002,"a, b"\n')
    return folder / "shut.csv"


def people_groups(folder: Path) -> Path:
    (folder / "groups.csv").write_text("person,sex,age\nset/a,woman,40\nset/b,man,\n")
    return folder / "groups.csv"


def fold_pairs(folder: Path) -> Path:
    for person in ("ann", "bob", "eve", "joe"):
        (folder / person).mkdir()
        for i in (1, 2):
            (folder / person / f"{i}.jpg").touch()
    rows = ["ann/1,ann/2,1,0", "ann/1,bob/1,0,0", "eve/1,eve/2,1,1", "eve/1,joe/1,0,1"]
    text = "\n".join(["first,second,same,fold", *rows]).replace("/1", "/1.jpg")
    (folder / "pairs.csv").write_text(text.replace("/2", "/2.jpg") + "\n")
    return folder / "pairs.csv"


TARGETS = [
    Target("photo pack", photo_pack, read_pack),
    Target("dlib's recognizer", recognizer, read_recognizer),
    Target("given points", given_points, read_points),
    Target("shut photos", shut_photos, read_shut_photos),
    Target("people's groups", people_groups, read_groups),
    Target("fold pairs", fold_pairs, lambda p: read_fold_pairs(p, p.parent)),
    *(Target(f"photo {kind}", photo(kind), read_image) for kind in PHOTOS),
    Target("face model .npz", own_model, load_face_model),
    *(
        Target(f"BFM 2009 {name}{' pressed' * pressed}", bfm2009(i, pressed), read_bfm2009)
        for i, name in enumerate(("model", "expression", "info"))
        for pressed in (False, True)
    ),
    Target("BFM 2019", bfm_h5(None), lambda p: load_face_model(p, landmark_indices=np.arange(68))),
    Target("BFM 2019 gzip", bfm_h5("gzip"), load_face_model),
    Target("FLAME .npz", flame(".npz"), read_flame),
    *(Target(f"FLAME .pkl {n}", flame(".pkl", n), read_flame) for n in (0, 2, 5)),
    Target("GNM", gnm("gnm_head.npz"), read_gnm),
    Target("GNM landmarks", gnm("landmarks.txt"), read_gnm),
    Target("correspondence", correspondence, Correspondence.load),
    Target("ICT mesh", ict("generic_neutral_mesh.obj"), lambda p: load_face_model(p.parent)),
    Target("ICT names", ict("vertex_indices.json"), lambda p: load_face_model(p.parent)),
    Target("300W-LP", annotation(False), read_bfm_annotation),
    Target("300W-LP pressed", annotation(True), read_bfm_annotation),
    Target("records manifest", records("manifest.json"), lambda p: load_records(p.parent)),
    Target("records labels", records("00000.labels.npz"), lambda p: load_records(p.parent)),
    Target("preset settings", preset("preset.json"), read_dome_preset),
    Target("preset weights", preset("weights.npz"), read_dome_preset),
    Target("configuration", configuration, read_yaml),
    Target("pts", points, read_pts),
    Target("pairs", pairs, lambda p: read_pairs(p, p.parent)),
    Target("reannotation", array, lambda p: read_reannotation(p, ["a", "b"])),
    Target("landmark basis", basis, BfmLandmarks.load),
    Target("AFLW labels", aflw, lambda p: load_targets(p.parent)),
    Target("AFLW2000-3D protocol", protocol, lambda p: read_good_faces(p.parent)),
    Target("LiteRT metadata", lite, read_lite_file),
    Target("video .mp4", clip("a.mp4", "libx264"), read_clip),
    Target("video .mkv", clip("a.mkv", "libx264"), read_clip),
    Target("video .avi", clip("a.avi", "mpeg4"), read_clip),
]

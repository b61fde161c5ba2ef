"""300W-LP with what its users may own: a Basel Face Model, or many annotations."""

import cv2
import numpy as np
import pytest
import scipy.io
from bfm_files import write_bfm

from keras_scnn.data.mixture import open_mixture
from keras_scnn.data.sources.bfm_full import FullBfm
from keras_scnn.data.sources.bfm_landmarks import BfmLandmarks
from keras_scnn.face_models import load_face_model
from keras_scnn.prepare import main

PHOTOS = 3


def annotation(rng) -> dict[str, np.ndarray]:
    """Arrays of a .mat file of 300W-LP."""
    pose = [*rng.uniform(-0.4, 0.4, 3), *rng.uniform(200, 250, 2), -60, rng.uniform(1e-3, 1.2e-3)]
    return {
        "Shape_Para": rng.normal(0, 2e5, (199, 1)),
        "Exp_Para": rng.normal(0, 0.5, (29, 1)),
        "Pose_Para": np.array([pose]),
    }


@pytest.fixture
def folder(tmp_path):
    """A few photos in the published layout."""
    place, rng = tmp_path / "300W_LP" / "AFW", np.random.default_rng(0)
    place.mkdir(parents=True)
    for i in range(PHOTOS):
        scipy.io.savemat(place / f"AFW_{i}_1_0.mat", annotation(rng))
        cv2.imwrite(str(place / f"AFW_{i}_1_0.jpg"), rng.integers(0, 256, (450, 450, 3)))
    return place.parent


def test_a_basel_face_model_takes_the_annotated_parameters(tmp_path, folder):
    (model, expression, info), *_ = write_bfm(tmp_path, 199, 29)
    out = tmp_path / "records"
    given = ["--face-model", str(model), "--bfm-expression", str(expression), "--bfm-info"]
    assert main(["300w-lp", str(folder), "--out", str(out), *given, str(info)]) == 0
    mixture = open_mixture(str(out))
    records = mixture.records
    assert records.parameters.shape == (PHOTOS, 12 + 40 + 10)  # the paper's 62
    deviations = scipy.io.loadmat(model)["shapeEV"][:40, 0]
    shapes = [scipy.io.loadmat(p)["Shape_Para"][:40, 0] for p in sorted(folder.glob("AFW/*.mat"))]
    np.testing.assert_allclose(records.parameters[:, 12:52], shapes / deviations, rtol=1e-5)
    face_model = mixture.annotated(load_face_model(out / "face_model.npz"))
    assert (face_model.n_identity, face_model.n_expression) == (40, 10)


def test_the_basis_is_recovered_from_annotations(tmp_path, folder, capsys):
    (model, expression, info), *_ = write_bfm(tmp_path, 199, 29)
    true, rng = FullBfm.read(model, expression, info).landmarks(), np.random.default_rng(1)
    (tmp_path / "annotated").mkdir()
    for i in range(420):
        arrays = annotation(rng)
        shape, weights, pose = (arrays[k].reshape(-1) for k in arrays)
        points = true.decode(shape, weights, pose) + [1, 1, 0]
        scipy.io.savemat(tmp_path / "annotated" / f"{i}.mat", {**arrays, "pt3d_68": points.T})
    (tmp_path / "annotated" / "broken.mat").write_bytes(b"nothing")
    out = tmp_path / "records"
    given = ["--face-model", str(model), "--bfm-expression", str(expression)]
    given += ["--bfm-info", str(info), "--basis", str(tmp_path / "annotated")]
    assert main(["300w-lp", str(folder), "--out", str(out), *given]) == 0
    assert "from 420 annotations" in capsys.readouterr().out
    result = BfmLandmarks.load(out / "bfm_landmarks68.npz")
    np.testing.assert_allclose(result.mean, true.mean, atol=1)  # micrometers


def test_too_few_annotations_are_refused(tmp_path, folder, capsys):
    (tmp_path / "empty").mkdir()
    given = ["--basis", str(tmp_path / "empty"), "--out", str(tmp_path / "records")]
    assert main(["300w-lp", str(folder), *given]) == 2
    assert "0 annotations with pt3d_68; 400 or more are needed" in capsys.readouterr().err


def test_the_basel_face_models_parameters_are_300w_lps(tmp_path, folder, capsys):
    (model, expression, info), *_ = write_bfm(tmp_path, 199, 29)
    given = ["--face-model", str(model), "--bfm-expression", str(expression)]
    given += ["--bfm-info", str(info), "--out", str(tmp_path / "records")]
    assert main(["pts", str(folder), *given]) == 2
    assert "are for 300w-lp" in capsys.readouterr().err

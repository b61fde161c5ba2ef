import numpy as np
import pytest
import scipy.io
from annotated_faces import matlab_landmarks, random_basis, random_parameters

from keras_scnn.data.sources.bfm_landmarks import (
    BfmLandmarks,
    image_from_bfm,
    recover_bfm_landmarks,
)
from keras_scnn.data.sources.mat_files import BfmAnnotation, image_landmarks, read_bfm_annotation


def annotated(basis, count, seed=1, noise=0.0, people=None) -> list[BfmAnnotation]:
    rng = np.random.default_rng(seed)
    shapes = [random_parameters(rng) for _ in range(people or count)]
    faces = []
    for i in range(count):
        arrays = {**shapes[i % len(shapes)], "Pose_Para": random_parameters(rng)["Pose_Para"]}
        points = matlab_landmarks(basis, arrays) + rng.normal(0, noise, (3, 68))
        shape, expression, pose = (
            arrays[k].reshape(-1).astype(float) for k in ("Shape_Para", "Exp_Para", "Pose_Para")
        )
        landmarks = image_landmarks(points.astype(np.float32))
        faces.append(BfmAnnotation(shape, expression, pose, landmarks))
    return faces


def test_parameters_decode_to_the_annotated_landmarks():
    basis = random_basis()
    for face in annotated(basis, 3):
        decoded = basis.decode(face.shape, face.expression, face.pose)
        np.testing.assert_allclose(decoded, face.landmarks, atol=1e-4)  # float32 of 450 px


def test_many_faces_decode_as_one_by_one():
    basis, faces = random_basis(), annotated(random_basis(), 4)
    stacks = [np.stack([getattr(f, k) for f in faces]) for k in ("shape", "expression", "pose")]
    together = basis.decode(*stacks)
    alone = [basis.decode(f.shape, f.expression, f.pose) for f in faces]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_the_basis_is_recovered_from_annotations():
    truth = random_basis()
    result = recover_bfm_landmarks(annotated(truth, 420))
    assert result.n_annotations == 420
    assert result.residual_px < 1e-4  # float32 of 450 px
    assert result.residual_px <= result.worst_px < 1e-3
    (face,) = annotated(truth, 1, seed=99)
    decoded = result.basis.decode(face.shape, face.expression, face.pose)
    np.testing.assert_allclose(decoded, face.landmarks, atol=1e-3)
    np.testing.assert_allclose(result.basis.mean, truth.mean, atol=1)  # micrometers


def test_the_residual_is_the_noise_of_the_annotation():
    """Of n noisy faces and p unknowns, least squares leaves sqrt((n - p) / n) of the noise."""
    result = recover_bfm_landmarks(annotated(random_basis(), 600, noise=0.5))
    expected = 0.5 * np.sqrt(3) * np.sqrt((600 - 229) / 600)
    assert result.residual_px == pytest.approx(expected, rel=0.03)


def test_too_few_or_too_similar_annotations_are_refused():
    faces = annotated(random_basis(), 400, people=30)
    with pytest.raises(ValueError, match="399 annotations with pt3d_68; 400 or more"):
        recover_bfm_landmarks(faces[:399])
    with pytest.raises(ValueError, match="span 30 of the 229 unknowns"):
        recover_bfm_landmarks(faces)
    bare = [BfmAnnotation(f.shape, f.expression, f.pose) for f in faces]
    with pytest.raises(ValueError, match="0 annotations with pt3d_68"):
        recover_bfm_landmarks(bare)


def test_a_saved_basis_is_the_published_file(tmp_path):
    basis, path = random_basis(), tmp_path / "basis.npz"
    basis.save(path)
    with np.load(path, allow_pickle=False) as file:
        shapes = {name: file[name].shape for name in file.files}
    assert shapes == {
        "mean": (68, 3),
        "identity_basis": (68, 3, 199),
        "expression_basis": (68, 3, 29),
    }
    again = BfmLandmarks.load(path)
    np.testing.assert_allclose(again.identity_basis, basis.identity_basis, rtol=1e-6)


def test_files_and_arrays_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "basis.npz"
    with pytest.raises(FileNotFoundError, match=r"basis\.npz: no such file"):
        BfmLandmarks.load(path)
    path.write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"basis\.npz: not a \.npz file of mean, identity_basis"):
        BfmLandmarks.load(path)
    np.savez(path, mean=np.zeros((68, 3)))
    with pytest.raises(ValueError, match="identity_basis"):
        BfmLandmarks.load(path)
    with pytest.raises(ValueError, match=r"mean has the shape \(67, 3\); it must be \(68, 3\)"):
        BfmLandmarks(np.zeros((67, 3)), np.zeros((68, 3, 2)), np.zeros((68, 3, 2)))
    with pytest.raises(ValueError, match="expression_basis has numbers that are not finite"):
        BfmLandmarks(np.zeros((68, 3)), np.zeros((68, 3, 2)), np.full((68, 3, 2), np.nan))
    with pytest.raises(ValueError, match=r"shape is \(40,\); the basis has 199 components"):
        random_basis().decode(np.zeros(40), np.zeros(29), np.ones(7))
    with pytest.raises(ValueError, match=r"pose has the shape \(6,\)"):
        image_from_bfm(np.zeros(6))


def test_an_annotation_without_a_scale_is_refused_by_name(tmp_path):
    """A basis could not be recovered beside it: "Singular matrix"."""
    arrays = random_parameters(np.random.default_rng(0))
    arrays["Pose_Para"][0, 6] = 0
    scipy.io.savemat(tmp_path / "face.mat", arrays)
    with pytest.raises(ValueError, match=r"face\.mat: the scale in Pose_Para is 0"):
        read_bfm_annotation(tmp_path / "face.mat")


def test_the_published_basis_decodes_the_published_annotation(shared_data):
    basis = BfmLandmarks.load(shared_data / "300w-lp-fixture" / "bfm_landmarks68.npz")
    paths = sorted((shared_data / "aflw2000-3d-dev").glob("*.mat"))
    faces = [read_bfm_annotation(path) for path in paths]
    for path, face in zip(paths, faces, strict=True):
        points = scipy.io.loadmat(path)["pt3d_68"].T - [1, 1, 0]
        decoded = basis.decode(face.shape, face.expression, face.pose)
        np.testing.assert_allclose(decoded, points, atol=1e-3)
    with pytest.raises(ValueError, match="200 annotations with pt3d_68; 400 or more"):
        recover_bfm_landmarks(faces)

import json
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pytest
from skimage import data

from keras_scnn.models import load_preset, save_preset
from keras_scnn.models.inference import keras_network
from keras_scnn.models.presets import SETTINGS
from keras_scnn.reconstruction.gaze import look_weights

CHANNELS = 8
YAW = 1


def labels_of(tool, n: int, gaze):
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 255, (n, 120, 120, 3)).astype(np.uint8)
    gaze = np.float32(np.broadcast_to(gaze, (n, 2)))
    return tool.Labels(crops, gaze, np.zeros((n, 3), np.float32), np.zeros(n, bool))


def test_mirrored_variants_have_mirrored_gaze(tool):
    batches = tool.Batches(labels_of(tool, 80, [5.0, 12.0]), steps=2, seed=0)
    images, gaze = batches[1]
    assert images.shape == (tool.BATCH, 120, 120, 3) and len(batches) == 2
    np.testing.assert_allclose(gaze[:, 0], 0.5)
    assert set(gaze[:, YAW].round(3).tolist()) == {np.float32(-1.2), np.float32(1.2)}
    np.testing.assert_array_equal(images, batches[1][0])  # the same seed, the same batch


def test_held_out_photos_are_not_used(tool):
    labels = labels_of(tool, 140, [0.0, 0.0])
    labels.gaze[:70], labels.is_held_out[:70] = 9.0, True
    assert not tool.Batches(labels, 1, 0)[0][1].any()


@pytest.mark.integration
@pytest.mark.parametrize("name", ["mobile", "aflw-mobilenet-0.5"])  # with and without such heads
def test_the_head_becomes_the_look_units_and_all_else_stays(tool, tmp_path, name):
    preset = load_preset(name)
    crops = np.random.default_rng(1).integers(0, 255, (4, 120, 120, 3)).astype(np.uint8)
    before = preset.space.parameters(keras_network(preset)(crops)["parameters"])
    keras.utils.set_random_seed(2)
    changed = tool.with_gaze_head(preset, CHANNELS)
    network = tool.gaze_network(changed)
    tool.train(network, labels_of(tool, 70, [3.0, -6.0]), steps=2, seed=0)
    gaze = tool.UNIT * network.predict(np.float32(crops), verbose=0)
    tool.fold(changed, network)
    assert changed.expression_channels == preset.expression_channels
    assert changed.gaze_channels == CHANNELS != preset.gaze_channels
    save_preset(tmp_path / "out", changed)  # raises for layers that are left frozen
    after = changed.space.parameters(keras_network(changed)(crops)["parameters"])
    looks = look_weights(preset.face_model)
    is_look = looks.any(axis=0)
    assert is_look.sum() == 8
    np.testing.assert_allclose(after.expression[:, is_look], (gaze @ looks)[:, is_look], atol=2e-3)
    np.testing.assert_allclose(
        after.expression[:, ~is_look], before.expression[:, ~is_look], atol=2e-4
    )
    np.testing.assert_allclose(after.identity, before.identity, atol=1e-4)
    np.testing.assert_allclose(after.pose, before.pose, atol=1e-3)


@pytest.mark.integration
def test_the_command_learns_from_folders_of_photos(tool, tmp_path, monkeypatch, capsys):
    photo = data.astronaut()[:300, 60:360]
    for i in range(70):  # a batch of different photos
        path = tmp_path / "people" / f"p{i // 14}" / f"{i % 14}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.roll(photo, i % 14, axis=0)[..., ::-1])
    (tmp_path / "people" / "p4" / "bad.jpg").write_text("no photo")
    monkeypatch.setattr(tool, "BATCH", 16)
    arguments = f"learn_gaze mobile {tmp_path / 'out'} --data {tmp_path / 'people'} --held-out 1"
    arguments += f" --labels {tmp_path / 'labels.npz'} --channels 4 --steps 2"
    monkeypatch.setattr("sys.argv", arguments.split())
    tool.main()
    note = json.loads((tmp_path / "out" / SETTINGS).read_text())["metadata"]["gaze"]
    assert (note["photos"], note["held_out"]["photos"]) == (56, 14)
    assert "bad.jpg" in capsys.readouterr().err
    assert load_preset(tmp_path / "out").gaze_channels == 4
    made = (tmp_path / "labels.npz").stat().st_mtime_ns
    tool.main()  # the labels are used again
    assert (tmp_path / "labels.npz").stat().st_mtime_ns == made


def test_presets_that_take_gaze_over_from_their_base_are_refused(tool, monkeypatch, capsys):
    dlib_and_open = SimpleNamespace(recognizers="dlib")
    monkeypatch.setattr(tool, "load_preset", lambda name: dlib_and_open)
    monkeypatch.setattr("sys.argv", ["learn_gaze", "open-identity", "out", "--data", "a"])
    with pytest.raises(SystemExit):
        tool.main()
    assert "takes gaze over from its base (follow_base.py)" in capsys.readouterr().err


def test_only_listed_photos_are_left_out_and_the_last_people_held_out(tool, tmp_path):
    for name in ("a/1", "a/2", "b/1", "c/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.png").touch()
    (tmp_path / "x.csv").write_text("photo\na/1\n")
    args = SimpleNamespace(data=str(tmp_path), held_out=[1], leave_out=tmp_path / "x.csv")
    photos = {str(path.relative_to(tmp_path)): held for path, held in tool.list_photos(args)}
    assert photos == {"a/2.png": False, "b/1.png": False, "c/1.png": True}


def test_too_few_photos_and_other_crops_are_refused(tool):
    preset = SimpleNamespace(input_size=120)
    with pytest.raises(ValueError, match="known in 9 photos for training; 64 are needed"):
        tool.check_labels(labels_of(tool, 9, [0.0, 0.0]), preset)
    with pytest.raises(ValueError, match="crops of 120 px; the preset needs 96"):
        tool.check_labels(labels_of(tool, 70, [0.0, 0.0]), SimpleNamespace(input_size=96))


def test_the_gaze_of_renderings_is_theirs(tool):
    labels = tool.rendered_labels(10, seed=0, size=64)
    assert labels.crops.shape[1:] == (64, 64, 3)
    assert 40 < len(labels.crops) < 100  # photos with closed eyes are left out
    assert 0 < labels.is_held_out.sum() < 15
    assert 3 < labels.gaze[:, 0].std() < 8 < labels.gaze[:, YAW].std() < 16
    assert np.abs(labels.head[:, 1]).max() <= tool.MAX_YAW + 1e-3
    again = tool.rendered_labels(10, seed=0, size=64)
    np.testing.assert_array_equal(again.crops, labels.crops)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("open --data a,b --held-out 1", "--held-out has 1 numbers; --data has 2 folders"),
        ("open --data a --steps 0", "--channels and --steps must be 1 or more"),
        ("open --data ,", "--data must name a folder"),
        ("open --data missing", "missing: no such folder; --data are folders of photos"),
        ("open --data {people} --held-out 2", "--held-out is 2; {people} has 2 people"),
        ("open --data {people} --leave-out {csv}", "no folder of --data has a photo 'other'"),
        ("open --data {people}", "gaze can be measured in none of 3 photos"),
    ],
)
def test_options_that_do_not_fit_are_named(tool, refused, tmp_path, options, message):
    for name in ("people/a/1.png", "people/a/2.png", "people/b/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.zeros((80, 80, 3), np.uint8))
    (tmp_path / "x.csv").write_text("photo\nother\n")
    places = {"people": tmp_path / "people", "csv": tmp_path / "x.csv"}
    message = message.format(**places)
    preset, *others = options.format(**places).split()
    assert message in refused(tool, preset, tmp_path / "out", *others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--data other --held-out 1", "made with --data {data}, not other; give the same"),
        ("--data {data} --held-out 2", "made with --held-out [1], not [2]"),
        ("--data {data} --held-out 1 --leave-out x.csv", "made with --leave-out None, not x.csv"),
        ("--renderings 5", "made with --data {data}, not "),
    ],
)
def test_labels_of_other_options_are_refused(tool, refused, tmp_path, options, message):
    """Otherwise people who were to be held out would be trained on."""
    args = tool.arguments().parse_args(["mobile", "out", "--data", "A", "--held-out", "1"])
    args.labels, made = tmp_path / "labels.npz", labels_of(tool, 70, [1.0, 2.0])
    args.seed = 4  # of the training alone
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool, "make_labels", lambda args: made)
        tool.read_or_make(args, 120)
    args.seed = 5
    np.testing.assert_array_equal(tool.read_or_make(args, 120).crops, made.crops)
    words = options.format(data="A").split()
    error = refused(tool, "mobile", tmp_path / "out", "--labels", args.labels, *words)
    assert message.format(data="A") in error and not (tmp_path / "out").exists()

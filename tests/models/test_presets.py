import contextlib
import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from patched_os import patch_os

from keras_scnn.models import (
    Preset,
    build_branch,
    build_encoder,
    load_preset,
    presets,
    read_preset,
    save_preset,
    write_metadata,
)
from keras_scnn.models.presets import (
    FOLDER,
    FORMAT,
    NETWORK,
    SETTINGS,
    VERSION,
    WEIGHTS,
    list_presets,
    preset_folder,
)
from keras_scnn.parameters import ParameterLayout, ParameterSpace, Whitening
from keras_scnn.protocols.evaluation import PEOPLE, check_calibrate
from keras_scnn.storage import read_npz, write_npz

IMAGE = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)


def make_preset(open_face) -> Preset:
    model = open_face.truncated(8, 4)
    model = model.replace(landmark_offsets=np.full((68, 3), 0.25))
    layout = ParameterLayout(8, 4)
    branch = build_branch(build_encoder("mobilenet_0.5", 32), layout, feature_size=16)
    whitening = Whitening(np.arange(layout.size), np.full(layout.size, 0.5))
    return Preset(branch, ParameterSpace(model, whitening), "mobilenet_0.5", {"seed": 3})


def test_a_network_of_larger_crops_than_a_preset_takes_is_not_saved(tmp_path, preset):
    space, image = preset.space, keras.Input((1056, 1056, 3), name="image")
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    branch = build_branch(keras.Model(image, pooled), space.layout, feature_size=16)
    with pytest.raises(ValueError, match="cannot be saved: crops of 1056 px; .* 1024 px at most"):
        save_preset(tmp_path / "large", dataclasses.replace(preset, branch=branch))
    assert not (tmp_path / "large").exists()


@pytest.fixture
def preset(open_face) -> Preset:
    return make_preset(open_face)


@pytest.fixture(scope="module")
def saved(open_face, tmp_path_factory):
    """A preset, and its folder."""
    save_preset(folder := tmp_path_factory.mktemp("saved"), preset := make_preset(open_face))
    return preset, folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(saved[1], tmp_path / "preset"))


def test_a_preset_comes_back_within_half_precision(saved):
    preset, folder = saved
    again = load_preset(folder)
    for name, value in preset.branch(IMAGE).items():
        np.testing.assert_allclose(np.asarray(again.branch(IMAGE)[name]), value, atol=2e-3)
    np.testing.assert_array_equal(again.space.whitening.mean, preset.space.whitening.mean)
    np.testing.assert_array_equal(again.face_model.landmark_offsets, 0.25)
    assert (again.input_size, again.feature_size, again.metadata) == (32, 16, {"seed": 3})
    assert (again.face_model.n_identity, again.face_model.n_expression) == (8, 4)


@pytest.mark.integration
def test_a_feature_head_that_weighs_places_comes_back(tmp_path, preset):
    layout = preset.layout
    branch = build_branch(build_encoder("mobilenet_0.5", 32), layout, 16, feature_channels=24)
    save_preset(tmp_path / "placed", dataclasses.replace(preset, branch=branch))
    again = load_preset(tmp_path / "placed")
    assert again.feature_channels == 24
    assert preset.feature_channels == 0
    outputs, expected = again.branch(IMAGE)["features"], branch(IMAGE)["features"]
    np.testing.assert_allclose(np.asarray(outputs), expected, atol=2e-3)


@pytest.mark.integration
def test_a_preset_stores_only_weights_that_its_base_lacks(tmp_path, monkeypatch, preset):
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    wide = build_branch(build_encoder("mobilenet_0.5", 32), preset.layout, 16, 600)
    preset = dataclasses.replace(preset, branch=wide)  # sizes that occur only in the base's weights
    save_preset(tmp_path / "base", preset)
    changed = preset.core.get_layer("parameters")
    kernel, bias = changed.get_weights()
    changed.set_weights([kernel, bias + 0.5])
    try:
        save_preset(tmp_path / "other", preset, base="base")
    finally:
        changed.set_weights([kernel, bias])
    sizes = [(tmp_path / name / "weights.npz").stat().st_size for name in ("base", "other")]
    assert sizes[1] < sizes[0] / 20
    base, other = (load_preset(tmp_path / name).branch(IMAGE) for name in ("base", "other"))
    difference = np.asarray(other["parameters"]) - np.asarray(base["parameters"])
    np.testing.assert_allclose(difference, 0.5, atol=1e-5)
    save_preset(tmp_path / "base", dataclasses.replace(preset, space=_moved(preset.space)))
    message = "is based on weights of 'base' with digest .*, but here they have"
    with pytest.raises(ValueError, match=message):
        load_preset(tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        save_preset(tmp_path / "other", preset, base="none")


def _moved(space):
    whitening = Whitening(space.whitening.mean + 1, space.whitening.scale)
    return ParameterSpace(space.face_model, whitening)


@pytest.mark.parametrize("changes", range(5))
def test_a_killed_writer_leaves_no_weights_beside_the_settings_of_another_preset(
    folder, preset, monkeypatch, changes
):
    """It ends after a number of the folder's changes, of which there are four."""
    left = [changes]

    def killed_later(change):
        def call(*paths, **options):
            if Path(paths[-1]).parent == folder:
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
            return change(*paths, **options)

        return call

    for name in ("replace", "unlink"):
        patch_os(monkeypatch, name, killed_later(getattr(os, name)))
    moved = dataclasses.replace(preset, space=_moved(preset.space), metadata={"seed": 4})
    with contextlib.suppress(KeyboardInterrupt):
        save_preset(folder, moved)
    monkeypatch.undo()
    found = set()
    with contextlib.suppress(FileNotFoundError):
        read = read_preset(folder)
        found = {(read.metadata["seed"], float(read.space.whitening.mean[0]))}
    assert found == {0: {(3, 0.0)}, 4: {(4, 1.0)}}.get(changes, set())


@pytest.mark.integration
def test_the_scatter_of_shapes_comes_back_and_must_fit(tmp_path, preset):
    assert load_preset("aflw-mobilenet-0.5").within_person_covariance is None
    scatter = np.diag(np.arange(1.0, 9))
    save_preset(tmp_path / "good", dataclasses.replace(preset, within_person_covariance=scatter))
    np.testing.assert_array_equal(load_preset(tmp_path / "good").within_person_covariance, scatter)
    save_preset(tmp_path / "bad", dataclasses.replace(preset, within_person_covariance=np.eye(3)))
    with pytest.raises(ValueError, match=r"shape_scatter is \(3, 3\), not \(8, 8\)"):
        load_preset(tmp_path / "bad")


def test_the_weights_take_two_bytes_each(saved):
    preset, folder = saved
    count = preset.branch.count_params()
    assert (folder / WEIGHTS).stat().st_size < 2.4 * count


def test_the_face_model_can_be_handed_over(folder, open_face):
    mine = open_face.replace(name="mine")
    assert load_preset(folder, mine).face_model.name == "mine"


def test_another_face_model_is_read_from_the_folder(folder, open_face, tmp_path):
    """Commands have no option for it."""
    mine = open_face.replace(name="mine", mean=open_face.mean * 1.1)
    preset = load_preset(folder)
    space = ParameterSpace(mine.truncated(8, 4), preset.space.whitening)
    home = tmp_path / "mine"
    save_preset(home, dataclasses.replace(preset, space=space))
    np.testing.assert_array_equal(read_preset(home).face_model.mean, mine.mean)
    (home / "face_model.npz").unlink()
    missing = (
        f"{home / 'face_model.npz'}: no such file; expected the face model 'mine' that the network "
        "was trained with"
    )
    with pytest.raises(FileNotFoundError, match=re.escape(missing)):
        load_preset(home)
    mine.save(home / "face_model.npz")
    np.testing.assert_array_equal(read_preset(home).face_model.mean, mine.mean)
    (home / "face_model.npz").write_text("no model")
    with pytest.raises(ValueError, match=re.escape(str(home / "face_model.npz"))):
        load_preset(home)


def test_a_preset_holds_no_copy_of_the_embedded_face_model(folder, open_face, tmp_path):
    preset = load_preset(folder)
    assert preset.face_model.n_identity == 8 < open_face.n_identity
    assert not (folder / "face_model.npz").exists()
    changed = preset.face_model.replace(mean=open_face.mean * 1.1)  # of the same name
    space = ParameterSpace(changed, preset.space.whitening)
    save_preset(tmp_path / "changed", dataclasses.replace(preset, space=space))
    np.testing.assert_array_equal(read_preset(tmp_path / "changed").face_model.mean, changed.mean)
    save_preset(tmp_path / "changed", preset)  # over a preset of another face model
    assert not (tmp_path / "changed" / "face_model.npz").exists()
    assert load_preset(tmp_path / "changed").face_model.digest == preset.face_model.digest


def test_a_face_model_of_other_shapes_is_refused(folder, open_face):
    other = open_face.replace(mean=open_face.mean + 0.1)
    message = rf"{SETTINGS}: the network was trained with the face model 'open_face' with digest "
    with pytest.raises(ValueError, match=message + ".* here has digest .*: pass the face model"):
        load_preset(folder, other)


def test_a_preset_of_version_0_1_is_refused_only_for_the_open_face_model(folder, open_face):
    settings = json.loads((folder / SETTINGS).read_text())
    assert settings.pop("face_model_digest") == open_face.truncated(8, 4).digest
    (folder / SETTINGS).write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=f"{SETTINGS}: .* of keras_scnn 0.1.*retrain the preset"):
        load_preset(folder)
    assert load_preset(folder, open_face.replace(name="mine")).face_model.name == "mine"


@pytest.mark.parametrize("name", list_presets())
def test_presets_of_the_package_are_for_the_embedded_face_model(name, open_face):
    assert read_preset(name).face_model.digest == open_face.digest


@pytest.mark.parametrize("name", ["mobile", "accurate", "identity"])
def test_the_photos_of_a_calibration_are_those_that_the_card_names(name):
    """``compare`` prints the name, which says to whom the probabilities apply."""
    data = read_preset(name).metadata["verification"]["data"]
    card = (preset_folder(name) / "CARD.md").read_text(encoding="utf8")
    assert re.search(rf"probabilities of `compare`.*\b{data}\b", card, re.DOTALL)


def lora(branch):
    branch.get_layer("parameters").enable_lora(2)


def quantized(branch):
    branch.get_layer("parameters").quantize("int8")


def other_activation(branch):
    branch.get_layer("conv1_relu").negative_slope = 0.1


def other_rate(branch):
    branch.get_layer("conv1_bn").epsilon = 0.1


@pytest.mark.parametrize("change", [lora, quantized, other_activation, other_rate])
def test_networks_that_a_preset_cannot_store_are_refused(preset, tmp_path, change):
    change(preset.branch)
    with pytest.raises(ValueError, match="weight|layer"):
        save_preset(tmp_path / "changed", preset)
    assert not (tmp_path / "changed").exists()


def test_an_appended_layer_is_refused(preset, tmp_path):
    outputs = dict(preset.branch.output)
    outputs["parameters"] = keras.layers.Dropout(0.5)(outputs["parameters"])
    longer = keras.Model(preset.branch.input, outputs, name="branch")
    with pytest.raises(ValueError, match="layers"):
        save_preset(tmp_path / "longer", dataclasses.replace(preset, branch=longer))


@pytest.mark.integration
def test_another_precision_comes_back_in_single(preset, tmp_path):
    before = np.asarray(preset.branch(IMAGE)["parameters"], np.float32)
    for layer in preset.branch.layers:
        layer.trainable = False
        layer.dtype_policy = "mixed_bfloat16"
    save_preset(tmp_path / "half", preset)
    after = load_preset(tmp_path / "half").branch(IMAGE)["parameters"]
    np.testing.assert_allclose(np.asarray(after), before, atol=5e-3)


def test_an_unknown_preset_lists_the_available_ones():
    with pytest.raises(
        FileNotFoundError, match="no preset 'nothing': .*" + ".*".join(list_presets())
    ):
        load_preset("nothing")


def test_another_folder_of_its_name_does_not_hide_a_preset(tmp_path, monkeypatch, folder):
    """As one that ``export mobile --out mobile`` makes; a preset in it comes first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mobile").mkdir()
    assert preset_folder("mobile") == FOLDER / "mobile"
    assert preset_folder("./mobile").resolve() == tmp_path / "mobile"  # a path names itself
    with pytest.raises(ValueError, match="'mobile' must be the path of its folder"):
        check_calibrate("mobile", tmp_path, PEOPLE)
    shutil.copy(folder / SETTINGS, tmp_path / "mobile" / SETTINGS)
    assert preset_folder("mobile").resolve() == tmp_path / "mobile"


@pytest.mark.parametrize("name", ["", "nothing"])
def test_an_empty_or_unknown_name_is_refused(name):
    with pytest.raises(FileNotFoundError, match=f"no preset '{name}'.*or one of: accurate"):
        preset_folder(name)


@pytest.mark.parametrize("name", [SETTINGS, WEIGHTS])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_preset(folder)


def test_damaged_weights_are_refused(folder):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="not a readable .npz file"):
        load_preset(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e5])
def test_weights_that_are_not_numbers_are_refused(saved, preset, tmp_path, value):
    """Also those beyond what half precision holds."""
    first = preset.branch.weights[0]
    first.assign(np.full(first.shape, value))
    with pytest.raises(ValueError, match=f"{first.path} is not finite"):
        save_preset(tmp_path / "preset", preset)
    assert not (tmp_path / "preset" / WEIGHTS).exists()
    arrays = read_npz(saved[1] / WEIGHTS, FORMAT, VERSION)
    arrays[NETWORK + first.path] = np.full(first.shape, np.nan, np.float16)
    shutil.copytree(saved[1], tmp_path / "damaged")
    write_npz(tmp_path / "damaged" / WEIGHTS, FORMAT, VERSION, **arrays)
    with pytest.raises(ValueError, match=f"{first.path} is not finite"):
        load_preset(tmp_path / "damaged")


def test_a_whitening_of_another_length_is_refused(folder, preset):
    short = Whitening(preset.space.whitening.mean[:-1], preset.space.whitening.scale[:-1])
    object.__setattr__(preset.space, "whitening", short)
    save_preset(folder, preset)
    with pytest.raises(ValueError, match="whitening has 23 parameters; face model .* has 24"):
        load_preset(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"version": 99}, "expected keras_scnn.preset 1"),
        ({"format": "other"}, "expected keras_scnn.preset 1"),
        ({"encoder": "vgg"}, "unknown encoder 'vgg'"),
        ({"encoder": "mobilenet_1.0"}, "preset.json and weights.npz fit, or damaged"),
        ({"n_identity": 9}, "preset.json and weights.npz fit, or damaged"),
        ({"n_identity": 900}, "n_identity is 900; it must be a whole number from 0 to "),
        ({"feature_size": 2**31}, "feature_size is 2147483648; it must be a whole number"),
        ({"feature_size": 2.5}, "feature_size is 2.5; it must be a whole number"),
        ({"feature_channels": -1}, "feature_channels is -1; it must be a whole number"),
        ({"input_size": 10**6}, "input_size is 1000000; it must be a whole number"),
        ({"metadata": 3}, "metadata is 3, not a table"),
        ({"base": "mobile"}, "base is mobile, not a table of strings"),
        ({"base": {"preset": "mobile"}}, r"base has \['preset'\]; it needs 'preset' and 'digest'"),
        ({"packaged_recognizers": ["dlib"]}, "packaged_recognizers is .* not a table of strings"),
        ({"packaged_recognizers": {"x": "0"}}, r"has \['x'\], which recognizers does not name"),
    ],
)
def test_settings_that_do_not_fit_are_refused(folder, change, message):
    settings = json.loads((folder / SETTINGS).read_text())
    (folder / SETTINGS).write_text(json.dumps({**settings, **change}))
    with pytest.raises(ValueError, match=message):
        load_preset(folder)


def test_settings_that_are_no_json_are_refused(folder):
    (folder / SETTINGS).write_text("{")
    with pytest.raises(ValueError, match="not the settings of a preset"):
        load_preset(folder)


def test_one_entry_of_the_metadata_changes_and_nothing_else(folder):
    before = json.loads((folder / SETTINGS).read_text())
    write_metadata(folder, "verification", {"a": 1.5})
    after = json.loads((folder / SETTINGS).read_text())
    assert after["metadata"] == {"seed": 3, "verification": {"a": 1.5}}
    assert {**after, "metadata": {"seed": 3}} == before
    assert load_preset(folder).metadata == after["metadata"]


def test_metadata_that_does_not_fit_json_leaves_the_file_alone(folder):
    before = (folder / SETTINGS).read_text()
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        write_metadata(folder, "verification", {"a": np.ones(2)})
    assert (folder / SETTINGS).read_text() == before
    assert sorted(path.name for path in folder.iterdir()) == [SETTINGS, WEIGHTS]


def test_metadata_needs_a_preset_folder_by_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=SETTINGS):
        write_metadata("aflw-mobilenet-0.5", "verification", {})


@pytest.mark.parametrize(
    "make", [lambda: load_preset("mobile"), lambda: build_encoder("mobilenet_0.5", 64)]
)
def test_channels_first_is_named_as_the_cause(make):
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="^Keras is set to image_data_format 'channels_first'"):
            make()
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize(
    "metadata", [{"names": {"a", "b"}}, {"array": np.zeros(2)}, {(1, 2): 3}, {"deep": [object()]}]
)
def test_metadata_that_does_not_fit_json_is_refused_before_anything_is_written(
    tmp_path, preset, metadata
):
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        save_preset(tmp_path / "new", dataclasses.replace(preset, metadata=metadata))
    assert not (tmp_path / "new").exists()


def test_numbers_of_numpy_and_nan_in_metadata_become_those_of_json(tmp_path, preset):
    odd = dict(steps=np.int64(7), error=np.float32(0.5), done=np.bool_(True), best=np.nan)
    odd |= dict(all=(np.float64("inf"), 2), none=None)
    save_preset(tmp_path, dataclasses.replace(preset, metadata=odd))
    expected = dict(steps=7, error=0.5, done=True, best=None, all=[None, 2], none=None)
    assert load_preset(tmp_path).metadata == expected
    assert "NaN" not in (tmp_path / SETTINGS).read_text()

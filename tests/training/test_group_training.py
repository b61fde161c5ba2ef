"""Training on groups, with a teacher: the command, the labels, the recipes."""

import csv
import dataclasses
import shutil

import keras
import numpy as np
import pytest
from tiny_encoder import STAND_IN

from keras_scnn.data.augment import GroupAugmenter
from keras_scnn.data.records import load_records, save_records
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, cached_records
from keras_scnn.face_models import load_face_model
from keras_scnn.models import build_branch, build_encoder, identity_encoder, load_preset
from keras_scnn.models.heads import FINE, GAZE
from keras_scnn.parameters import ParameterLayout
from keras_scnn.settings import configuration, read_yaml
from keras_scnn.train import main, parse
from keras_scnn.training import run as running
from keras_scnn.training.config import CHOICES, TrainConfig
from keras_scnn.training.groups import GroupMode, emphasis, freeze
from keras_scnn.training.recipes import recipe_names, recipe_path
from keras_scnn.training.records import fresh_people
from keras_scnn.training.run import initialize, open_records, set_up, train

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.usefixtures("tiny_encoder", "few_resamples", "eager_steps")

SIZE, PEOPLE, PHOTOS, TEACHER = 32, 8, 4, 3
TINY = dict(
    batches="groups",
    encoder=STAND_IN,
    start="",
    group_people=2,
    group_photos=2,
    single_photos=3,
    held_out=2,
    feature_size=8,
    feature_channels=4,
    embedding_weight=1.0,
    likeness_weight=1.0,
    shape_likeness_weight=1.0,
    depth_weight=0.3,
    teacher_share=0.5,
    augmentation=1.0,
    augment_on="host",
    optimizer="adamw",
    weight_average=0.9,
    warmup=1,
    minutes=0.0,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Renderings of eight people, with an embedding that differs from person to person."""
    folder = tmp_path_factory.mktemp("records")
    config = SyntheticConfig(people=PEOPLE, photos=PHOTOS, size=SIZE)
    records = load_or_render(config, tmp_path_factory.mktemp("cache"))
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(PEOPLE, TEACHER))[records.identity]
    embedding = embedding + 0.1 * rng.normal(size=(len(records), TEACHER))
    embedding[0] = np.nan  # one photo without an embedding
    save_records(
        folder / "one", dataclasses.replace(records, embedding=embedding.astype(np.float32))
    )
    return str(folder / "one")


def load_or_render(config, cache):
    records = cached_records(config, cache)
    arrays = {name: np.asarray(getattr(records, name)) for name in records.arrays()}
    return dataclasses.replace(records, **arrays)


@pytest.fixture(scope="module")
def run(tmp_path_factory, data, tiny_encoder, few_resamples, eager_steps):
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return folder, train(TrainConfig(run=str(folder), data=data, steps=2, **TINY))


def test_a_run_on_groups_ends_with_measures_curves_and_a_preset(run):
    folder, results = run
    assert results.shape.n_faces == 2 * PHOTOS
    with (folder / "curves.csv").open() as file:
        (row,) = csv.DictReader(file)
    names = ("landmarks", "shape", "features", "embedding", "feature_likeness", "shape_likeness")
    for name in (*(f"{n}_loss" for n in names), "shape_size", "shape_explained", "shape_relative"):
        assert np.isfinite(float(row[name])), name
    assert (folder / "curves.png").stat().st_size > 1000
    preset = load_preset(folder)
    assert (preset.feature_channels, preset.feature_size) == (4, 8)


@pytest.mark.integration
def test_steps_in_a_graph_are_the_eager_ones(run, data, tmp_path, monkeypatch, eager_steps):
    monkeypatch.setattr(keras.Model, "compile", eager_steps)
    train(TrainConfig(run=str(tmp_path / "graph"), data=data, steps=2, **TINY))
    rows = []
    for folder in (run[0], tmp_path / "graph"):
        with (folder / "curves.csv").open() as file:
            rows += list(csv.DictReader(file))
    losses = [name for name in rows[0] if name.endswith("loss")]
    assert len(losses) > 6
    for name in losses:
        assert float(rows[1][name]) == pytest.approx(float(rows[0][name]), rel=1e-2), name


@pytest.mark.integration
def test_the_running_mean_of_the_weights_is_saved(run, data, tmp_path):
    """Also when a finished run is opened again: its checkpoint holds the weights themselves."""
    folder, _ = run
    image = np.full((1, SIZE, SIZE, 3), 99, np.float32)
    before = np.asarray(load_preset(folder).branch(image)["parameters"])
    train(TrainConfig(run=str(folder), data=data, steps=2, **TINY))
    after = np.asarray(load_preset(folder).branch(image)["parameters"])
    np.testing.assert_allclose(after, before, atol=1e-3)


@pytest.mark.integration
def test_a_run_may_start_from_a_network_with_an_identity_encoder(tmp_path, data, monkeypatch):
    """The teacher's embedding is predicted from the start, since its layer is solved."""
    monkeypatch.setattr(identity_encoder, "STAGES", {32: 1, 64: 1})
    settings = {**TINY, "feature_channels": 0, "identity_encoder": True}
    first = TrainConfig(run=str(tmp_path / "first"), data=data, steps=1, **settings)
    train(first)
    preset = load_preset(tmp_path / "first")
    assert preset.has_identity_encoder
    second = {"run": str(tmp_path / "second"), "start": first.run, "start_with": "network"}
    train(dataclasses.replace(first, learning_rate=1e-9, weight_average=0.0, **second))
    records = load_records(data)
    images = np.asarray(records.images[:4], np.float32)
    predicted, before = (
        np.asarray(p.branch(images)["features"]) for p in (load_preset(tmp_path / "second"), preset)
    )
    np.testing.assert_allclose(predicted, before, atol=1e-2)  # weights are kept in half precision


def initialized(config):
    """Mode and initialized network of the settings, and the photos to train on."""
    mixture = open_records(config)
    model, seen = mixture.annotated(load_face_model("open_face")), np.arange(1, 6 * PHOTOS)
    mode = GroupMode(config, mixture, model, seen)
    network = mode.build()
    initialize(config, network, mode, seen)
    return mode, network, seen


def test_a_network_may_start_with_its_shape_head_solved_again(data, run):
    """Pose, expression and features stay those of the start."""
    features = {"feature_size": 8}
    start = {"start": str(run[0]), "start_with": "shape", "teacher_share": 0.0}
    config = TrainConfig(data=data, **TINY | features | start)
    mode, network, seen = initialized(config)
    records = mode.mixture.records
    images = np.asarray(records.images[seen], np.float32)
    after, before = network.get_layer("branch")(images), load_preset(run[0]).core(images)
    after, before = (
        one.parameters(np.asarray(out["parameters"])).to_vector()
        for one, out in ((mode.space, after), (load_preset(run[0]).space, before))
    )
    identity = mode.space.layout.identity
    changed = np.abs(after - before).max(axis=0) > 1e-2 * np.abs(before).max(axis=0) + 1e-3
    assert changed[identity].mean() > 0.9
    assert not np.delete(changed, np.r_[identity]).any()
    wanted = records.parameters[seen][:, identity]
    errors = [np.abs(one[:, identity] - wanted).mean() for one in (after, before)]
    assert errors[0] < errors[1]


@pytest.mark.integration
def test_a_feature_of_the_embeddings_size_starts_as_the_embedding(data, run):
    keras.utils.set_random_seed(0)
    config = TrainConfig(data=data, **TINY | {"start": str(run[0]), "feature_size": TEACHER})
    mode, network, seen = initialized(config)
    records = mode.mixture.records
    outputs = network.predict(np.asarray(records.images[seen], np.float32), verbose=0)
    wanted = records.embedding[seen]
    cosines = (outputs["features"] * wanted).sum(axis=1) / np.linalg.norm(wanted, axis=1)
    assert np.median(cosines) > 0.45  # a random layer's is about 0


@pytest.mark.integration
def test_landmarks_of_photos_of_anybody_train_a_network_without_features(tmp_path, data):
    """As the recipe 'landmarks' does: pretrained, no groups, nobody with two photos."""
    records = load_records(data)
    arrays = {name: np.asarray(getattr(records, name)) for name in records.arrays()}
    arrays |= {"identity": np.arange(len(records), dtype=np.int32), "embedding": None}
    save_records(tmp_path / "anybody", dataclasses.replace(records, **arrays))
    values = read_yaml(recipe_path("landmarks"))
    values |= {"pretrain_steps": 1, "steps": 1, "single_photos": 4, "held_out": 8, "warmup": 1}
    values["encoder"] = STAND_IN
    places = {"run": str(tmp_path / "run"), "data": str(tmp_path / "anybody")}
    results = train(configuration(TrainConfig, values | places))
    assert results.shape.n_faces == 8 and results.shape_verification is None
    assert load_preset(tmp_path / "run").feature_size == 0
    assert (tmp_path / "run" / "pretrained.weights.h5").is_file()


@pytest.mark.integration
def test_only_the_expression_head_is_trained(tmp_path, data, run):
    """As the recipe 'expressions' does: pose, identity and features stay exactly the same."""
    start, _ = run
    options = {**TINY, "start": str(start), "start_with": "network", "expression_channels": 4}
    options |= {"trained": "expression", "steps": 3, "run": str(tmp_path / "run"), "data": data}
    train(TrainConfig(**options, opening_weight=2.0))
    before, after = load_preset(start), load_preset(tmp_path / "run")
    images = np.asarray(load_records(data).images[:4], np.float32)
    ours, theirs = (preset.branch.predict(images, verbose=0) for preset in (after, before))
    np.testing.assert_allclose(ours["features"], theirs["features"], atol=1e-6)
    vectors = [
        preset.space.whitening.unwhiten(outputs["parameters"])
        for preset, outputs in ((after, ours), (before, theirs))
    ]
    kept = slice(0, before.layout.expression.start)
    np.testing.assert_allclose(vectors[0][:, kept], vectors[1][:, kept], atol=1e-3)
    changed = np.abs(vectors[0] - vectors[1])[:, before.layout.expression]
    assert changed.max() > 1e-3
    for weight in before.core.weights:
        if not weight.path.startswith("parameters"):
            np.testing.assert_allclose(
                next(w for w in after.core.weights if w.path == weight.path), weight, atol=1e-6
            )


def with_fine_heads():
    encoder, heads = build_encoder("mobilenet_0.5", 64), {"gaze_channels": 3}
    return build_branch(encoder, ParameterLayout(3, 2), 8, expression_channels=4, **heads)


def test_others_trains_all_but_the_heads_for_expression_and_gaze_and_their_input_layers():
    branch = with_fine_heads()
    linear = [branch.get_layer(f"{prefix}linear").output for prefix in (FINE, GAZE)]
    changes = keras.Model(branch.input, linear)
    freeze(branch, "others")
    assert not changes.trainable_weights and branch.trainable_weights
    assert {"parameters", "conv_pw_13", "features_linear"} <= {
        layer.name for layer in branch.layers if layer.trainable
    }


def test_a_gaze_head_is_no_part_of_the_expression_head():
    everything = with_fine_heads()
    freeze(everything, "expression")
    names = {weight.path.split("/")[0] for weight in everything.trainable_weights}
    assert names and all(name.startswith(FINE) for name in names)
    assert not any(name.startswith(GAZE) for name in names)


def test_profiles_are_drawn_more_often_and_frontal_photos_count_1():
    """Linear up to profile_degrees, from which it is profile_emphasis."""
    options = {"profile_emphasis": 3.0, "profile_degrees": 60.0}
    often = emphasis(TrainConfig(batches="groups", **options), np.array([0.0, -30, 45, 60, -90]))
    np.testing.assert_allclose(often, [1, 2, 2.5, 3, 3])


def test_single_photos_of_more_folders_than_there_are_are_refused(tmp_path, data):
    """They were drawn from all, without a word."""
    config = TrainConfig(run=str(tmp_path / "run"), data=str(data), single_data=2, **TINY)
    with pytest.raises(ValueError, match="single_data is 2; there are photos of 1 folder: give"):
        set_up(config)


def test_an_identity_encoder_is_for_groups():
    with pytest.raises(ValueError, match="identity_encoder is for batches of 'groups'"):
        TrainConfig(identity_encoder=True)


def test_the_host_augments_training_batches_and_groups_alone_are_validated(
    tmp_path, data, monkeypatch
):
    """Single photos are of the first folder, whose people have one photo each: for landmarks."""
    records = load_records(data)
    alone = np.arange(len(records), dtype=np.int32)
    save_records(tmp_path / "alone", dataclasses.replace(records, identity=alone))
    folders = f"{tmp_path / 'alone'},{data}"
    config = TrainConfig(run=str(tmp_path / "run"), data=folders, single_data=1, **TINY)
    upright = []

    def note(model, mask, seed):
        upright.append(mask)
        return GroupAugmenter(model, mask, seed)

    monkeypatch.setattr("keras_scnn.training.groups.GroupAugmenter", note)
    run = set_up(config)
    photos = records.images[:]

    def is_a_photo(images):
        return (images[:, None] == photos).all(axis=(2, 3, 4))

    for images, labels in run.mode.stream(run.seen, 0).take(4).as_numpy_iterator():
        assert len(images) == 2 * 2 + 3 and not is_a_photo(images).any()
        first = labels["shape"] < len(records)  # people of the first folder
        np.testing.assert_array_equal(first, [False] * 4 + [True] * 3)
    for images, labels in run.mode.stream(run.unseen, 0, True).take(2).as_numpy_iterator():
        row, photo = np.nonzero(is_a_photo(images))
        np.testing.assert_array_equal(row, range(4))
        assert {*photo} <= {*(run.unseen - len(records))}  # of the second folder
        np.testing.assert_array_equal(len(records) + records.identity[photo], labels["shape"])
    assert upright
    for mask in upright:
        np.testing.assert_array_equal(mask, np.repeat([False, True], len(records)))


@pytest.mark.integration
def test_a_network_can_augment_inside(tmp_path, data):
    settings = {**TINY, "augment_on": "device", "teacher_share": 0.0, "single_photos": 0}
    run = str(tmp_path / "run")
    assert train(TrainConfig(run=run, data=data, steps=1, **settings)).shape.n_faces == 8


@pytest.mark.integration
def test_without_a_teacher_the_losses_that_need_one_are_left_out(tmp_path, data, capsys):
    records = dataclasses.replace(load_records(data), embedding=None)
    save_records(tmp_path / "plain", records)
    config = TrainConfig(run=str(tmp_path / "run"), data=str(tmp_path / "plain"), steps=1, **TINY)
    train(config)
    of_embeddings = "embedding_weight, likeness_weight, shape_likeness_weight, teacher_share"
    assert f"without effect: {of_embeddings}; the photos have no" in capsys.readouterr().out
    with (tmp_path / "run" / "curves.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert "embedding_loss" not in row and "shape_loss" in row


def test_every_recipe_of_the_package_is_a_configuration():
    names = recipe_names()
    assert names == ["expressions", "landmarks", "matching", "open", "paper", "robust"]
    for name in names:
        config = parse(["--recipe", name, "--steps", "7"])
        assert config.steps == 7
    assert parse(["--recipe", "paper"]).contrast == "all"
    with pytest.raises(
        FileNotFoundError,
        match="no recipe 'best'.*; there are " + ", ".join(names),
    ):
        recipe_path("best")


@pytest.mark.integration
def test_the_papers_recipe_trains(tmp_path):
    options = ["--people", "4", "--photos", "3", "--held-out", "2", "--crop-size", "32"]
    options += ["--steps", "1", "--warmup", "1", "--batch-size", "2", "--feature-size", "8"]
    options += ["--encoder", STAND_IN, "--start", ""]
    places = ["--run", str(tmp_path / "run"), "--cache", str(tmp_path)]
    assert main(["--recipe", "paper", *options, *places]) == 0
    layout = ParameterLayout(80, 52)
    assert load_preset(tmp_path / "run").branch.output["parameters"].shape == (None, layout.size)


def test_a_recipe_beside_a_configuration_is_refused(tmp_path, capsys):
    assert main(["--recipe", "paper", "--config", "mine.yaml"]) == 2
    assert "give one of --resume, --config and --recipe" in capsys.readouterr().err


@pytest.mark.parametrize("name", CHOICES)
def test_an_unknown_choice_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=f"{name} is 'zz'; choose from {CHOICES[name][0]}"):
        TrainConfig(**{name: "zz"})


@pytest.mark.parametrize(
    "values, message",
    [
        (dict(contrast_form="neighborhood", margin=1), "is for batches of groups or matching"),
        (
            dict(contrast_form="exponential", margin=1, batches="groups"),
            "'exponential' is for batches of pairs",
        ),
        (
            dict(contrast_form="neighborhood", batches="groups"),
            "'neighborhood' needs a margin above 0, its scale, mm",
        ),
    ],
)
def test_a_form_of_the_contrastive_loss_needs_its_batches_and_margin(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)


def test_trained_others_needs_a_start_that_copies_the_expression_head():
    with pytest.raises(ValueError, match="start_with 'encoder' does not copy"):
        TrainConfig(**TINY | {"start": "mobile", "trained": "others", "expression_channels": 4})


@pytest.mark.integration
def test_trained_others_needs_a_start_with_an_expression_head(data, run):
    start = {"start": str(run[0]), "start_with": "network"}  # a network without an expression head
    config = TrainConfig(**TINY | start, trained="others", expression_channels=4, data=data)
    mixture = open_records(config)
    seen = np.arange(len(mixture.records))
    mode = GroupMode(config, mixture, load_face_model("open_face"), seen)
    with pytest.raises(ValueError, match=r"expression head; the preset '.*' \(start\) has none"):
        initialize(config, mode.build(), mode, seen)


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="needs a margin above 0"):
        TrainConfig(contrast_form="exponential")
    with pytest.raises(ValueError, match="is for batches of 'groups'"):
        TrainConfig(augment_on="host")
    with pytest.raises(ValueError, match="needs expression_channels, and a preset to start"):
        TrainConfig(batches="groups", trained="expression")


@pytest.mark.integration
def test_photos_that_vanish_while_a_run_trains_end_it_with_their_name(tmp_path, data, monkeypatch):
    """No file stays open here, as with data in more than ``MAPS`` files."""
    folder = tmp_path / "records"
    shutil.copytree(data, folder)
    create_variables = running.create_variables

    def vanish(*arguments):
        create_variables(*arguments)
        (folder / "00000.images.npy").unlink()

    monkeypatch.setattr("keras_scnn.data.sharded_images.MAPS", 0)
    monkeypatch.setattr(running, "measure_before", lambda *_: None)
    monkeypatch.setattr(running, "create_variables", vanish)
    config = TrainConfig(run=str(tmp_path / "run"), data=str(folder), steps=2, **TINY)
    with pytest.raises(FileNotFoundError) as caught:
        train(config)
    assert caught.value.filename == str(folder / "00000.images.npy")


@pytest.mark.parametrize("people", [3, 0])
def test_only_groups_are_rendered_for_each_batch(people):
    config = TrainConfig(batches="groups", group_people=people, group_photos=2)
    fresh = fresh_people(config)
    if people:
        assert (fresh.people, fresh.photos, fresh.first_person) == (3, 2, config.people)
    else:  # single photos are of people who are rendered once
        assert fresh is None and config.batch_rows()[0] == (config.single_photos, 1)
    assert fresh_people(dataclasses.replace(config, data="records")) is None

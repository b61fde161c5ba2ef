"""Saved models load after ``import keras_scnn``, in another process, and train on."""

import importlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_scnn
from keras_scnn.losses import (
    WPDC,
    ContrastiveLoss,
    ContrastiveLossLayer,
    EmbeddingDistance,
    ExponentialContrastiveLoss,
    GroupContrastiveLoss,
    IdentityLoss,
    IdentityLossLayer,
    LandmarkDistance,
    NeighborhoodLoss,
    ParameterLoss,
    RelationalLoss,
    SupervisedContrastiveLoss,
    VertexDistance,
    add_loss_layers,
)
from keras_scnn.models import build_branch, build_group, build_siamese
from keras_scnn.models.recognizers.layers import fill_chip_points
from keras_scnn.parameters import ParameterSpace, Whitening
from keras_scnn.training.objectives import SplitLoss
from keras_scnn.training.optimizers import SGD, Adam, KernelAdamW, LossScaleOptimizer

ROOT = Path(__file__).resolve().parents[1]
SIZE, BATCH, EMBEDDING = 16, 4, 5
LOAD = """
import sys
{imports}
import numpy as np
folder, names = sys.argv[1], sys.argv[2:]
assert not [m for m in sys.modules if m.startswith("keras_scnn.")], "imported before it is needed"
for name in names:
    network = keras.saving.load_model(f"{{folder}}/{{name}}.keras")
    network.run_eagerly = True  # faster than tracing, once
    data = dict(np.load(f"{{folder}}/{{name}}.npz", allow_pickle=False))
    inputs, labels, outputs = (
        {{key[2:]: value for key, value in data.items() if key.startswith(kind)}}
        for kind in ("i:", "l:", "o:")
    )
    inputs = inputs if len(inputs) > 1 else inputs["image"]
    predicted = network.predict(inputs, verbose=0)
    for key, value in outputs.items():
        np.testing.assert_allclose(predicted[key], value, atol=1e-4, rtol=1e-4, err_msg=key)
    loss = network.evaluate(inputs, labels or None, verbose=0, batch_size={batch}, return_dict=True)
    np.testing.assert_allclose(loss["loss"], data["loss"], rtol=1e-4)
    network.fit(inputs, labels or None, verbose=0, batch_size={batch})
    assert all(np.isfinite(np.asarray(w)).all() for w in network.trainable_weights)
    print(name)
"""


@pytest.fixture(scope="module")
def space(open_face):
    model = open_face.truncated(4, 3)
    size = 12 + 4 + 3
    mean = np.zeros(size)
    mean[[0, 5, 10]] = [0.1, -0.1, 0.1]
    return ParameterSpace(model, Whitening(mean, np.full(size, 0.1)))


def small_branch(space):
    image = keras.Input((SIZE, SIZE, 3), name="image")
    features = keras.layers.Conv2D(4, 3, 2, activation="relu")(image)
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    return build_branch(keras.Model(image, pooled), space.layout, feature_size=6)


def group(space):
    network = build_group(small_branch(space), space, EMBEDDING, augmentation=1.0, parts=2)
    losses = {
        "parameters": SplitLoss(ParameterLoss(space, 0.02, 0.3), 2, 0.7),
        "landmarks": LandmarkDistance(10.0),
        "shape": GroupContrastiveLoss(),
        "features": SupervisedContrastiveLoss(),
        "embedding": EmbeddingDistance(),
        "feature_likeness": RelationalLoss(),
    }
    network.compile(KernelAdamW(1e-3, 0.1, 0.5, use_ema=True, ema_momentum=0.5), losses)
    person = np.array([0, 0, 1, 1])
    labels = {"shape": person, "features": person}
    return network, labels


def pairs(space):
    network = build_siamese(small_branch_encoder(), space, feature_size=6)
    losses = {
        "parameters_a": WPDC(space),
        "parameters_b": VertexDistance(space),
        "parameter_distance": ContrastiveLoss(margin_quantile=0.5),
        "feature_similarity": IdentityLoss(),
    }
    network.compile(SGD(1e-3, 0.9, nesterov=True), losses)
    return network, dict.fromkeys(("parameter_distance", "feature_similarity"), SAME)


def recognizers(space):
    image = keras.Input((SIZE, SIZE, 3), name="image")
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    branch = build_branch(keras.Model(image, pooled), space.layout, 6, recognizers="dlib+sface")
    fill_chip_points(branch, space)
    network = build_group(branch, space)
    optimizer = LossScaleOptimizer(SGD(1e-3))
    losses = {"landmarks": LandmarkDistance(10.0), "shape": NeighborhoodLoss(2.0)}
    network.compile(optimizer, losses)
    return network, {"shape": np.array([0, 0, 1, 1])}


SAME = np.array([1, 0, 1, 0], np.float32)


def small_branch_encoder():
    image = keras.Input((SIZE, SIZE, 3), name="image")
    features = keras.layers.Conv2D(4, 3, 2, activation="relu")(image)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(features))


def layers(space):
    siamese = build_siamese(small_branch_encoder(), space, feature_size=6)
    losses = {"parameters_a": ParameterLoss(space, 0.02, 0.3)}
    network = add_loss_layers(siamese, losses, {"parameters_a": 0.5})
    same = keras.Input((), name="same")
    outputs = dict(network.output)
    distance, similarity = outputs["parameter_distance"], outputs["feature_similarity"]
    outputs["parameter_distance"] = ContrastiveLossLayer(0.5)(distance, same)
    outputs["feature_similarity"] = IdentityLossLayer(0.1, weight=2.0)(similarity, same)
    network = keras.Model({**network.input, "same": same}, outputs)
    network = add_loss_layers(
        network,
        {"parameter_distance": ExponentialContrastiveLoss(2.0)},
        labels={"parameter_distance": same},
    )
    network.compile(Adam(1e-3))
    return network, {}


def inputs_of(network, rng) -> dict:
    values = {name: rng.uniform(0, 1, (BATCH, *t.shape[1:])) for name, t in network.input.items()}
    for name in values:
        if name.startswith("image"):
            values[name] = (255 * values[name]).astype(np.uint8)
    if "same" in values:
        values["same"] = SAME
    return values


@pytest.fixture(scope="module")
def saved(space, tmp_path_factory):
    """A folder with four networks, and their outputs."""
    folder, rng = tmp_path_factory.mktemp("saved"), np.random.default_rng(0)
    for make in (group, pairs, layers, recognizers):
        keras.utils.set_random_seed(0)
        network, labels = make(space)
        network.run_eagerly = True  # faster than tracing, once
        if not isinstance(network.input, dict):
            inputs = {"image": rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)}
        else:
            inputs = inputs_of(network, rng)
        given = inputs if len(inputs) > 1 else inputs["image"]
        outputs = network.predict(given, verbose=0)
        if make is not layers:
            for name, value in outputs.items():
                label = rng.uniform(0, 1, value.shape).astype(np.float32)
                labels.setdefault(name, label)
            labels = {name: labels[name] for name in network.loss}
            if make is group:
                labels["feature_likeness"] = labels["embedding"]
            if "landmarks" in labels:
                labels["landmarks"] = rng.uniform(0, 1, (BATCH, 68, 4)).astype(np.float32)
        loss = network.evaluate(
            given, labels or None, verbose=0, batch_size=BATCH, return_dict=True
        )
        network.save(folder / f"{make.__name__}.keras")
        named = {f"i:{k}": v for k, v in inputs.items()} | {f"l:{k}": v for k, v in labels.items()}
        named |= {f"o:{k}": v for k, v in outputs.items()}
        np.savez(folder / f"{make.__name__}.npz", loss=loss["loss"], **named)
    return folder


@pytest.mark.integration
@pytest.mark.parametrize(
    "imports", ["import keras_scnn, keras", "import keras, keras_scnn"], ids=["before", "after"]
)
def test_they_load_in_another_process_and_train_on(saved, imports):
    code = LOAD.format(imports=imports, batch=BATCH)
    names = [make.__name__ for make in (group, pairs, layers, recognizers)]
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved), *names],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == names


@pytest.mark.integration
def test_every_registered_layer_and_loss_is_among_them(saved):
    for module in keras_scnn._KERAS_OBJECTS:
        importlib.import_module(f"keras_scnn.{module}")
    known = {n for n in keras.saving.get_custom_objects() if n.startswith("keras_scnn>")}
    listed = {f"keras_scnn>{n}" for names in keras_scnn._KERAS_OBJECTS.values() for n in names}
    assert known == listed
    texts = [zipfile.ZipFile(path).read("config.json").decode() for path in saved.glob("*.keras")]
    used = {name for text in texts for name in registered(json.loads(text))}
    assert known <= used


def test_every_layer_loss_metric_and_optimizer_of_the_package_is_registered():
    kinds = keras.layers.Layer, keras.losses.Loss, keras.metrics.Metric, keras.optimizers.Optimizer
    present = set()
    for path in sorted((ROOT / "keras_scnn").rglob("*.py")):
        if "keras.saving" in (text := path.read_text()) or "(keras." in text:
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            module = importlib.import_module(name.removesuffix(".__init__"))
            for one in vars(module).values():
                if isinstance(one, type) and one.__module__ == module.__name__:
                    is_model = issubclass(one, keras.Model)
                    if issubclass(one, kinds) and not is_model and one.__name__[0] != "_":
                        present.add((name.partition(".")[2], one.__name__))
    listed = {(home, name) for home, names in keras_scnn._KERAS_OBJECTS.items() for name in names}
    assert present == listed


def registered(config) -> set[str]:
    """All registered names in a saved model's nested configuration."""
    if isinstance(config, list):
        return set().union(*map(registered, config))
    if not isinstance(config, dict):
        return set()
    inner = set().union(*map(registered, config.values()))
    return inner | {name for name in [config.get("registered_name")] if name}


def test_a_vertex_distance_of_a_face_model_without_a_name_is_refused_at_saving(
    tiny_face_model, tiny_whitening, tmp_path
):
    space = ParameterSpace(tiny_face_model, tiny_whitening)
    network = build_siamese(small_branch_encoder(), space, feature_size=6)
    network.compile("adam", {"parameters_a": VertexDistance(space)})
    with pytest.raises(ValueError, match=r"load_face_model\('tiny'\) does not return"):
        network.save(tmp_path / "network.keras")

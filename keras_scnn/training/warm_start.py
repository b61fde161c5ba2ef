"""Initialization of a network from another one, or its encoder, and by solving linear heads."""

from __future__ import annotations

import keras
import numpy as np

from keras_scnn.data.labels.identity_labels import ridge_regression
from keras_scnn.data.records import FaceRecords
from keras_scnn.models.heads import FINE, GDC, fine_layers
from keras_scnn.models.identity_encoder import PREFIX
from keras_scnn.models.preset_network import Preset
from keras_scnn.models.presets import read_preset
from keras_scnn.parameters import ParameterSpace, Whitening
from keras_scnn.settings import wrong_type
from keras_scnn.training.config import TrainConfig

HEADS = ("parameters/", GDC, FINE)
KERNEL = "parameters/kernel"
BATCH = 128
HEAD_SAMPLES, SHAPE_SAMPLES = 3000, 9000  # photos for solving a head, or its identity part


def check_start(config: TrainConfig) -> None:
    """Check the preset to start from as far as that is possible without the data.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is damaged, or has another encoder than the network to train.
    """
    encoder = read_preset(config.start).encoder
    if encoder != config.encoder:
        raise ValueError(
            f"start is '{config.start}', whose encoder is {encoder}, but encoder is "
            f"'{config.encoder}'; start from a preset with that encoder, or from none (start '')"
        )


def init_from_preset(
    config: TrainConfig,
    network: keras.Model,
    source: Preset,
    records: FaceRecords,
    seen: np.ndarray,
    space: ParameterSpace,
) -> None:
    """Initialize a network from the preset that the settings start from.

    Args:
        config: ``start_with`` decides what is copied.
        network: of ``build_siamese`` or ``build_group``.
        source: the preset.
        records: photos and labels of the run.
        seen: positions of the photos to train on.
        space: of the network's parameters.

    Raises:
        ValueError: the two networks differ.
    """
    branch = network.get_layer("branch")
    if config.trained == "others" and not source.expression_channels:
        raise ValueError(
            f"trained is 'others', which needs an expression head; the preset '{config.start}' "
            "(start) has none"
        )
    chosen = head_samples(config, seen)
    images, labels = records.images[chosen], space.whiten(records.parameters[chosen])
    if config.start_with == "encoder":
        copy_encoder(branch, source.core)
        solve_dense(branch, branch.get_layer("parameters"), images, labels)
    elif config.start_with == "joined":
        join_recognizer(branch, source, space.whitening, config.recognizer)
    else:
        copy_network(branch, source, space.whitening)
    if config.start_with == "shape":
        identity, head = space.layout.identity, branch.get_layer("parameters")
        solve_dense(branch, head, images, labels[:, identity], columns=identity)
    if "embedding" in network.output:
        _solve_embedding(config, network, records, chosen)


def head_samples(config: TrainConfig, seen: np.ndarray) -> np.ndarray:
    """Positions of some of the photos to train on, (M,) ascending, from which heads are solved."""
    count = SHAPE_SAMPLES if config.start_with == "shape" else HEAD_SAMPLES
    return np.sort(np.random.default_rng(config.seed).permutation(seen)[:count])


def _solve_embedding(config, network: keras.Model, records: FaceRecords, chosen) -> None:
    """Solve the layer that regresses the recognizer's embedding: with random weights it would spoil
    features that are already good."""
    assert records.embedding is not None  # the network has an embedding output
    known = chosen[np.isfinite(records.embedding[chosen]).all(axis=1)]
    images, embedding = records.images[known], records.embedding[known]
    if config.start_with == "encoder" and config.feature_size == embedding.shape[1]:
        branch = network.get_layer("branch")
        solve_dense(branch, branch.get_layer("features_linear"), images, embedding)
    solve_dense(network, network.get_layer("embedding"), images, embedding)


def copy_encoder(branch: keras.Model, source: keras.Model) -> None:
    """Copy the encoder of another branch; the heads stay as they are.

    So does an identity encoder if the other branch has none.

    Raises:
        ValueError: one is no network, or the two encoders differ.
    """
    for name, model in (("branch", branch), ("source", source)):
        if not isinstance(model, keras.Model):
            raise wrong_type(name, model, "a network, such as load_preset(name).core")
    lone = not any(w.path.startswith(PREFIX) for w in source.weights)
    kept = (*HEADS, PREFIX) if lone else HEADS
    mine, theirs = (
        {w.path: w for w in model.weights if not w.path.startswith(kept)}
        for model in (branch, source)
    )
    if {p: w.shape for p, w in mine.items()} != {p: w.shape for p, w in theirs.items()}:
        raise ValueError(
            "the network to start from and the one to train have different encoders; start from "
            "another preset, or from none"
        )
    for path, weight in mine.items():
        weight.assign(theirs[path])


def copy_network(branch: keras.Model, source: Preset, whitening: Whitening) -> None:
    """Copy all of a preset's network; the parameter head is converted to the branch's whitening.

    A branch with a joint, expression or gaze head may start from a preset without one.

    Raises:
        ValueError: the two networks differ.
    """
    theirs = {weight.path: weight for weight in source.core.weights}
    added = {w.path for w in branch.weights if w.path.startswith(FINE)} - set(theirs)
    mine = {w.path: w for w in branch.weights if w.path not in added}
    joins = any(layer.name == "both_heads" for layer in branch.layers) and not source.has_joint_head
    ours, others = (
        {p: w.shape for p, w in weights.items() if not (joins and p == KERNEL)}
        for weights in (mine, theirs)
    )
    if ours != others:
        raise ValueError(
            "the network to start from differs from the one to train: its encoder, heads and face "
            "model must be the same (it has expression_channels "
            f"{source.expression_channels}, gaze_channels {source.gaze_channels}); or copy only "
            "the encoder (start_with 'encoder')"
        )
    for path, weight in mine.items():
        value = np.asarray(theirs[path])
        missing = weight.shape[0] - len(value)  # new inputs have no effect at first
        weight.assign(np.concatenate([value, np.zeros((missing, *value.shape[1:]))]))
    _set_whitened(branch, branch.get_layer("parameters").get_weights(), source, whitening)


def _set_whitened(branch: keras.Model, weights, source: Preset, whitening: Whitening) -> None:
    """Set the parameter head to weights for a preset's whitening, converted to another one.

    The outputs of an expression head and of a gaze head are rescaled in the same way.
    """
    old, (kernel, bias) = source.space.whitening, (np.float64(weight) for weight in weights)
    scale = old.scale / whitening.scale
    branch.get_layer("parameters").set_weights(
        [kernel * scale, whitening.whiten(old.unwhiten(bias))]
    )
    own = scale[source.space.layout.expression]
    for fine in fine_layers(source.core):
        ours = branch.get_layer(fine.name)
        ours.set_weights([np.float64(weight) * own for weight in ours.get_weights()])


def join_recognizer(
    branch: keras.Model, source: Preset, whitening: Whitening, recognizer: str = ""
) -> None:
    """Copy a preset's network, and the recognizer's weights into the identity encoder.

    At first the parameters are the preset's, and the feature is nearly the recognizer's embedding;
    training combines the two encoders.

    Args:
        branch: with an identity encoder, and a feature as long as the recognizer's embedding.
        source: a preset without identity encoder.
        whitening: of the branch's parameters.
        recognizer: see ``read_recognizer``, whose errors are raised.

    Raises:
        ValueError: the encoders differ, the feature is of another length, or the preset has an
            identity encoder, a joint head, an expression head or a gaze head.
    """
    from keras_scnn.models.recognizers.dlib import read_recognizer
    from keras_scnn.models.recognizers.dlib_file import fill_identity_encoder

    convolutions, linear = read_recognizer(recognizer)
    units = branch.get_layer("features_linear").units
    if units != linear.shape[1]:
        raise ValueError(f"feature_size is {units}; the recognizer's is {linear.shape[1]}")
    if source.has_identity_encoder:
        raise ValueError(
            "the preset to start from has an identity encoder; give start_with 'network'"
        )
    if source.has_joint_head:
        raise ValueError(
            "the preset to start from has a joint head, which start_with 'joined' does not copy; "
            "give a preset without one"
        )
    if source.expression_channels or source.gaze_channels:
        raise ValueError(
            "the preset to start from has a head for expression or gaze, which start_with 'joined' "
            "does not copy; give a preset without one"
        )
    copy_encoder(branch, source.core)
    kernel, bias = source.core.get_layer("parameters").get_weights()
    width = branch.get_layer("parameters").kernel.shape[0] - len(kernel)
    kernel = np.vstack([kernel, np.zeros((width, kernel.shape[1]))])
    _set_whitened(branch, [kernel, bias], source, whitening)
    fill_identity_encoder(branch, convolutions, linear)


def solve_dense(
    model: keras.Model,
    layer: keras.layers.Dense,
    images: np.ndarray,
    targets: np.ndarray,
    ridge: float = 1e-2,
    columns: slice = slice(None),
) -> None:
    """Set a linear layer of a model to the ridge regression of targets on the layer's input.

    Args:
        model: with one image input.
        layer: one of its layers.
        images: (M, S, S, 3) uint8 RGB, a few thousand.
        targets: (M, C) for the C units in ``columns``.
        ridge: penalty, relative to the mean variance of the layer's input.
        columns: units to set; the others stay as they are.
    """
    features = keras.Model(model.input, layer.input)
    x = features.predict(images, batch_size=BATCH, verbose=0).astype(np.float64)
    kernel, bias = (np.array(weight) for weight in layer.get_weights())
    kernel[:, columns], bias[columns] = ridge_regression(x, targets, ridge)
    layer.set_weights([kernel, bias])

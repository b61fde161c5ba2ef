"""Give a preset's network an identity encoder that starts from dlib's face recognizer.

    python tools/join_recognizer.py mobile --out START
    python -m keras_scnn.train --recipe robust --identity-encoder true --feature-size 128 \
        --feature-channels 0 --start START --start-with network --learning-rate 3e-4 ...

What the joined network says of a face is at first what the preset said, and its feature is nearly
dlib's; training brings the two encoders together. Needs the extra ``teacher``, for dlib's weights.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import keras
import numpy as np

from keras_scnn.data.labels.recognizer import EMBEDDING_SIZE, weights_path
from keras_scnn.models import Preset, build_branch, build_encoder, load_preset, save_preset
from keras_scnn.models.encoders import PREFIX
from keras_scnn.training.warm_start import HEADS

LEAST_VALUES = 32  # of a tensor; smaller ones hold the layers' settings
LARGEST = 1e4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    tensors = read_tensors(weights_path().read_bytes())
    joined = join(load_preset(args.preset))
    fill_identity_encoder(joined.branch, *split_layers(tensors))
    save_preset(args.out, joined)
    print(f"written: {args.out}")


def join(preset: Preset) -> Preset:
    """A preset that says the same parameters, with an identity encoder, yet random, beside."""
    encoder, source = build_encoder(preset.encoder, preset.input_size), preset.core
    branch = build_branch(encoder, preset.layout, EMBEDDING_SIZE, identity_encoder=True)
    known = {weight.path: weight for weight in source.weights}
    for weight in branch.weights:
        if not weight.path.startswith((*HEADS, PREFIX)):
            weight.assign(known[weight.path])
    kernel, bias = source.get_layer("parameters").get_weights()
    head = branch.get_layer("parameters")
    nothing = np.zeros((head.kernel.shape[0] - len(kernel), kernel.shape[1]))
    head.set_weights([np.vstack([kernel, nothing]), bias])
    return dataclasses.replace(preset, branch=branch)


def fill_identity_encoder(
    branch: keras.Model, convolutions: list[tuple[np.ndarray, np.ndarray]], linear: np.ndarray
) -> None:
    """Set the weights of an identity encoder and of the feature that it ends in.

    Args:
        branch: with an identity encoder.
        convolutions: (h, w, in, out) kernels and (out,) biases in the order of the layers; more
            than the encoder has are left alone.
        linear: (256, F) from the encoder's output to the feature.
    """
    given = iter(convolutions)
    for layer in branch.layers:
        if not layer.name.startswith(PREFIX) or not isinstance(layer, keras.layers.Conv2D):
            continue
        if layer.use_bias:
            layer.set_weights(next(given))
        else:  # a shortcut: the channels as they are, and zeros for the new ones
            layer.set_weights([np.eye(*layer.kernel.shape[2:])[None, None]])
    branch.get_layer("features_linear").set_weights([linear, np.zeros(linear.shape[1])])


def split_layers(
    tensors: list[np.ndarray],
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """The layers of dlib's recognizer, each convolution with the scaling that follows folded in.

    Args:
        tensors: convolution (kernel out x in x h x w, then bias) and scaling (factors, then
            offsets) in turn, at last the linear layer.

    Returns:
        Convolutions and linear layer as in ``fill_identity_encoder``.
    """
    found, channels = [], 3
    for convolution, scaling in zip(tensors[:-1:2], tensors[1:-1:2], strict=True):
        factor, offset = np.split(scaling, 2)
        kernel, bias = np.split(convolution, [-len(factor)])
        side = round((kernel.size / len(factor) / channels) ** 0.5)
        kernel = kernel.reshape(len(factor), channels, side, side).transpose(2, 3, 1, 0)
        found.append((kernel * factor, bias * factor + offset))
        channels = len(factor)
    return found, tensors[-1].reshape(channels, -1)


def read_tensors(content: bytes) -> list[np.ndarray]:
    """The tensors of a network that dlib has written (dlib/cuda/tensor.h, version 2), flat.

    A tensor is the version, four sizes, and the values as 4-byte floats. The settings of the layers
    between are skipped: they hold no tensor of ``LEAST_VALUES`` or more.

    Raises:
        ValueError: there is no tensor.
    """
    tensors, place = [], content.find(b"\x01\x02")
    while place >= 0:
        start, sizes = place, []
        for _ in range(5):
            value, start = _read_integer(content, start)
            sizes.append(value)
        count = int(np.prod(sizes[1:], dtype=object))
        if min(sizes) > 0 and count >= LEAST_VALUES and start + 4 * count <= len(content):
            values = np.frombuffer(content, "<f4", count, start)
            if (abs(values) < LARGEST).all():  # else the two bytes were part of something else
                tensors.append(values)
                place = start + 4 * count - 1
        place = content.find(b"\x01\x02", place + 1)
    if not tensors:
        raise ValueError("no tensor found; expected a network written by dlib")
    return tensors


def _read_integer(content: bytes, place: int) -> tuple[int, int]:
    """A number, 0 where there is none, and what follows: a byte of its length, then the bytes."""
    length = content[place] if place < len(content) else 0
    if not 1 <= length <= 8:
        return 0, place + 1
    after = place + 1 + length
    return int.from_bytes(content[place + 1 : after], "little"), after


if __name__ == "__main__":
    main()

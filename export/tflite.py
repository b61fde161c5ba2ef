"""TFLite (LiteRT) files: one crop in, static batch, in four precisions.

Heads and decoding always compute in float. The backbone is quantized op by op with
ai-edge-quantizer, whose recipes select ops by the names of their outputs.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import warnings
from collections.abc import Callable

import keras
import numpy as np

from keras_scnn.export.exported_model import build_exported_model, check_backend, save_module
from keras_scnn.export.formats import check_names
from keras_scnn.export.metadata import build_metadata
from keras_scnn.models import Preset
from keras_scnn.models.heads import FINE, GDC
from keras_scnn.models.identity_encoder import PREFIX
from keras_scnn.storage import atomic_path
from keras_scnn.storage.atomic import staged_folder
from keras_scnn.storage.tflite import with_metadata

SIGNATURE = "reconstruct"
# Tensor names of the encoders and of the feature head. All other heads compute in float.
BACKBONE = rf"^(flip_averaged\w*/)?branch\w*/(?!parameters|features|{FINE})({PREFIX})?"
FEATURE_HEAD = rf"^(flip_averaged\w*/)?branch\w*/{GDC}"
FLOAT_CONVOLUTIONS = 3  # number of last convolutions whose outputs stay float in 'int8' files


def write_tflite(
    path: str | os.PathLike,
    preset: Preset,
    quantize: str = "float32",
    vertices: bool = False,
    calibration: np.ndarray | None = None,
    name: str = "preset",
    card: str = "",
    converted: bytes | None = None,
) -> None:
    """Write a preset's network as a .tflite file, atomically.

    Args:
        path: the file.
        preset: the trained network.
        quantize: 'float32'; 'float16' (weights in half precision, computed in float); 'dynamic'
            (the backbone's weights in 8 bits, the rest as in float16); 'int8' (also the backbone's
            activations, except in its last layers).
        vertices: also output all vertices, which adds the face model's basis to the file.
        calibration: (M, S, S, 3) uint8 RGB, typical crops; for 'int8' only.
        name, card: of the preset, for the metadata.
        converted: the result of ``convert_preset``, if it has already been called.

    Raises:
        ValueError: unknown precision, missing or unsuitable calibration crops, or Keras does not
            run on TensorFlow.
        ImportError: ai-edge-quantizer is needed but not installed.
    """
    check_names("tflite", quantize)
    crops = _checked(calibration, preset.input_size) if quantize == "int8" else None
    if quantize != "float32":
        check_quantizer()
    content = converted or convert_preset(preset, vertices)
    if quantize != "float32":
        content = _quantized(content, quantize, crops)
    metadata = build_metadata(preset, name, quantize, vertices, card)
    with atomic_path(path) as temporary:
        temporary.write_bytes(with_metadata(content, metadata))


def convert_preset(preset: Preset, vertices: bool = False) -> bytes:
    """The network in float32 without metadata, from which files of all precisions are made.

    Args:
        preset: the trained network.
        vertices: also output all vertices.
    """
    return convert(build_exported_model(preset, vertices, batch_size=1))


def constant_function(model: keras.Model) -> Callable:
    """A tf.function of ``image`` with the model's weights as constants.

    A converter can fold constants, including batch normalization and whitening, but would not
    freeze Keras variables. Raises a ValueError if Keras does not run on TensorFlow.
    """
    check_backend()
    import tensorflow as tf

    trained = [weight.numpy() for weight in model.trainable_variables]
    others = [weight.numpy() for weight in model.non_trainable_variables]

    def call(image):
        weights = [[tf.constant(array) for array in arrays] for arrays in (trained, others)]
        return model.stateless_call(*weights, image, training=False)[0]

    specification = tf.TensorSpec(model.input_shape, tf.uint8, name="image")
    return tf.function(call, input_signature=[specification], autograph=False)


def convert(model: keras.Model, quantize: str = "float32", signature: str = SIGNATURE) -> bytes:
    """A .tflite file's bytes; errors as ``write_tflite``, and a ValueError for 'int8'.

    Args:
        model: from ``image``, uint8 of a fixed shape, to a dictionary.
        quantize: 'float32', 'float16' or 'dynamic'; ops are selected by the names of the branch's
            layers.
        signature: name of the file's only signature.
    """
    check_names("tflite", quantize)
    if quantize == "int8":
        raise ValueError("int8 needs calibration crops, which write_tflite takes")
    import tensorflow as tf

    with staged_folder() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_module(tf.Module(), folder, {signature: constant_function(model)})
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(folder), signature_keys=[signature]
        )
        content = converter.convert()
    return content if quantize == "float32" else _quantized(content, quantize)


def _checked(crops: np.ndarray | None, size: int) -> np.ndarray:
    if crops is None or not len(crops):
        raise ValueError("int8 needs calibration crops, (M, S, S, 3) uint8")
    if crops.shape[1:] != (size, size, 3) or crops.dtype != np.uint8:
        raise ValueError(
            f"calibration crops have the shape {crops.shape} and dtype {crops.dtype}; "
            f"expected (M, {size}, {size}, 3) uint8"
        )
    return crops


def check_quantizer() -> None:
    """Raise an ImportError that says what to install if ai-edge-quantizer is missing."""
    try:
        import ai_edge_quantizer.quantizer  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "all precisions but float32 need ai-edge-quantizer: pip install '.[quantize]'"
        ) from error


def _quantized(content: bytes, quantize: str, crops: np.ndarray | None = None) -> bytes:
    from ai_edge_quantizer.quantizer import Quantizer

    quantizer, statistics = Quantizer(bytearray(content), _recipe(content, quantize)), None
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # progress bars
        warnings.simplefilter("ignore")  # about keeping all tensors, which is intended
        if crops is not None:
            samples = [{"image": crop[None]} for crop in crops]
            statistics = quantizer.calibrate({SIGNATURE: samples}, num_threads=1)
        done = quantizer.quantize(statistics, enable_progress_report=False)
    return bytes(done.quantized_model)


def _recipe(content: bytes, quantize: str) -> list[dict]:
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName as Op
    from ai_edge_quantizer.recipe_manager import RecipeManager

    recipe = RecipeManager()
    half, untouched = AlgorithmName.FLOAT_CASTING, AlgorithmName.NO_QUANTIZE
    for kind in (Op.FULLY_CONNECTED, Op.CONV_2D, Op.DEPTHWISE_CONV_2D):
        recipe.add_weight_only_config(".*", kind, 16, algorithm_key=half)
    if quantize in ("dynamic", "int8"):
        recipe.add_dynamic_config(FEATURE_HEAD, Op.CONV_2D, 8)
        recipe.add_dynamic_config(FEATURE_HEAD, Op.FULLY_CONNECTED, 8)
    if quantize == "dynamic":
        recipe.add_dynamic_config(BACKBONE, Op.CONV_2D, 8)
        recipe.add_weight_only_config(BACKBONE, Op.DEPTHWISE_CONV_2D, 8)
    elif quantize == "int8":
        recipe.add_static_config(BACKBONE, Op.ALL_SUPPORTED, 8, 8)
        # Errors in the last layers directly affect the pose: 8-bit activations there would cause
        # two thirds of the drift and, for so few pixels, save no time.
        tail = "|".join(re.escape(name) for name in _tail(content))
        recipe.add_quantization_config(tail, Op.ALL_SUPPORTED, algorithm_key=untouched)
        recipe.add_dynamic_config(tail, Op.CONV_2D, 8)
        recipe.add_weight_only_config(tail, Op.DEPTHWISE_CONV_2D, 8)
    return recipe.get_quantization_recipe()


def _tail(content: bytes) -> list[str]:
    """Output names of each backbone's last ops, with ``FLOAT_CONVOLUTIONS`` convolutions."""
    from ai_edge_litert.tools.flatbuffer_utils import BuiltinOperator, read_model_from_bytearray

    model = read_model_from_bytearray(bytearray(content))
    graph, codes = model.subgraphs[0], [code.builtinCode for code in model.operatorCodes]
    backbones: dict[str, list] = {}  # one, or two in a flip-averaged network
    for operation in graph.operators:
        name = graph.tensors[operation.outputs[0]].name.decode()
        if match := re.search(BACKBONE, name):
            backbones.setdefault(match[0], []).append((codes[operation.opcodeIndex], name))
    tail = []
    for backbone in backbones.values():
        dense = [i for i, (code, _) in enumerate(backbone) if code == BuiltinOperator.CONV_2D]
        first = min(dense[-FLOAT_CONVOLUTIONS:], default=0)  # an own encoder may have fewer
        tail += [name for _, name in backbone[first:]]
    return tail

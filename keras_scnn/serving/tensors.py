"""Conversion between tensors of the v2 protocol, as JSON or raw bytes, and arrays."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_scnn.serving.predictor import Outputs

DATATYPES = {"float32": "FP32", "int32": "INT32"}
# Outputs that only photos without boxes have.
FOUND_FACE_TYPES = [
    {"name": "photo_index", "datatype": "INT32", "shape": [-1]},
    {"name": "box", "datatype": "FP32", "shape": [-1, 4]},
    {"name": "score", "datatype": "FP32", "shape": [-1]},
]
LENGTH, SIZE = "inference-header-content-length", "binary_data_size"
# By the kind of a datatype: NumPy's kinds that JSON's values may have, and what errors call them.
# NumPy alone would truncate fractions, and parse numbers from text.
KINDS = {"u": ("iu", "whole numbers"), "i": ("iu", "whole numbers"), "f": ("iuf", "numbers")}


def read_tensor(tensor: Any) -> np.ndarray:
    """The array of a ``kserve`` input tensor, whose data in JSON may be flat or nested.

    Raises:
        ValueError: the data does not match the tensor's datatype and shape.
    """
    from kserve.utils.numpy_codec import to_np_dtype

    name = f"input {tensor.name}"
    if min(tensor.shape, default=0) < 0:
        raise ValueError(f"{name}: the shape is {tensor.shape}")
    if (dtype := to_np_dtype(tensor.datatype)) is None:
        known = "image is UINT8, photo BYTES and box FP32"
        raise ValueError(f"{name}: unknown datatype {tensor.datatype!r}; {known}")
    try:
        if tensor.data:  # else there are raw bytes, or nothing
            kinds, numbers = KINDS.get(np.dtype(dtype).kind, ("", ""))
            if kinds and np.array(tensor.data).dtype.kind not in kinds:
                raise ValueError(f"{tensor.datatype} needs {numbers}")
        return tensor.as_numpy()
    except struct.error as error:
        form = "a length in 4 bytes, little-endian, and as many bytes"
        raise ValueError(f"{name}: raw BYTES are {form}; a photo is base64 text") from error
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def read_binary(body: bytes, length: str | None, model: str) -> Any:
    """A ``kserve`` request from a body of JSON followed by raw bytes of tensors.

    Args:
        body: of the request.
        length: of its JSON, from the header; None: there was no such header.
        model: its name.

    Raises:
        InvalidInput: there is no JSON, or its sizes do not match the body.
    """
    from kserve.errors import InvalidInput

    if length is None:
        raise InvalidInput(
            "the body must be JSON, with Content-Type: application/json, or JSON and raw bytes, "
            "with the length of that JSON in the header Inference-Header-Content-Length"
        )
    if not (length.isascii() and length.isdigit() and int(length[:16]) <= len(body)):
        size = f"the body has {len(body):,} bytes"
        raise InvalidInput(f"Inference-Header-Content-Length is {length[:16]}; {size}")
    request = _head(body[: int(length)], model)
    at = int(length)
    for tensor in (one for one in request.inputs if one.data is None):
        size, left = tensor.parameters[SIZE], len(body) - at
        if type(size) is not int or not 0 <= size <= left:
            why = f"{SIZE} is {size!r}, and {left:,} bytes are left"
            raise InvalidInput(f"input {tensor.name}: {why}")
        tensor._raw_data = body[at : at + size]
        at += size
    if at < len(body):
        raise InvalidInput(f"{len(body) - at:,} bytes come after those of the inputs")
    return request


def _head(text: bytes, model: str) -> Any:
    """The request that JSON describes; ``data`` of tensors sent as raw bytes is None."""
    from kserve import InferRequest
    from kserve.errors import InvalidInput
    from kserve.protocol.rest.v2_datamodels import InferenceRequest

    head = json.loads(text)
    inputs = head.get("inputs") if isinstance(head, dict) else None
    raw = [i for i, one in enumerate(inputs if isinstance(inputs, list) else []) if _is_raw(one)]
    for i in raw:
        head["inputs"][i]["data"] = []  # KServe's schema requires some
    try:
        form = InferenceRequest.model_validate(head)
    except ValueError as error:  # pydantic's
        raise InvalidInput(wrong_form(error.errors())) from error  # type: ignore[attr-defined]
    request = InferRequest.from_inference_request(form, model)
    for i in raw:
        request.inputs[i].data = None
    return request


def _is_raw(tensor: Any) -> bool:
    parameters = tensor.get("parameters") if isinstance(tensor, dict) else None
    return isinstance(parameters, dict) and "data" not in tensor and SIZE in parameters


def wrong_form(errors: Sequence[Mapping[str, Any]]) -> str:
    """A message on what is wrong with a request, from pydantic's list of errors."""
    lines = []
    for one in errors:
        place = [str(part) for part in one["loc"] if part not in ("body", "InferenceRequest")]
        if place != ["bytes"]:  # skip the error that a JSON body is not bytes
            lines.append(": ".join(filter(None, (".".join(place), one["msg"]))))
    return "; ".join(lines[:3])


def infer_response(request: Any, outputs: Outputs, number: str, version: str | None) -> Any:
    """A ``kserve`` response; outputs are raw bytes if the request asks for that.

    Args:
        request: of ``kserve``.
        outputs: to return, in this order.
        number: ID of the response.
        version: of the model.
    """
    from kserve import InferOutput, InferResponse
    from kserve.protocol.infer_type import RequestedOutput

    wanted = {one.name: one.binary_data for one in request.request_outputs or []}
    tensors, forms = [], []
    for name, value in outputs.items():
        tensors.append(InferOutput(name, list(value.shape), DATATYPES[value.dtype.name], value))
        is_raw = wanted.get(name)
        is_raw = request.use_binary_outputs if is_raw is None else is_raw
        forms.append(RequestedOutput(name, {"binary_data": is_raw is True}))
    return InferResponse(number, request.model_name, tensors, version, requested_outputs=forms)

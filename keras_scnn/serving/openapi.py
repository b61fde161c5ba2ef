"""The content of ``/docs``: the two ways to send a photo, beside KServe's other addresses."""

from __future__ import annotations

from typing import Any

from keras_scnn.serving.gate import CLOSED

PHOTOS = ("image/jpeg", "image/png", "image/webp")
ABOUT = "3D faces of photos. Units, outputs and limits: docs/serving.md of keras_scnn."
EXAMPLE = {"instances": [{"b64": "/9j/4AAQ...", "box": [150, 20, 300, 170]}]}
V2_EXAMPLE = {
    "inputs": [{"name": "photo", "shape": [1], "datatype": "BYTES", "data": ["/9j/4AAQ..."]}]
}
WRONG, MALFORMED = "The request is wrong", "The JSON is malformed"
# By protocol and status: what the status is for, and an error.
ERRORS = {
    "v1": {"400": (WRONG, "instances[0]: not a readable image (of no known format, or damaged)")},
    "v2": {
        "400": (WRONG, "2 inputs; give 'image', or 'photo' and 'box'"),
        "422": (MALFORMED, "inputs.0.data: Field required"),
    },
}


def describe_bodies(app: Any, name: str) -> None:
    """Complete a FastAPI application's schema with the bodies that it accepts.

    Args:
        app: with KServe's routes.
        name: of the model.
    """
    plain = app.openapi

    def openapi() -> dict:
        if app.openapi_schema is None:
            _complete(plain(), name)
        return app.openapi_schema

    app.openapi = openapi


def _complete(schema: dict, name: str) -> None:
    """Remove what is closed or not supported; add the forms of bodies, and the model's name."""
    paths = schema["paths"]
    for path in list(paths):
        if path.startswith(CLOSED) or path.endswith(":explain") or "/versions/" in path:
            del paths[path]
    binary = {"schema": {"type": "string", "format": "binary"}}
    form = {"schema": {"$ref": "#/components/schemas/InferenceRequest"}, "example": V2_EXAMPLE}
    predict = {"application/json": {"schema": {"type": "object"}, "example": EXAMPLE}}
    infer = {"application/json": form, "application/octet-stream": binary}
    operations = [one for methods in paths.values() for one in methods.values()]
    for one in operations:
        one["responses"].pop("422", None)  # FastAPI's, in another form
    for path, content, errors in (
        ("/v1/models/{model_name}:predict", predict | dict.fromkeys(PHOTOS, binary), "v1"),
        ("/v2/models/{model_name}/infer", infer, "v2"),
    ):
        post = paths[path]["post"]
        post["requestBody"] = {"required": True, "content": content}
        for status, (what, example) in ERRORS[errors].items():
            error = {"schema": {"type": "object", "example": {"error": example}}}
            answer = {"description": what, "content": {"application/json": error}}
            post["responses"][status] = answer
    for unused in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(unused, None)
    for parameters in (one["parameters"] for one in operations if "parameters" in one):
        # KServe answers every request for a version with 501.
        parameters[:] = [one for one in parameters if one["name"] != "model_version"]
        for parameter in parameters:
            if parameter["name"] == "model_name":
                parameter["example"] = name

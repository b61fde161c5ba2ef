"""Make comparisons.json: the answers of Python and the browser page to a pair's measured values.

    python tests/golden/make_comparisons.py

The expected probabilities come from the logistic function written out with ``math.exp``, the
expected words from the table of this script; neither comes from the project's code.
"""

import json
import math
from pathlib import Path

TABLE = Path(__file__).with_name("comparisons.json")
SHAPE = {"a": -8.75, "b": 3.375}
SCALED = {"a": -1.0625, "b": 7.75}
FEATURE = {"a": 10.5, "b": -2.8125}
BOTH = {"a": [-0.5, 7.25], "b": 1.6875}
ALL = {"shape": SHAPE, "scaled_shape": SCALED, "feature": FEATURE, "both": BOTH}
COUNTS = {"pairs": 2000, "people": 10, "data": "somebody's photos"}  # say nothing of a pair
NO_SHAPE = "features; the calibration gives the shape no weight"
# name: calibration, (distance_mm, scaled_distance, cosine, certainty), the answer's kind and its
# words; a certainty that is left out is 1
PAIRS = {
    "one person by all that there is": (
        ALL | COUNTS,
        (0.33, 5.1, 0.81),
        "both",
        "shape and features",
    ),
    "two people whose plain distance is small": (
        ALL,
        (0.33, 9.8, 0.33),
        "both",
        "shape and features",
    ),
    "one person at a large plain distance": (ALL, (0.65, 5.9, 0.78), "both", "shape and features"),
    "a shape that has no weight": (
        ALL | {"both": {"a": [0, 8.5], "b": -2.25}},
        (0.5, 6.5, 0.4),
        "both",
        NO_SHAPE,
    ),
    "features that have no weight": (
        ALL | {"both": {"a": [-0.75, 0], "b": 4.5}},
        (0.5, 6.5, 0.4),
        "both",
        "shape; the calibration gives the features no weight",
    ),
    "nothing that has a weight": (
        {"both": {"a": [0, 0], "b": 0.25}},
        (0.5, None, 0.4),
        "both",
        "nothing; the calibration gives the shape and the features no weight",
    ),
    "a preset without a scatter": (
        {"shape": SHAPE, "feature": FEATURE, "both": BOTH},
        (0.4, None, 0.5),
        "both",
        "shape and features",
    ),
    "a preset without features": (ALL, (0.5, 6.5, None), "scaled_shape", "scaled shape"),
    "a plain distance alone": (ALL, (0.4, None, None), "shape", "shape"),
    "a calibration of features alone": (
        {"feature": FEATURE},
        (0.4, 7.0, 0.2),
        "feature",
        "features",
    ),
    "two poor photos": (ALL, (0.33, 5.1, 0.81, 0.25), "both", "shape and features"),
    "photos that show nothing of a person": (ALL, (9, 90, -1, 0.0), "both", "shape and features"),
    "a sure answer": (ALL, (9.0, 90.0, -1.0), "both", "shape and features"),
    "no calibration": (None, (0.4, 7.0, 0.2), None, None),
    "a calibration of values that this pair lacks": (
        {"feature": FEATURE},
        (0.4, 7, None),
        None,
        None,
    ),
}


def logistic(curve: dict, certainty: float, *values: float) -> float:
    """Platt's curve; the certainty is a factor on the log-odds."""
    weights = curve["a"] if isinstance(curve["a"], list) else [curve["a"]]
    logit = sum(a * value for a, value in zip(weights, values, strict=True)) + curve["b"]
    return 1 / (1 + math.exp(-certainty * logit))


def probabilities(
    calibration: dict | None, distance, scaled, cosine, certainty=1.0
) -> dict[str, float]:
    """The probability of each kind whose values and curve are known."""
    values = {
        "shape": (distance,),
        "scaled_shape": (scaled,),
        "feature": (cosine,),
        "both": (distance if scaled is None else scaled, cosine),
    }
    known = [k for k in values if k in (calibration or {}) and None not in values[k]]
    return {kind: logistic(calibration[kind], certainty, *values[kind]) for kind in known}


def table() -> list[dict]:
    """All pairs."""
    cases = []
    for name, (calibration, measured, kind, by) in PAIRS.items():
        predicted = probabilities(calibration, *measured)
        values = dict(zip(("distance_mm", "scaled_distance", "cosine"), measured, strict=False))
        values["certainty"] = measured[3] if len(measured) > 3 else 1.0
        answer = {"probability": predicted.get(kind), "probability_by": by}
        case = {"name": name, "calibration": calibration, **values}
        cases.append({**case, "probabilities": predicted, **answer})
    return cases


if __name__ == "__main__":
    TABLE.write_text("[\n" + ",\n".join(map(json.dumps, table())) + "\n]\n")

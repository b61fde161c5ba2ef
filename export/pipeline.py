"""Description for JSON of the steps from a photo to the network's crop: detector, search and crop.

The only place that exports the package's constants: metadata of exported files, bundles and the
browser page use it. Angles are in radians, clockwise as seen in the photo.
"""

from __future__ import annotations

from keras_scnn.photos import blazeface, cropping, detection, facemesh
from keras_scnn.reconstruction.reconstructor import PASSES

CROP = (
    "Boxes x0, y0, x1, y1 are half-open pixel slices; pixel centers at integers, the first at "
    "(0, 0). From a detection: side = (width + height) / 2; if the keypoints' angle (of the line "
    "from the middle of the eyes to the mouth against the photo's down) is at least min_turn, the "
    "head is turned by it, otherwise the angle is 0; move the center by detector_shift * side in "
    "the head's down direction; the crop is the square of detector_scale * side, rotated by the "
    "angle around its center. Crop pixel (u, v) is the photo at center - 0.5 + R(angle) ((u, v) + "
    "0.5 - size / 2) * side / size, with R = [[cos, -sin], [sin, cos]]. Sampling is linear, black "
    "outside the photo, and rounded half to even. If block = round(side / size), rounded half to "
    "even, is 2 or more, sample means of block x block px instead of pixels: the first block "
    "begins 2 * block px before the upright bounding box of the rotated square, rounded down and "
    "clipped to the photo; the last blocks repeat the photo's last pixel; means are rounded to "
    "integers, half up for blocks of 2 and half to even otherwise."
)
SECOND_PASS = (
    "With mirrored_first, the input of the first run is the crop's mirror image, whose pixel "
    "(u, v) is the crop's (size - 1 - u, v). Transform its landmarks to the photo, and rotate them "
    "back by the head's angle in the image, atan2(pose[0][1], -pose[1][1]) of the pose in the "
    "photo; the second crop is the square around the center of their bounding box whose side is "
    "the box's diagonal, rotated by that angle. If the side of the square around the landmarks "
    "without rotation differs from the first crop's by a factor of max_resize or more, keep the "
    "first crop. The second crop is not mirrored, and its outputs are the result; identity "
    "features are the mean of both runs, scaled to length 1."
)
ANCHORS = (
    "For each layer, for each cell of its grid of (input size / stride)^2, row by row from the "
    "top, per_cell anchors at the cell's center ((column + 0.5) * stride, (row + 0.5) * stride), "
    "px of the input."
)
DECODE = (
    "score = 1 / (1 + exp(-logit)); the first two of 16 numbers are the box's center relative to "
    "the anchor, then width and height, then x, y of the six keypoints relative to the anchor; in "
    "px of the input, with pixel centers at 0.5. Discard detections that score below "
    "candidate_score."
)
NMS = (
    "Weighted: take the best box and all boxes whose intersection over union with it is above "
    "same_face_iou; their mean, weighted by score, with the best score, is one face; repeat. Of "
    "faces that share more than nested_share of the smaller one's area, keep the one with the "
    "highest score."
)
SEARCH = (
    "Halve the photo (means of 2 x 2, rounded half up) while both its sides are even and the "
    "longer one is at least halve_from times the input's; squares around the whole photo are cut "
    "from the result, squares around candidates from the photo itself. Run the detector on the "
    "square around the photo, as wide as its longer side. If there is exactly one candidate, with "
    "at least clear_score and a width within clear_share of the photo's longer side, it is the "
    "face, unless it scores below sure_score and is turned (see below), or is not confirmed (see "
    "'check'). Otherwise add the candidates from a square margin times as wide, and detect each "
    "candidate again in a square second_look times its size: a detection that overlaps it there "
    "and scores at least min_score replaces it; without one, the candidate is kept if its own "
    "score is at least min_score. Detect a face that scores below sure_score again in squares "
    "rotated by each of quarters: the best detection that scores more than turn_margin higher "
    "there, with keypoints turned by at least min_turn, replaces it. If no face is found, search "
    "the whole photo in the same way rotated by each of quarters, with turned_min_score, and keep "
    "the best result."
)
CHECK = (
    "A face that scores below sure_score must be confirmed: either the sigmoid of this network's "
    "output 'score' is at least min_score in a square crop_scale times as wide as the detection's "
    "longer side, rotated so that its first two keypoints are level; or the detector scores at "
    "least min_afar_score in a square afar times as wide, rotated by the head's angle. If no face "
    "in a photo is confirmed, upright or turned, use the search's unconfirmed result."
)


def describe_crop(size: int) -> dict:
    """The steps from a detection to the network's crop of ``size`` px, and to the second crop."""
    return {
        "text": CROP,
        "size": size,
        "detector_shift": cropping.DETECTOR_SHIFT,
        "detector_scale": cropping.DETECTOR_SCALE,
        "min_turn": float(cropping.MIN_TURN),
        "passes": PASSES,
        "second_pass": {
            "text": SECOND_PASS,
            "mirrored_first": True,
            "max_resize": cropping.MAX_RESIZE,
        },
    }


def describe_detector() -> dict:
    """BlazeFace: its tensors and their meaning, and how a photo is searched for large faces."""
    size, strides = blazeface.INPUT_SIZE, blazeface.STRIDES
    layers = [
        {"stride": stride, "per_cell": blazeface.BOXES_PER_CELL * strides.count(stride)}
        for stride in dict.fromkeys(strides)
    ]
    count = len(blazeface.anchors())
    numbers = (
        "px of the input: center x, y relative to the anchor, width, height, and x, y of six "
        "keypoints relative to the anchor"
    )
    return {
        "network": "BlazeFace, short range (Apache-2.0)",
        "input": {
            "name": "input",
            "shape": [size, size, 3],
            "dtype": "float32",
            "range": "RGB, value * multiply + add: -1 to 1",
            "multiply": 1 / blazeface.HALF_RANGE,
            "add": -1.0,
        },
        "outputs": {
            "regressors": {"shape": [count, 16], "unit": numbers},
            "classificators": {"shape": [count, 1], "unit": "logit of the score"},
        },
        "anchors": {"text": ANCHORS, "layers": layers},
        "keypoints": ["left eye", "right eye", "nose tip", "mouth", "left ear", "right ear"],
        "decode": {"text": DECODE, "candidate_score": detection.CANDIDATE_SCORE},
        "nms": {
            "text": NMS,
            "same_face_iou": blazeface.SAME_FACE_IOU,
            "nested_share": blazeface.NESTED_SHARE,
        },
        "search": _describe_search(),
    }


def _describe_search() -> dict:
    return {
        "text": SEARCH,
        "halve_from": detection.HALVE_FROM,
        "clear_score": detection.CLEAR_SCORE,
        "clear_share": list(detection.CLEAR_SHARE),
        "margin": detection.PADDED_ZOOM,
        "second_look": detection.CONFIRM_ZOOM,
        "min_score": detection.MIN_SCORE,
        "sure_score": detection.SURE_SCORE,
        "turn_margin": detection.TURN_MARGIN,
        "quarters": [float(angle) for angle in detection.QUARTERS],
        "turned_min_score": max(detection.MIN_SCORE, detection.TILE_MIN_SCORE),
    }


def describe_check() -> dict:
    """How FaceMesh, or the detector in a wider square, confirms an uncertain face."""
    size = facemesh.INPUT_SIZE
    return {
        "text": CHECK,
        "network": "MediaPipe FaceMesh (Apache-2.0)",
        "input": {
            "name": facemesh.INPUT,
            "shape": [size, size, 3],
            "dtype": "float32",
            "range": "RGB, value * multiply + add: 0 to 1",
            "multiply": 1 / facemesh.RANGE,
            "add": 0.0,
        },
        "score": facemesh.SCORE_OUTPUT,
        "crop_scale": facemesh.CROP_SCALE,
        "min_score": detection.MIN_MESH_SCORE,
        "afar": detection.AFAR,
        "min_afar_score": detection.MIN_AFAR_SCORE,
    }

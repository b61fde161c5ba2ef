"""The way from a photo to the network's crop, in numbers for JSON: detector, search and crop.

The one place where the package's constants leave it: metadata of exported files, bundles and the
browser page are made from here. Angles are radians, clockwise as seen in the photo.
"""

from __future__ import annotations

from keras_scnn.photos import blazeface, cropping, detection, facemesh
from keras_scnn.reconstruction.reconstructor import PASSES

CROP = (
    "Boxes x0, y0, x1, y1 are half-open pixel slices; pixel centers at integers, the first at "
    "(0, 0). From a detection: side = (width + height) / 2; if the keypoints' angle (from between "
    "the eyes to the mouth, against the photo's down) is min_turn or more, the head is turned by "
    "it, else the angle is 0; move the center by detector_shift * side towards the head's down; "
    "the crop is the square of detector_scale * side, turned by the angle about its center. Crop "
    "pixel (u, v) is the photo at center - 0.5 + R(angle) ((u, v) + 0.5 - size / 2) * side / size, "
    "with R = [[cos, -sin], [sin, cos]]. Sampled linearly, black outside of the photo, rounded to "
    "the even neighbor. Where block = round(side / size), halves to the even, is 2 or more, sample "
    "means of block x block px instead: the first block begins 2 * block px before the upright "
    "bounding box of the turned square, rounded down and clipped to the photo; the last blocks "
    "repeat the photo's last pixel; means are rounded to integers, halves up for blocks of 2 and "
    "to the even otherwise."
)
SECOND_PASS = (
    "With mirrored_first the first run sees the crop's mirror image, whose pixel (u, v) is the "
    "crop's (size - 1 - u, v). Bring its landmarks into the photo. Turn them back by the head's "
    "angle in the image, atan2(pose[0][1], -pose[1][1]) of the pose in the photo; the second crop "
    "is the square about the center of their bounding box whose side is its diagonal, turned by "
    "that angle. The crop stays where the square about the landmarks as they are has a side that "
    "differs by a factor of max_resize or more. The second run sees its crop as it is, and its "
    "outputs are the result; identity features are the mean of both runs, scaled to length 1."
)
ANCHORS = (
    "For each layer, for each cell of its grid of (input size / stride)^2, row by row from the "
    "top, per_cell anchors at the cell's center ((column + 0.5) * stride, (row + 0.5) * stride), "
    "px of the input."
)
DECODE = (
    "score = 1 / (1 + exp(-logit)); the first two of 16 numbers are the box's center from the "
    "anchor, then width and height, then x, y of the six keypoints from the anchor; px of the "
    "input's outer edges (pixel centers at 0.5). Leave out what scores below candidate_score."
)
NMS = (
    "Weighted: take the best box and all that overlap it by an intersection over union above "
    "same_face_iou; their mean, weighted by score, with the best score, is one face; repeat. Of "
    "faces that share more than nested_share of the smaller one's area, the one with the highest "
    "score stays."
)
SEARCH = (
    "Halve the photo (means of 2 x 2, halves up) as long as both its sides are even and the longer "
    "one is halve_from or more times the input's; squares about the whole photo are cut from "
    "that, second looks from the photo itself. Cut the square about the photo, its longer side "
    "wide. If that shows one candidate, with clear_score and a width within clear_share of the "
    "photo's longer side, it is the face, unless it scores below sure_score and is turned, or is "
    "not confirmed as 'check' requires; both tests follow. Else add the candidates of a square "
    "margin times as wide, and look again at each in a square second_look times as wide as it: "
    "what overlaps it there replaces it from min_score on, and the candidate stays if it scores "
    "that itself. A face below sure_score is looked at turned by "
    "each of quarters; one that scores turn_margin more there, its keypoints turned by min_turn, "
    "is turned. If there is none, the photo is looked at turned by quarters, with turned_min_score."
)
CHECK = (
    "A face below sure_score has to be confirmed: the sigmoid of this network's output 'score' is "
    "min_score or more, in a square crop_scale times as wide as the detection's longer side, "
    "turned so that its first two keypoints are level; or the detector, in a square afar times as "
    "wide, turned by the head's angle, gives min_afar_score. If no face of a photo is confirmed, "
    "upright or turned, what the search found counts."
)


def describe_crop(size: int) -> dict:
    """From a detection to the network's crop of ``size`` px, and to the second crop."""
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
    """BlazeFace: its tensors, what they mean, and how a photo is searched for large faces."""
    size, strides = blazeface.INPUT_SIZE, blazeface.STRIDES
    layers = [
        {"stride": stride, "per_cell": blazeface.BOXES_PER_CELL * strides.count(stride)}
        for stride in dict.fromkeys(strides)
    ]
    count = len(blazeface.anchors())
    numbers = "px of the input: center x, y from the anchor, width, height, six keypoints x, y"
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
    """How FaceMesh, or the detector from afar, confirms a face that is not sure."""
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

"""Measure the motion of a reconstructed clip: jitter at rest, lag, drift of the identity, speed.

    python benchmarks/video.py [--preset mobile] [--clip CLIP.mp4]

The first clip is rendered from the face model, so its true motion is known: a head that turns,
nods, blinks and speaks, and then rests, with camera noise. In a second clip a photo of a real face
(scikit-image's astronaut) moves and then rests. Each is encoded as H.264 and processed by the steps
of the command. Three results for the same frames are compared: the network on each frame
separately; the One Euro filter, for live use; and smoothing over all frames, as in the command.

``--clip`` measures your own clip, whose true motion is unknown: shake of landmarks, speed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
from skimage import data

from keras_scnn import MorphableModel
from keras_scnn.data.synthesis.appearance import FacePainter, random_light
from keras_scnn.geometry.camera import compose, decompose, project
from keras_scnn.geometry.rotations import euler_from_rotation, rotation_from_euler
from keras_scnn.geometry.shading import render
from keras_scnn.models.presets import read_preset
from keras_scnn.shape_distance import shape_coordinates
from keras_scnn.video.clip import Clip, open_clip
from keras_scnn.video.frames import ClipSettings, FramesJob, seen_frames
from keras_scnn.video.live import LiveFace
from keras_scnn.video.overlay import OverlayJob, write_video
from keras_scnn.video.results import write_tracks
from keras_scnn.video.tracks import Track, faces_of, find_people, find_tracklets, smooth_tracks

RATE, MOVING, RESTING = 30, 240, 90  # frames per second; frames; frames
SIZE, MOST_LAG = 480, 10  # px; frames
CAMERA_NOISE = 3.0  # standard deviation, of 255


def write_frames(path: Path, images: list[np.ndarray]) -> Clip:
    """Encode images at a constant frame rate; return the clip as read back."""
    stamps, base = np.arange(len(images)) * 512, Fraction(1, RATE * 512)
    plan = Clip(path, stamps, base, Fraction(RATE), (SIZE, SIZE))
    write_video(path, plan, (SIZE, SIZE), enumerate(images))
    return open_clip(path)


def noisy(image: np.ndarray, rng) -> np.ndarray:
    return np.clip(image + rng.normal(0, CAMERA_NOISE, image.shape), 0, 255).astype(np.uint8)


def known_motion(model: MorphableModel) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) pitch, yaw, roll in radians, and (n, L) weights; the last frames rest."""
    t = np.arange(MOVING) / RATE
    angles = np.radians([8 * np.sin(3.1 * t), 25 * np.sin(2.3 * t), 6 * np.sin(1.7 * t)]).T
    weights = np.zeros((MOVING, model.n_expression))
    weights[:, model.expression_names.index("jawOpen")] = 0.3 * (1 - np.cos(7 * t))
    for side in ("Left", "Right"):
        blink = np.exp(-0.5 * (((t + 0.5) % 2 - 1) / 0.06) ** 2)
        weights[:, model.expression_names.index(f"eyeBlink{side}")] = blink
    rest = np.zeros((RESTING, 3)), np.zeros((RESTING, model.n_expression))
    return np.concatenate([angles, rest[0]]), np.concatenate([weights, rest[1]])


def rendered_clip(path: Path, model: MorphableModel, seed: int) -> tuple[Clip, dict]:
    """A clip of one rendered person, and its true motion."""
    rng = np.random.default_rng(seed)
    angles, weights = known_motion(model)
    identity = rng.standard_normal(model.n_identity).astype(np.float32)
    texture, light = FacePainter(model, 1024).paint(rng), random_light(rng)
    background = cv2.resize(rng.uniform(40, 200, (6, 6, 3)), (SIZE, SIZE))
    center = np.array([SIZE / 2, SIZE / 2, 0])
    cameras = compose(rotation_from_euler(angles), 1.2 * np.ones(len(angles)), center)
    images = []
    for camera, expression in zip(cameras, weights, strict=True):
        posed = project(camera, model.vertices(identity, expression))
        image, _ = render(posed, model.triangles, model.uv, texture, light, background)
        images.append(noisy(image, rng))
    return write_frames(path, images), {"angles": angles, "weights": weights}


def photo_clip(path: Path, seed: int) -> Clip:
    """A photo that moves in front of the camera, and then rests."""
    rng, photo, images = np.random.default_rng(seed), data.astronaut(), []
    for i in range(MOVING + RESTING):
        t = min(i, MOVING) / RATE
        move = cv2.getRotationMatrix2D((224, 120), 8 * np.sin(1.7 * t), 1.4 + 0.2 * np.sin(1.3 * t))
        move[:, 2] += [30 * np.sin(2.1 * t) + 20, 20 * np.sin(2.9 * t) + 110]
        images.append(noisy(cv2.warpAffine(photo, move, (SIZE, SIZE)), rng))
    return write_frames(path, images)


class Stopwatch:
    """Adds up the CPU seconds in wrapped functions, which other load does not affect."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    def wrap(self, name: str, function: Callable) -> Callable:
        def timed(*args, **kwargs):
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] = self.seconds.get(name, 0) + time.process_time() - start

        return timed


def reconstructed(clip: Clip, out: Path, preset: str) -> tuple[FramesJob, Track, dict[str, float]]:
    """Run the command's steps in one process; return job, longest track, and seconds by step."""
    (out / "frames").mkdir(parents=True)
    job, watch = FramesJob(clip, out, ClipSettings(preset), {}), Stopwatch()
    data_of = read_preset(preset)
    first = next(clip.frames())
    if boxes := job._thorough.detect(first.image):  # opens the networks
        job.reconstructor.reconstruct_boxes(first.image, boxes)
    watch.wrap("decode", lambda: [None for _ in clip.frames()])()
    for detector in (job._quick, job._thorough):
        detector.detect = watch.wrap("detect", detector.detect)
    many = job.reconstructor.reconstruct_many
    job.reconstructor.reconstruct_many = watch.wrap("network, two passes", many)
    parts = range(-(-len(clip) // job.settings.part_frames))
    for part in parts:
        watch.wrap("frames", job.make)(part, [])
    tracks = watch.wrap("tracks", tracks_of)(job, data_of, len(parts))
    watch.wrap("table", write_tracks)(out / "faces.parquet", tracks, {})
    draw = OverlayJob(clip, out / "faces.parquet", out, data_of.face_model, len(clip))
    watch.wrap("overlay", draw.make)(0, [])
    return job, max(tracks, key=len), watch.seconds


def tracks_of(job: FramesJob, preset, parts: int) -> list[Track]:
    model, seconds = preset.face_model, job.clip.seconds
    found, rows = find_tracklets(model, seen_frames(job.out, parts), seconds, set())
    people = find_people(found, preset.metadata.get("verification"))
    return smooth_tracks(model, people, seen_frames(job.out, parts), rows, seconds)


def three_ways(job: FramesJob, track: Track) -> dict[str, dict[str, np.ndarray]]:
    """Landmarks (n, 68, 2), angles (n, 3), weights (n, L), identities (n, K) for each result."""
    ways: dict[str, list] = {"frame by frame": [], "One Euro": [], "smoothed": []}
    live, parts = LiveFace(), -(-len(job.clip) // job.settings.part_frames)
    for number, _, rows in seen_frames(job.out, parts):
        faces = faces_of(track.model, rows)
        if not faces or number not in track.frames:
            continue
        face = max(faces, key=lambda f: f.box.width)
        ways["frame by frame"].append(face)
        ways["One Euro"].append(live.update(face, float(job.clip.seconds[number])))
        ways["smoothed"].append(track.face(int(np.searchsorted(track.frames, number))))
    return {
        way: {
            "landmarks": np.stack([f.landmarks[:, :2] for f in faces]),
            "angles": euler_from_rotation(
                decompose(np.stack([f.parameters.pose for f in faces]))[0]
            ),
            "weights": np.stack([f.parameters.expression for f in faces]),
            "identity": np.stack([f.parameters.identity for f in faces]),
        }
        for way, faces in ways.items()
    }


def jitter(landmarks: np.ndarray) -> float:
    """px: RMS distance of resting landmarks from their mean, without the first 15 frames."""
    rest = landmarks[-RESTING + 15 :]
    return float(np.sqrt(((rest - rest.mean(axis=0)) ** 2).sum(axis=-1).mean()))


def shake(landmarks: np.ndarray) -> float:
    """px: RMS distance of landmarks from the midpoint of the frames before and after."""
    miss = landmarks[1:-1] - (landmarks[:-2] + landmarks[2:]) / 2
    return float(np.sqrt((miss**2).sum(axis=-1).mean()))


def lag(signal: np.ndarray, truth: np.ndarray) -> float:
    """Lag of a signal in frames: the cross-correlation's peak, interpolated between frames."""
    signal, truth = (x[:MOVING] - x[:MOVING].mean() for x in (signal, truth))
    shifts = np.arange(-MOST_LAG, MOST_LAG + 1)
    inside = slice(MOST_LAG, MOVING - MOST_LAG)
    values = [np.corrcoef(np.roll(signal, -s)[inside], truth[inside])[0, 1] for s in shifts]
    best = int(np.clip(np.argmax(values), 1, 2 * MOST_LAG - 1))
    before, here, after = values[best - 1 : best + 2]
    return float(shifts[best] + (before - after) / (2 * (before - 2 * here + after)))


def drift(model: MorphableModel, identity: np.ndarray) -> float:
    """mm: RMS distance of the frames' neutral shapes from their mean, after the first 2 s."""
    shapes = shape_coordinates(model, identity)[2 * RATE :]
    return float(np.sqrt(((shapes - shapes.mean(axis=0)) ** 2).sum(axis=1).mean()))


def print_motion(name: str, ways: dict, model: MorphableModel, truth: dict | None) -> None:
    """Print a row for each result, with lags if the true motion is known."""
    print(f"{name}: jitter at rest, px | drift of the identity, mm | lag, frames: yaw, jaw, blink")
    for way, values in ways.items():
        line = (
            f"  {way:15}{jitter(values['landmarks']):8.3f}{drift(model, values['identity']):8.3f}"
        )
        if truth is not None:
            rows = [model.expression_names.index(n) for n in ("jawOpen", "eyeBlinkLeft")]
            line += f"{lag(values['angles'][:, 1], truth['angles'][:, 1]):8.2f}"
            for row in rows:
                line += f"{lag(values['weights'][:, row], truth['weights'][:, row]):8.2f}"
            peak = values["weights"][:MOVING, rows[1]]
            line += f"   greatest blink {peak.max():.2f}"
        print(line)


def print_speed(clip: Clip, seconds: dict[str, float]) -> None:
    width, height = clip.size
    print(f"{len(clip)} frames of {width} x {height} px, one process, CPU ms per frame:")
    for name, value in seconds.items():
        print(f"  {name:22}{1000 * value / len(clip):8.2f}")
    total = sum(seconds[name] for name in ("frames", "tracks", "overlay"))
    print(f"  frames per second on one core, total: {len(clip) / total:.1f}")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="mobile")
    parser.add_argument("--clip", type=Path, help="your own clip instead")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if args.clip:
            clip = open_clip(args.clip)
            job, track, seconds = reconstructed(clip, home / "own", args.preset)
            print("shake, px | drift of the identity, mm")
            for way, values in three_ways(job, track).items():
                moved = drift(track.model, values["identity"])
                print(f"  {way:15}{shake(values['landmarks']):8.3f}{moved:8.3f}")
            print_speed(clip, seconds)
            return
        model = read_preset(args.preset).face_model
        clip, truth = rendered_clip(home / "rendered.mp4", model, args.seed)
        job, track, _ = reconstructed(clip, home / "rendered", args.preset)
        print_motion("rendered head", three_ways(job, track), model, truth)
        clip = photo_clip(home / "photo.mp4", args.seed)
        job, track, seconds = reconstructed(clip, home / "photo", args.preset)
        print_motion("moved photo", three_ways(job, track), model, None)
        print_speed(clip, seconds)


if __name__ == "__main__":
    main()

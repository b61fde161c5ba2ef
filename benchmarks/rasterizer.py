"""Measure faces rendered per second on one thread: the rasterizer, and the rendering of people.

    python benchmarks/rasterizer.py

The first line is the reference, in faces per second. Since machines differ, the others are relative
to it: including the computation of shapes; whole photos of people (texture, shape, cameras,
background, light, noise) with eight and with two photos per person; and on two threads.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from keras_scnn.data.synthesis.rendered_people import SUPERSAMPLE, SyntheticConfig, render_person
from keras_scnn.geometry.camera import compose, project
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.geometry.shading import render
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.storage.one_thread import one_thread_each

SIZE, FACES, ROUNDS = 80, 64, 7


def main() -> None:
    """Time the rasterizer, and print the medians."""
    model, rng = MorphableModel.open_face(), np.random.default_rng(0)
    identity = rng.normal(size=(FACES, model.n_identity))
    expression = rng.uniform(0, 0.3, (FACES, model.n_expression))
    side = SUPERSAMPLE * SIZE
    rotation = rotation_from_euler(rng.uniform(-0.7, 0.7, (FACES, 3)))
    center = np.tile([side / 2, side / 2, 0.0], (FACES, 1))
    camera = compose(rotation, np.full(FACES, 0.55 * side / 120), center)
    texture, light = rng.uniform(100, 200, (side, side, 3)), np.zeros((9, 3))
    light[0] = 3
    background = np.zeros((side, side, 3))

    def draw(points):
        for face in points:
            render(face, model.triangles, model.uv, texture, light, background)

    def shape():
        return project(camera, model.vertices(identity, expression))

    def people(photos, workers=1):
        config = SyntheticConfig(people=FACES // photos, photos=photos, size=SIZE)
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(render_person, [config] * config.people, range(config.people)))

    points = shape()
    with one_thread_each():
        yardstick = throughput(lambda: draw(points))
        print(f"rasterizer, {side} px: {yardstick:.0f} faces/s (median of {ROUNDS} rounds)")
        for name, work in (
            ("with the shapes", lambda: draw(shape())),
            (f"whole photos of {SIZE} px, 8 of each person", lambda: people(8)),
            ("whole photos, 2 of each person", lambda: people(2)),
            ("whole photos, 2 of each person, two threads", lambda: people(2, 2)),
        ):
            print(f"{name}: {throughput(work) / yardstick:.2f} times as many")


def throughput(work) -> float:
    """Faces per second of a function that renders ``FACES`` of them."""
    work()  # compiles
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        rounds.append(FACES / (time.perf_counter() - start))
    return float(np.median(rounds))


if __name__ == "__main__":
    main()

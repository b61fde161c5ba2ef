import cv2
import numpy as np

from keras_scnn.geometry.camera import compose, project
from keras_scnn.reconstruction.drawing import CLAY, draw_landmarks, draw_mesh, draw_view, grid

GRAY = np.full((200, 240, 3), 100, np.uint8)


def posed(model) -> np.ndarray:
    return project(compose(np.eye(3), 0.8, np.array([120.0, 100, 0])), model.vertices())


def test_landmarks_are_drawn_where_they_are(open_face):
    points = posed(open_face)[open_face.landmark_indices]
    before = GRAY.copy()
    drawn = draw_landmarks(GRAY, points)
    changed = (drawn != GRAY).any(axis=-1)
    assert (before == GRAY).all()
    for x, y in points[:, :2].round().astype(int):
        assert changed[y - 1 : y + 2, x - 1 : x + 2].any()
    # Nothing is drawn outside of the landmarks' box.
    (left, top), (right, bottom) = points[:, :2].min(axis=0) - 3, points[:, :2].max(axis=0) + 3
    rows, columns = np.nonzero(changed)
    assert left < columns.min() and columns.max() < right
    assert top < rows.min() and rows.max() < bottom


def test_eyes_and_lips_are_closed_and_the_jaw_is_open():
    angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points = np.column_stack([100 + 60 * np.cos(angle), 100 + 60 * np.sin(angle)])
    points[:17] = np.column_stack([np.linspace(20, 180, 17), np.full(17, 20)])
    points[36:42] = [[40, 100], [50, 90], [60, 90], [70, 100], [60, 110], [50, 110]]
    drawn = draw_landmarks(GRAY, points)
    assert (drawn[105, 45] != 100).any()  # from the eye's last point back to its first
    assert (drawn[20, 20:181] != 100).any(axis=-1).all()


def test_a_symmetric_face_is_seen_in_the_middle_of_its_view(open_face):
    """By the center of a black one on white: 64 px have their middle at 31.5."""
    vertices = (open_face.mean + open_face.mean[open_face.mirror] * [-1, 1, 1]) / 2
    covered = 255.0 - draw_view(open_face, vertices, size=64, albedo=np.zeros(3))[..., 0]
    assert abs(np.average(np.arange(64), weights=covered.sum(axis=0)) - 31.5) < 0.02


def test_a_mesh_covers_its_silhouette_and_nothing_else(open_face):
    vertices = posed(open_face)
    changed = (draw_mesh(GRAY, open_face, vertices) != GRAY).any(axis=-1)
    outline = cv2.convexHull(vertices[:, :2].astype(np.float32)).astype(np.int32)
    hull = cv2.fillConvexPoly(np.zeros(GRAY.shape[:2], np.uint8), outline, 1) > 0
    grown = cv2.dilate(hull.astype(np.uint8), np.ones((3, 3))) > 0
    assert not changed[~grown].any()
    assert changed[hull].mean() > 0.85


def test_opacity_blends_the_mesh_with_the_photo(open_face):
    vertices = posed(open_face)
    solid, half = (draw_mesh(GRAY, open_face, vertices, opacity=o).astype(float) for o in (1, 0.5))
    # Both are rounded: at most half a step for one, and half of that for the other.
    np.testing.assert_allclose(half, (solid + GRAY) / 2, rtol=0, atol=0.75)
    assert (draw_mesh(GRAY, open_face, vertices, opacity=0) == GRAY).all()


def test_a_view_turns_the_face(open_face):
    vertices = open_face.vertices()
    front, left, right = (draw_view(open_face, vertices, yaw) for yaw in (0, 60, -60))
    ink = [(view != 255).any(axis=-1) for view in (front, left, right)]
    assert all(0.15 < part.mean() < 0.9 for part in ink)
    # The model is symmetric, so one side's view is the mirror image of the other's.
    assert (ink[1] == ink[2][:, ::-1]).mean() > 0.98
    assert (ink[0] != ink[1]).mean() > 0.02


def test_albedo_colors_the_view(open_face):
    vertices = open_face.vertices()
    blue = draw_view(open_face, vertices, albedo=np.array([0.0, 0, 255]))
    clay = draw_view(open_face, vertices, albedo=CLAY)
    center = np.s_[100:150, 100:150]
    assert blue[center][..., :2].max() == 0 < blue[center][..., 2].min()
    assert clay[center][..., 0].mean() > clay[center][..., 2].mean()


def test_a_grid_is_filled_up_with_white():
    pictures = [np.full((4, 6, 3), value, np.uint8) for value in (10, 20, 30)]
    picture = grid(pictures, 2)
    assert picture.shape == (8, 12, 3)
    assert (picture[4:, :6] == 30).all() and (picture[4:, 6:] == 255).all()

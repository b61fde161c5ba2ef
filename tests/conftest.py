"""Fixtures that several test modules share."""

import gc
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# One thread per pool: pytest-xdist's workers share the cores already.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
# Ray gives its workers a niceness of 15: they would wait for all other tests of a busy machine.
os.environ.setdefault("RAY_worker_niceness", "0")

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import ParameterLayout, Whitening

ROOT = Path(__file__).resolve().parents[1]
# Off until all tests are collected: imports make millions of objects, and hardly any garbage.
gc.disable()
# Property tests: the same examples on every run, and time for numba to compile and a busy machine.
settings.register_profile("keras_scnn", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("keras_scnn")


# Files of more than half a minute, longest first: with --no-loadscope-reorder (setup.cfg) workers
# take files in this order, so that none of these is left for one worker at the end.
LONG = (
    "test_notebooks.py",
    "export/test_browser.py",
    "folders/test_ray_engine.py",
    "export/test_command.py",
    "training/test_group_training.py",
    "training/matching/test_matching.py",
    "training/test_hosts.py",
    "distributed/test_ray.py",
    "test_golden_faces.py",
    "test_train.py",
    "fuzz/test_killed_runs.py",
    "test_saved_models.py",
    "texturing/test_page.py",
    "training/test_release.py",
    "video/test_reconstruct_clip.py",
    "test_scale.py",
    "models/test_litert.py",
    "models/test_siamese.py",
    "training/matching/test_batches.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; otherwise the order stays."""
    ranks = {ROOT / "tests" / name: rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def pytest_collection_finish() -> None:
    """Keep the millions of objects of imported modules out of later garbage collections."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of research photos, which is not part of the project."""
    folder = Path(os.environ.get("KERAS_SCNN_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here; set KERAS_SCNN_SHARED_DATA to run on real photos")
    return folder


@pytest.fixture(scope="session")
def ipv6() -> None:
    """Skips where nothing can listen at ::1, as in many containers."""
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6: {error}")


@pytest.fixture(scope="session")
def page(tmp_path_factory) -> Path:
    """The browser page's folder, built once for all workers: nothing may be written into it."""
    from keras_scnn.export import website
    from keras_scnn.storage.claims import in_turn

    asked = subprocess.run(["npm", "view", "vite", "version"], capture_output=True, timeout=60)
    if asked.returncode:
        pytest.skip("npm's registry cannot be reached")
    base = tmp_path_factory.getbasetemp()  # of a worker: in the folder of its run
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "page"
    cache.mkdir(exist_ok=True)
    with in_turn(cache):
        return website.build_page(cache)


@pytest.fixture
def page_sources(page, tmp_path) -> Path:
    """A copy of the page's sources, for tests beside them: ``npm test`` runs there."""
    folder = tmp_path / "sources"
    shutil.copytree(page, folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (folder / "node_modules").symlink_to(page / "node_modules")
    return folder


@pytest.fixture(scope="session")
def open_face() -> MorphableModel:
    """The embedded face model."""
    return MorphableModel.open_face()


@pytest.fixture
def tiny_face_model() -> MorphableModel:
    """A random model of 70 vertices, 6 identity and 5 expression components."""
    rng = np.random.default_rng(7)
    n, k, expressions = 70, 6, 5
    return MorphableModel(
        name="tiny",
        mean=rng.normal(0, 40, (n, 3)),
        identity_basis=rng.normal(0, 2, (n, 3, k)),
        expression_basis=rng.normal(0, 4, (n, 3, expressions)),
        triangles=np.stack([np.arange(n - 2), np.arange(1, n - 1), np.arange(2, n)], axis=1),
        landmark_indices=rng.permutation(n)[:68],
        expression_names=[f"unit{i}" for i in range(expressions)],
        expression_bounds=np.tile([0.0, 1.0], (expressions, 1)),
        landmark_offsets=rng.normal(0, 1, (68, 3)),
    )


@pytest.fixture
def tiny_whitening(tiny_face_model) -> Whitening:
    """A whitening whose unit parameters are those of a face in a 120 px crop."""
    layout = ParameterLayout(tiny_face_model.n_identity, tiny_face_model.n_expression)
    mean, scale = np.zeros(layout.size), np.full(layout.size, 0.3)
    mean[[0, 5, 10]], mean[[3, 7]] = [0.5, -0.5, 0.5], 60
    scale[[3, 7, 11]] = 5
    scale[layout.identity] = 1
    return Whitening(mean, scale)


@pytest.fixture(scope="module")
def tiny_encoder() -> Iterator[str]:
    """The name under which a module's tests get an encoder of two convolutions.

    TensorFlow needs ten seconds to trace the training step of a MobileNet, however small the
    images are; tests of what surrounds the encoder do without it.
    """
    from tiny_encoder import known_encoder

    with known_encoder() as name:
        yield name


@pytest.fixture(scope="module")
def eager_steps() -> Iterator[Callable]:
    """Training steps run op by op: for runs of a step or two, tracing costs more than it saves.

    Runs in graphs are those of ``test_train`` and ``test_run_folder``, and of groups one among the
    integration tests. Gives ``keras.Model.compile`` as it was.
    """
    import keras

    compiled = keras.Model.compile

    def eager(self, *args, **kwargs):
        compiled(self, *args, **kwargs)
        self.run_eagerly = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "compile", eager)
        yield compiled


@pytest.fixture(scope="module")
def few_resamples() -> Iterator[None]:
    """Evaluation of records draws 20 bootstrap resamples, not 1,000: seconds for each run."""
    from keras_scnn.evaluation.bootstrap import with_intervals
    from keras_scnn.protocols import records

    def quick(summary, groups, resamples, seed):
        return with_intervals(summary, groups, min(resamples, 20), seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "with_intervals", quick)
        yield


@pytest.fixture(scope="session")
def opened_networks() -> dict:
    """Results of ``open_network``, by the digest of the weights and metadata."""
    return {}


@pytest.fixture
def in_keras(monkeypatch, opened_networks):
    """Networks run in Keras: LiteRT's file, made on first use, takes ten seconds.

    A network is built and traced once for all tests of a process, which takes two.
    """
    from keras_scnn.models.inference import open_network
    from keras_scnn.models.presets import preset_digest, read_preset

    def opened(name_or_path):
        key = preset_digest(name_or_path), json.dumps(read_preset(name_or_path).metadata)
        if key not in opened_networks:
            opened_networks[key] = open_network(name_or_path)
        return opened_networks[key]

    monkeypatch.setattr("keras_scnn.export.first_use.ensure_network", lambda preset: None)
    monkeypatch.setattr("keras_scnn.reconstruction.reconstructor.open_network", opened)

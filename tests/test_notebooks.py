"""The notebooks run from top to bottom, and what they print and draw is there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import keras_scnn

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMALL = {"PEOPLE": "24", "STEPS": "4"}
COMMANDS = {"ablate", "evaluate", "prepare"}

nbformat = pytest.importorskip("nbformat", reason="pip install keras_scnn[notebooks]")
nbclient = pytest.importorskip("nbclient", reason="pip install keras_scnn[notebooks]")
# A few steps op by op take less time than tracing the step of a MobileNet twice.
EAGER = "import tensorflow; tensorflow.config.run_functions_eagerly(True)"
# The first network that is compiled trains op by op, all others in graphs.
FIRST_EAGER = """
import keras

def compile_first(self, *args, compiled=keras.Model.compile, **kwargs):
    keras.Model.compile = compiled
    self.compile(*args, run_eagerly=True, **kwargs)

keras.Model.compile = compile_first
"""


def outputs(notebook) -> list:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def printed(notebook) -> str:
    """The standard output of the cells, without progress bars and warnings on stderr."""
    streams = [o for o in outputs(notebook) if o.output_type == "stream" and o.name == "stdout"]
    return "".join(output.text for output in streams)


def n_pictures(notebook) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def execute(name: str, tmp_path, monkeypatch, more: str = "", first: str = ""):
    """The notebook run in a kernel of this environment, on small sizes, outside of the checkout.

    ``more`` is a last cell for what the test wants to know, ``first`` runs before all others.
    """
    for key, value in {**SMALL, "CACHE": str(tmp_path)}.items():
        monkeypatch.setenv(f"KERAS_SCNN_NOTEBOOK_{key}", value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    code = nbformat.v4.new_code_cell
    notebook.cells = [code(first), *notebook.cells, code(more)]
    client = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    return client.execute()


@pytest.mark.integration
def test_01_turns_a_photo_into_a_mesh(tmp_path, monkeypatch):
    pytest.importorskip("skimage", reason="pip install keras_scnn[notebooks]")
    notebook = execute("01_reconstruct.ipynb", tmp_path, monkeypatch)
    angles = re.search(r"1 face; pitch (\S+), yaw (\S+), roll (\S+) degrees", printed(notebook))
    # The astronaut looks at the camera, her head tilted a little.
    assert all(abs(float(angle)) < 25 for angle in angles.groups())
    assert n_pictures(notebook) == 2
    assert re.search(r"mouthSmile", printed(notebook))  # she smiles


@pytest.mark.integration
def test_02_trains_on_pairs(tmp_path, monkeypatch):
    more = (
        "start = load_preset('aflw-mobilenet-0.5').branch.trainable_weights[0]\n"
        "moved = np.abs(np.asarray(branch.trainable_weights[0]) - np.asarray(start)).max()\n"
        "print('moved:', moved, 'epochs:', len(history['loss']))"
    )
    notebook = execute("02_train.ipynb", tmp_path, monkeypatch, more, EAGER)
    moved, epochs = re.search(r"moved: (\S+) epochs: (\d+)", printed(notebook)).groups()
    # Four steps of Adam move a weight by at most 4 times the rate, 1e-3, and some by about that.
    assert 1e-3 < float(moved) < 6e-3 and epochs == "4"
    assert re.search(r"same person or not: \S+ % right", printed(notebook))
    assert n_pictures(notebook) == 4
    assert "['preset.json', 'weights.npz']" in printed(notebook)


@pytest.mark.integration
def test_03_measures_and_exports(tmp_path, monkeypatch):
    pytest.importorskip("skimage", reason="pip install keras_scnn[notebooks]")
    notebook = execute("03_evaluate_and_export.ipynb", tmp_path, monkeypatch)
    predicted = printed(notebook)
    error = re.search(r"landmark error 2D, mean of bins +(\S+) %", predicted)
    assert 1 < float(error[1]) < 10
    assert "broken limits: []" in predicted
    assert "'vertices': (3716, 3)" in predicted
    assert n_pictures(notebook) == 2


@pytest.mark.integration
def test_04_trains_an_own_encoder_with_an_own_loss(tmp_path, monkeypatch):
    more = (
        "difference = network.predict(inputs, verbose=0)['landmarks_a'] - found['landmarks_a']\n"
        "print('reloaded differs by', np.abs(difference).max())\n"
        "print('class:', type(loaded.loss['landmarks_b']).__name__)"
    )
    # The first is a MobileNet and trains for a step; the own encoder and loss come after it.
    notebook = execute("04_own_encoder_and_loss.ipynb", tmp_path, monkeypatch, more, FIRST_EAGER)
    predicted = printed(notebook)
    # 3 x 3 convolutions of 3, 16, 32, 64, 128 channels; 4 numbers a channel; 128 to 144 and 64.
    convolutions = 9 * (3 * 16 + 16 * 32 + 32 * 64 + 64 * 128) + 4 * (16 + 32 + 64 + 128)
    assert f"{convolutions + 129 * (144 + 64):,} parameters" in predicted
    assert "written: best.keras logs" in predicted
    assert re.search(r"reloaded differs by 0\.0\nclass: WingLoss", predicted)
    assert "mixed_float16" in predicted and "layers in float16 and float32" in predicted
    assert n_pictures(notebook) == 2


@pytest.mark.slow
def test_05_compares_four_runs(tmp_path, monkeypatch):
    monkeypatch.setitem(SMALL, "STEPS", "10")
    more = "import json; print('curves:', json.dumps(curves))"
    notebook = execute("05_what_the_losses_do.ipynb", tmp_path, monkeypatch, more, EAGER)
    rows = re.findall(r"(\w+) +by mm (\S+) %, by feature (\S+) %", printed(notebook))
    weights = {"neither": (0, 0), "contrastive": (1, 0), "identity": (0, 4), "both": (1, 4)}
    assert [name for name, *_ in rows] == list(weights)
    assert all(30 <= float(value) <= 100 for _, *values in rows for value in values)
    assert n_pictures(notebook) == 2
    curves = json.loads(re.search(r"curves: (.*)", printed(notebook))[1])
    compared = ("parameter_distance", "feature_similarity")
    for name, both in weights.items():
        of = {loss.removesuffix("_loss"): np.array(c) for loss, c in curves[name].items()}
        regression = sum(of[f"landmarks_{s}"] + 0.02 * of[f"parameters_{s}"] for s in "ab")
        total = regression + sum(w * of[loss] for w, loss in zip(both, compared, strict=True))
        np.testing.assert_allclose(of["loss"], total, rtol=1e-4)
    last = {name: [curves[name][f"{loss}_loss"][-1] for loss in compared] for name in weights}
    # A loss that is on ends lower than where it is off.
    assert max(last["contrastive"][0], last["both"][0]) < last["neither"][0]
    assert max(last["identity"][1], last["both"][1]) < last["neither"][1]


@pytest.mark.integration
def test_06_makes_records_of_own_photos(tmp_path, monkeypatch):
    pytest.importorskip("skimage", reason="pip install keras_scnn[notebooks]")
    more = "print(sorted(set(records.name)), np.bincount(records.identity), len(again))"
    predicted = printed(execute("06_own_photos.ipynb", tmp_path, monkeypatch, more, EAGER))
    # Three people with three photos each, three photos of another, and a turned copy of each.
    assert "24 photos in records" in predicted and "[6 6 6 6] 6" in predicted
    assert "left out: eileen/sky.jpg" in predicted and "no face found" in predicted
    fit = re.search(r"the fit is (\S+) px", predicted)
    assert float(fit[1]) < 1  # the landmarks are those of a face of this model
    errors = re.findall(r"(before|after) +landmark error (\S+) %", predicted)
    assert [title for title, _ in errors] == ["before", "after"]


def test_the_siamese_training_has_20_lines():
    notebook = nbformat.read(ROOT / "notebooks" / "04_own_encoder_and_loss.ipynb", as_version=4)
    (cell,) = (c for c in notebook.cells if "ks.pair_dataset" in c.source)
    assert len([line for line in cell.source.splitlines() if line.strip()]) <= 20


def test_the_weights_of_the_losses_are_those_of_their_names():
    # Keras gives weights in a list to the losses in the order of their names, not of the text.
    notebook = nbformat.read(ROOT / "notebooks" / "04_own_encoder_and_loss.ipynb", as_version=4)
    first = re.search(r"80/80 .*", printed(notebook))[0]
    loss = {name: float(value) for name, value in re.findall(r"(\w+): (\d+\.\d+)", first)}
    regression = 0.1 * (loss["parameters_a_loss"] + loss["parameters_b_loss"])
    compared = 0.01 * loss["parameter_distance_loss"] + loss["feature_similarity_loss"]
    assert loss["loss"] == pytest.approx(regression + compared, abs=1e-3)


def imported_names(notebook) -> set[str]:
    """Modules of keras_scnn, and names of it, that the cells import or use."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return set(re.findall(r"keras_scnn\.(\w+)", code)) | set(re.findall(r"\bks\.(\w+)", code))


@pytest.mark.parametrize("path", NOTEBOOKS[3:], ids=lambda path: path.name)
def test_a_researcher_s_notebook_needs_only_public_names(path):
    used = imported_names(nbformat.read(path, as_version=4)) - COMMANDS
    assert used and used <= set(keras_scnn.__all__)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_committed_notebooks_were_run_in_order_without_an_error(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    counts = [c.execution_count for c in notebook.cells if c.cell_type == "code" and c.source]
    assert counts == list(range(1, len(counts) + 1))
    assert not [o for o in outputs(notebook) if o.output_type == "error"]
    assert n_pictures(notebook) >= 2
    assert path.stat().st_size < 1.5e6

import contextlib
import os
import signal
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest

from keras_scnn.data.records import FaceRecords
from keras_scnn.parameters import ParameterSpace
from keras_scnn.settings import Terminated
from keras_scnn.training.checkpoints import (
    CURVES,
    STATE,
    RunState,
    add_to_curves,
    check_kept,
    has_curves,
    load_checkpoint,
    read_curves,
    read_state,
    save_checkpoint,
    trim_curves,
)
from keras_scnn.training.run_folder import (
    Budget,
    Checkpoints,
    FiniteNumbers,
    Progress,
    ShapeMonitor,
    StopRequest,
    largest_shape,
    shape_health,
)

X, Y = np.random.default_rng(0).normal(size=(2, 8, 3))


def network(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    return model


class Rates(keras.callbacks.Callback):
    """Notes the learning rate of each step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(float(self.model.optimizer.learning_rate))


@pytest.mark.parametrize("warmup", [2, 1000])
def test_the_rate_warms_up_and_follows_a_cosine_to_the_last_step(warmup):
    """A short run warms up for a tenth of its steps; before, it never reached the highest rate."""
    rates = Rates()
    budget = Budget(RunState(), steps=24, minutes=0, peak=0.4, warmup=warmup)
    network().fit(X, Y, batch_size=1, epochs=9, callbacks=[budget, rates], verbose=0)
    expected = 0.2 * (1 + np.cos(np.pi * np.arange(24) / 24))  # half a period over 24 steps
    expected[0] /= 2
    np.testing.assert_allclose(rates.seen, expected, rtol=1e-5)
    assert (budget.state.step, budget.state.done) == (24, True)


def test_the_time_budget_ends_the_run_and_earlier_sessions_count():
    budget = Budget(RunState(step=3, seconds=59.0), steps=10**6, minutes=1, peak=0.1, warmup=1)
    network().fit(X, Y, batch_size=1, epochs=10**6, callbacks=[budget], verbose=0)
    assert budget.state.done
    assert 60 <= budget.state.seconds < 75
    assert 3 < budget.state.step < 10**6


def test_a_resumed_run_is_the_run_that_was_not_interrupted(tmp_path):
    whole = network()
    whole.fit(X, Y, epochs=4, verbose=0)
    half = network()
    half.fit(X, Y, epochs=2, verbose=0)
    state = save_checkpoint(tmp_path, half, RunState(step=2, seconds=1.5))
    assert read_state(tmp_path) == state
    rest = network(seed=9)
    load_checkpoint(tmp_path, rest, state)  # without Adam's moments the weights would differ
    rest.fit(X, Y, epochs=2, verbose=0)
    for one, two in zip(whole.weights, rest.weights, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5)


def test_random_number_generators_are_restored(tmp_path):
    """Dropout and augmentation draw other numbers in each step; a weights file has none of them."""

    def drawing(seed):
        keras.utils.set_random_seed(seed)
        layers = [keras.layers.GaussianNoise(1.0), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
        model = keras.Sequential([keras.Input((3,)), *layers])
        model.compile(keras.optimizers.Adam(0.1), "mse", run_eagerly=True)
        return model

    whole, half = drawing(0), drawing(0)
    whole.fit(X, Y, epochs=4, shuffle=False, verbose=0)
    half.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    save_checkpoint(tmp_path, half, RunState(step=2))
    rest = drawing(0)
    assert len(load_checkpoint(tmp_path, rest, read_state(tmp_path)).random) == 2
    rest.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    for one, two in zip(whole.weights, rest.weights, strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_last_two_checkpoints_are_kept_and_the_curves_grow(tmp_path):
    model = network()
    for step in (0, 8, 16):
        budget = Budget(RunState(step=step), steps=24, minutes=0, peak=0.1, warmup=1)
        model.fit(X, Y, batch_size=1, callbacks=[budget, Checkpoints(tmp_path, budget)], verbose=0)
    names = {path.name for path in tmp_path.glob("checkpoint-*")}
    assert names == {"checkpoint-16.weights.h5", "checkpoint-24.weights.h5"}
    curves = read_curves(tmp_path)
    np.testing.assert_array_equal(curves["step"], [8, 16, 24])
    assert curves["loss"].shape == (3,)


@pytest.fixture
def two_checkpoints(tmp_path):
    """A run folder with those of steps 8 and 16, and the weights at both."""
    model, weights = network(), {}
    for step in (8, 16):
        model.fit(X, Y, batch_size=1, verbose=0)
        add_to_curves(tmp_path, {"step": step, "loss": 1.5})
        save_checkpoint(tmp_path, model, RunState(step=step))
        weights[step] = [np.asarray(w) for w in model.weights]
    return tmp_path, weights


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    """Change one weight: Keras would load the file, so only the checksum tells."""
    with h5py.File(path, "r+") as file:
        kernel = file["layers/dense/vars/0"]
        kernel[0, 0] = -kernel[0, 0]


def remove(path):
    path.unlink()


@pytest.mark.parametrize("harm", [cut, flip, remove])
def test_a_run_continues_from_the_last_undamaged_checkpoint(two_checkpoints, harm, capsys):
    folder, weights = two_checkpoints
    harm(folder / "checkpoint-16.weights.h5")
    model = network(seed=5)
    state = load_checkpoint(folder, model, read_state(folder))
    assert state.step == 8
    for one, two in zip(model.weights, weights[8], strict=True):
        np.testing.assert_array_equal(one, two)
    said = capsys.readouterr().err
    assert "checkpoint-16.weights.h5" in said and "continuing from step 8" in said
    trim_curves(folder, state.step)
    assert read_curves(folder)["step"].tolist() == [8]
    harm(folder / "checkpoint-8.weights.h5")
    with pytest.raises(ValueError, match="No checkpoint of the run can be read.*delete"):
        load_checkpoint(folder, model, read_state(folder))


def test_a_checkpoint_saved_again_replaces_none_but_itself(two_checkpoints):
    """As by a run that continued from step 8, because the checkpoint of step 16 was damaged."""
    folder, _ = two_checkpoints
    state = save_checkpoint(folder, network(), RunState(step=16))
    assert (state.step, state.previous.step) == (16, 8)
    names = {path.name for path in folder.glob("checkpoint-*")}
    assert names == {"checkpoint-8.weights.h5", "checkpoint-16.weights.h5"}


def test_a_checkpoint_of_other_random_generators_is_refused(tmp_path):
    """The weights fit, but the numbers that dropout draws would be others."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dropout(0.5), keras.layers.Dense(3, name="dense")]
    random = keras.Sequential([keras.Input((3,)), *layers])
    random.compile(keras.optimizers.Adam(0.1), "mse")
    random.fit(X, Y, verbose=0)
    state = save_checkpoint(tmp_path, random, RunState(step=2))
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Identity(), layers[1]])
    plain.compile(keras.optimizers.Adam(0.1), "mse")
    with pytest.raises(ValueError, match="1 states of 0 random generators"):
        load_checkpoint(tmp_path, plain, state)


def test_a_full_disk_is_one_line_and_the_checkpoint_before_is_kept(two_checkpoints, monkeypatch):
    folder, _ = two_checkpoints
    model = network()

    def full(path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save_weights", full)
    before = read_state(folder)
    with pytest.raises(OSError, match="checkpoint-24.*No space left.*step 16 is kept"):
        save_checkpoint(folder, model, RunState(step=24))
    assert read_state(folder) == before
    assert not list(folder.glob(".partial-*"))


def test_curves_are_trimmed_to_the_step_that_the_run_continues_from(tmp_path):
    for step in (50, 100, 150):
        add_to_curves(tmp_path, {"step": step, "loss": step / 2})
    trim_curves(tmp_path, 100)
    assert read_curves(tmp_path)["loss"].tolist() == [25, 50]
    trim_curves(tmp_path, 0)
    assert not (tmp_path / CURVES).exists()
    trim_curves(tmp_path, 0)


@pytest.mark.parametrize(
    "name, text",
    [
        (STATE, '{"step": 1, "pace": 2}'),
        (STATE, "{}"),
        (STATE, '{"step": 1}'),
        (STATE, '{"step": "x", "checkpoint": "a"}'),
        (STATE, '{"step": 1, "checkpoint": "../../a"}'),
        (STATE, '{"step": true, "checkpoint": "a"}'),
        (STATE, '{"step": -3, "checkpoint": "a"}'),
        (STATE, '{"step": 1, "checkpoint": ".."}'),
        (STATE, '{"step": 1, "checkpoint": "a", "seconds": "x"}'),
        (STATE, '{"step": 1, "checkpoint": "a", "seconds": -1}'),
        (STATE, '{"step": 1, "checkpoint": "a", "done": "no"}'),
        (STATE, '{"step": 1, "checkpoint": "a", "checksum": 3}'),
        (STATE, '{"step": 1, "checkpoint": "a", "previous": {"step": 0}}'),
        (STATE, "[]"),
        (STATE, "{"),
        (CURVES, "step,loss\n50"),
        (CURVES, "step,loss\n,1\n"),
        (CURVES, "step,loss\nnan,1\n"),
        (CURVES, "step,loss\n50,a\n"),
        (CURVES, "loss\n50\n"),
        (CURVES, ""),
        (CURVES, "step,loss\n50,1,2\n"),
    ],
)
def test_damaged_files_of_a_run_are_named_before_training(tmp_path, name, text):
    (tmp_path / STATE).write_text('{"step": 50, "checkpoint": "checkpoint-50.weights.h5"}')
    add_to_curves(tmp_path, {"step": 50, "loss": 1.5})
    assert check_kept(tmp_path).step == 50
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}: not the (state|curves) of a run"):
        check_kept(tmp_path)


def test_a_run_stopped_before_its_first_row_has_no_curves_to_check(tmp_path):
    save_checkpoint(tmp_path, network(), RunState(step=12))
    assert check_kept(tmp_path).step == 12


def test_checkpoints_whose_state_is_lost_are_not_trained_over(two_checkpoints):
    folder, _ = two_checkpoints
    (folder / STATE).unlink()
    with pytest.raises(ValueError, match="state.json: no such file beside checkpoint-16.*-8.we"):
        check_kept(folder)
    (folder / "checkpoint-16.weights.h5").unlink()  # as of a run killed before its first state
    assert check_kept(folder) == RunState()


def test_a_new_folder_starts_at_0(tmp_path):
    assert check_kept(tmp_path) == RunState()


@pytest.mark.parametrize("number, kind", [(signal.SIGTERM, Terminated), (signal.SIGINT, None)])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(tmp_path, number, kind):
    class Sender(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 3:
                os.kill(os.getpid(), number)

    budget = Budget(RunState(), steps=8, minutes=0, peak=0.1, warmup=1)
    checkpoints = Checkpoints(tmp_path, budget)
    stop, before = StopRequest(checkpoints, budget), signal.getsignal(number)
    callbacks = [budget, Sender(), checkpoints, stop]
    with pytest.raises(kind or KeyboardInterrupt, match="after step 4"), stop.listening():
        network().fit(X, Y, batch_size=1, callbacks=callbacks, verbose=0)
    assert read_state(tmp_path).step == 4
    assert signal.getsignal(number) is before


def test_the_health_of_shapes_by_hand():
    labels = np.array([[3.0, 4.0], [0.0, 2.0]])  # deviations from the mean face, 5 and 2 mm
    outputs = np.array([[0.0, 0.0], [0.0, 2.0]])  # errors of 5 and 0 mm
    result = shape_health(outputs, labels)
    assert result["explained"] == pytest.approx(1 - 25 / 29)
    assert result["size"] == pytest.approx(np.sqrt(4 / 29))
    assert result["relative"] == pytest.approx(5 / 7)


class Branch(keras.Model):
    """Predicts the labeled shape of each photo, times ``size``."""

    def __init__(self, whitened):
        super().__init__(name="branch")
        self.whitened, self.size = whitened, 1.0

    def predict_on_batch(self, images):
        return {"parameters": self.size * self.whitened}


class Holder(keras.Model):
    def __init__(self, branch):
        super().__init__()
        self.branch, self.stop_training = branch, False

    def get_layer(self, name):
        return self.branch


@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_collapse_of_shapes_ends_the_run(tiny_face_model, tiny_whitening, tmp_path, is_resumed):
    rng = np.random.default_rng(0)
    size = tiny_whitening.mean.size
    records = FaceRecords(
        np.zeros((20, 4, 4, 3), np.uint8),
        rng.normal(size=(20, size)).astype(np.float32),
        np.zeros((20, 68, 3), np.float32),
        np.arange(20, dtype=np.int32),
        "tiny",
    )
    arguments = records, np.arange(5, 20), ParameterSpace(tiny_face_model, tiny_whitening)
    monitor = ShapeMonitor(*arguments)
    model = Holder(Branch(tiny_whitening.whiten(records.parameters[5:])))
    for size, stops in ((0.02, False), (1.0, False), (0.3, False), (0.04, True)):
        if is_resumed:  # before each epoch
            monitor = ShapeMonitor(*arguments, largest=largest_shape(tmp_path))
        monitor.set_model(model)
        # A head that starts at the mean face has not collapsed: it never was anywhere else.
        model.branch.size, logs = size, {}
        monitor.on_epoch_end(0, logs)
        assert logs["shape_size"] == pytest.approx(size, rel=1e-4)
        assert logs["shape_relative"] == pytest.approx(1 - size, rel=1e-4)
        assert (model.stop_training, monitor.collapsed) == (stops, stops)
        add_to_curves(tmp_path, {"step": 50, **logs})


@pytest.mark.integration
def test_the_progress_bar_knows_the_time_limit(capsys):
    state = RunState(step=3, seconds=57.0)
    budget = Budget(state, steps=10**6, minutes=1, peak=0.1, warmup=1)
    with contextlib.closing(Progress(budget, 10**6)) as progress:
        callbacks = [budget, progress]
        network().fit(X, Y, batch_size=1, epochs=10**6, callbacks=callbacks, verbose=0)
    shown = capsys.readouterr().err.split("\r")
    first, last = (line for line in (shown[1], shown[-1]))
    assert "training:  9" in first  # 57 of 60 seconds
    assert "training: 100%" in last and "00:00 left" in last
    assert f"step {budget.state.step} of 1000000" in last


def test_without_a_limit_the_time_left_follows_from_the_steps():
    budget = Budget(RunState(step=2), steps=6, minutes=0, peak=0.1, warmup=1)
    assert budget.seconds_left == 0  # nothing is known yet
    network().fit(X[:2], Y[:2], batch_size=1, callbacks=[budget], verbose=0)
    assert budget.progress == pytest.approx(4 / 6)
    assert 0 < budget.seconds_left < 60


def fit_with(labels, folder, state=RunState(), epochs: int = 1) -> None:
    budget = Budget(state, steps=100, minutes=0, peak=0.1, warmup=1)
    callbacks = [budget, FiniteNumbers(folder, budget), Checkpoints(folder, budget)]
    network().fit(X, labels, batch_size=4, epochs=epochs, callbacks=callbacks, verbose=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(tmp_path, bad):
    fit_with(Y, tmp_path)
    before = read_state(tmp_path)
    labels = Y.copy()
    labels[6, 1] = bad
    message = "the (loss|weight .*) is not finite after step [34]; the checkpoint of step 2 "
    with pytest.raises(RuntimeError, match=message):
        fit_with(labels, tmp_path, before)
    assert read_state(tmp_path) == before
    again = network(seed=1)
    load_checkpoint(tmp_path, again, before)
    assert all(np.isfinite(weight).all() for weight in again.get_weights())


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    class Break(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.set_weights([np.full_like(w, np.nan) for w in self.model.get_weights()])

    budget = Budget(RunState(), steps=100, minutes=0, peak=0.1, warmup=1)
    callbacks = [budget, FiniteNumbers(tmp_path, budget), Checkpoints(tmp_path, budget), Break()]
    with pytest.raises(RuntimeError, match="weight .* is not finite after step 1"):
        network().fit(X, Y, batch_size=8, callbacks=callbacks, verbose=0)
    assert not list(tmp_path.iterdir())


def test_a_signal_during_the_exchange_between_processes_is_kept():
    """It ends the run after the next epoch, whose exchange tells the other processes."""
    asked = []

    class Two:
        shard = SimpleNamespace(world_size=2)

        def all_max(self, values):
            asked.append(values[0])
            if len(asked) == 1:
                stop._receive(signal.SIGTERM, None)
            return list(values)

    budget = SimpleNamespace(state=SimpleNamespace(step=4))
    stop = StopRequest(None, budget, Two())
    stop.set_model(SimpleNamespace(stop_training=False))
    stop.on_epoch_end(0)
    with pytest.raises(Terminated, match="stopped after step 4"):
        stop.on_epoch_end(1)
    assert asked == [0, signal.SIGTERM]


def test_a_run_has_curves_from_its_first_row_on(tmp_path):
    assert not has_curves(tmp_path)
    with pytest.raises(FileNotFoundError, match=CURVES):
        read_curves(tmp_path)
    add_to_curves(tmp_path, {"step": 50, "loss": 1.5})
    assert has_curves(tmp_path)
    trim_curves(tmp_path, 0)
    assert not has_curves(tmp_path)


@pytest.mark.parametrize("count", [1, 100, 128, 129, 200, 300])
def test_at_most_128_photos_are_monitored_and_they_are_of_all(
    tiny_face_model, tiny_whitening, count
):
    """Each photo's first pixel is its number."""
    images = np.zeros((count + 5, 2, 2, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(count + 5), 256)[::-1]
    records = FaceRecords(
        images,
        np.random.default_rng(0).normal(size=(count + 5, tiny_whitening.mean.size)),
        np.zeros((count + 5, 68, 3), np.float32),
        np.arange(count + 5, dtype=np.int32),
        "tiny",
    )
    space = ParameterSpace(tiny_face_model, tiny_whitening)
    seen = []

    def predict_on_batch(images):
        seen.extend((images[:, 0, 0, :2] @ [1, 256]).tolist())
        return {"parameters": np.zeros((len(images), tiny_whitening.mean.size))}

    monitor = ShapeMonitor(records, np.arange(5, count + 5), space)
    monitor.set_model(Holder(SimpleNamespace(predict_on_batch=predict_on_batch)))
    monitor.on_epoch_end(0, {})
    assert len(seen) == len(set(seen)) == min(count, 128)
    assert (min(seen), max(seen)) == (5, count + 4)
    assert np.diff(seen).max(initial=1) <= np.ceil(count / 128) + 1

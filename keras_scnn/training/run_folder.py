"""The callbacks of a training run: budget, checkpoints, health, graceful stop, progress."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from keras_scnn.data.records import FaceRecords
from keras_scnn.parameters import ParameterSpace
from keras_scnn.settings import Terminated
from keras_scnn.training.checkpoints import (
    RunState,
    add_to_curves,
    has_curves,
    read_curves,
    read_state,
    save_checkpoint,
)
from keras_scnn.training.distribution import ALONE, Group

MAX_MONITORED, COLLAPSED_SIZE = 128, 0.05
Kept = Callable[[], keras.Model] | None


class Budget(keras.callbacks.Callback):
    """Cosine learning rate over the budget; training ends when it is used up.

    The budget is a number of steps and, if positive, a number of minutes, whichever is used up
    first, so that the rate decays fully on slow machines too. With minutes = 0 the rate depends
    only on the step, and a run can be repeated exactly.

    Args:
        state: that the run starts from.
        steps: total number of steps.
        minutes: total training time over all sessions; 0 for no limit.
        peak: highest learning rate.
        warmup: steps of linear increase to the peak; a tenth of all steps at most, so that a short
            run reaches it too.
    """

    def __init__(self, state: RunState, steps: int, minutes: float, peak: float, warmup: int):
        super().__init__()
        self._first = self._step = state.step
        self._before = state.seconds
        self._steps, self._limit, self._peak = steps, 60 * minutes, peak
        self._warmup = max(min(warmup, steps // 10), 1)
        self._start = time.monotonic()

    @property
    def state(self) -> RunState:
        """The current state, without a checkpoint."""
        return RunState(self._step, round(self._seconds, 1), self.progress >= 1)

    @property
    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._start

    @property
    def progress(self) -> float:
        """Fraction of the budget that is used up, 0 to 1."""
        time_share = self._seconds / self._limit if self._limit > 0 else 0.0
        return min(max(self._step / self._steps, time_share), 1.0)

    @property
    def seconds_left(self) -> float:
        """Estimated seconds to the end at this session's speed, within the limit; 0 if unknown."""
        session, done = time.monotonic() - self._start, self._step - self._first
        by_steps = session * (self._steps - self._step) / done if done else float("inf")
        by_time = self._limit - self._seconds if self._limit > 0 else float("inf")
        least = min(by_steps, by_time)
        return max(least, 0.0) if np.isfinite(least) else 0.0

    def on_train_begin(self, logs=None):
        self._start = time.monotonic()

    def on_train_batch_begin(self, batch, logs=None):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()  # otherwise the previous step's rate would be restored
        rate = self._peak * (1 + np.cos(np.pi * self.progress)) / 2
        self.model.optimizer.learning_rate = rate * min(1.0, (self._step + 1) / self._warmup)

    def on_train_batch_end(self, batch, logs=None):
        self._step += self.model.steps_per_execution
        if self.progress >= 1:
            self.model.stop_training = True


class FiniteNumbers(keras.callbacks.Callback):
    """Ends a run whose loss or weights become NaN or infinite.

    It must precede ``Checkpoints``, so that the last checkpoint has finite weights.

    Raises:
        RuntimeError: from ``fit``; names the step, and the step of the last checkpoint.
    """

    def __init__(self, folder: Path, budget: Budget):
        super().__init__()
        self._folder, self._budget = folder, budget

    def on_train_batch_end(self, batch, logs=None):
        if not np.isfinite(float((logs or {}).get("loss", 0.0))):
            raise RuntimeError(self._message("loss"))

    def on_epoch_end(self, epoch, logs=None):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        for weight in self.model.weights:  # the loss was computed before the last step's update
            if not np.isfinite(keras.ops.convert_to_numpy(weight).astype(np.float32)).all():
                raise RuntimeError(self._message(f"weight {weight.path}"))

    def _message(self, what: str) -> str:
        saved = read_state(self._folder)
        kept = f"; the checkpoint of step {saved.step} is kept" if saved.checkpoint else ""
        return (
            f"{self._folder}: the {what} is not finite after step {self._budget.state.step}"
            f"{kept}. Lower learning_rate, or check the labels for non-finite values"
        )


class Checkpoints(keras.callbacks.Callback):
    """Saves the run after each epoch, and appends the epoch's losses to a CSV file.

    Args:
        folder: of the run. budget: of the run.
        kept: returns the network to save; None saves the one that is trained.
        group: the processes that train.
    """

    def __init__(self, folder: Path, budget: Budget, kept: Kept = None, group: Group = ALONE):
        super().__init__()
        self._folder, self._budget, self._kept, self._group = folder, budget, kept, group

    def on_epoch_end(self, epoch, logs=None):
        state = self._budget.state
        add_to_curves(self._folder, {"step": state.step, "seconds": state.seconds, **(logs or {})})
        self.save(state)

    def save(self, state: RunState) -> None:
        """Write a checkpoint of the network in its current state."""
        network = self._kept() if self._kept else self.model
        # Keras creates variables as it saves; distributed, they would wait for other processes.
        with self._group.local():
            save_checkpoint(self._folder, network, state)


class StopRequest(keras.callbacks.Callback):
    """Ends a run, with a checkpoint, after the step in which SIGTERM or Ctrl-C arrived.

    ``fit`` is called within ``listening``, where the first signal takes effect at the end of the
    step, and a second one at once. With several hosts it takes effect at the end of the epoch, and
    all stop together, as they also do if one has another reason to stop training. This callback
    must follow ``Checkpoints``.

    Args:
        checkpoints: saves the run. budget: of the run. group: the processes that train.

    Raises:
        Terminated, KeyboardInterrupt: from ``fit``, after the checkpoint.
    """

    def __init__(self, checkpoints: Checkpoints, budget: Budget, group: Group = ALONE):
        super().__init__()
        self._checkpoints, self._budget, self._group = checkpoints, budget, group
        self._signal = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Defer signals in the block; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = signal.SIGTERM, signal.SIGINT
        before = [signal.signal(number, self._receive) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def _receive(self, number: int, frame) -> None:
        if self._signal:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        self._signal = number

    def on_train_batch_end(self, batch, logs=None):
        if self._signal and self._group.shard.world_size == 1:
            self._checkpoints.save(self._budget.state)
            self._stop()

    def on_epoch_end(self, epoch, logs=None):
        # A signal that arrives during this exchange is handled after the next epoch.
        asked, ends = self._group.all_max([self._signal, self.model.stop_training])
        self.model.stop_training = bool(ends)
        if asked:
            self._signal = asked
            self._stop()

    def _stop(self):
        kind = Terminated if self._signal == signal.SIGTERM else KeyboardInterrupt
        step = self._budget.state.step
        raise kind(f"stopped after step {step}; the same command continues from there")


class ShapeMonitor(keras.callbacks.Callback):
    """Logs after each epoch how well shapes are predicted, and ends a run whose shapes collapse.

    Pulling one person's shapes together without keeping people apart turns all shapes into the
    mean face, while the losses still fall. Logged for photos of people not trained on:
    ``shape_explained``, the explained share of the labels' squared deviation from the mean;
    ``shape_size``, the size of the predicted deviation relative to the labels';
    ``shape_relative``, the error relative to that of the mean face. Distances are RMS over
    vertices.

    Args:
        records: with labels.
        index: positions of photos not trained on, of which at most ``MAX_MONITORED`` are used.
        space: of the network's parameters; its mean identity is the mean face.
        kept: as for ``Checkpoints``. group: the processes that train.
        largest: the largest ``shape_size`` of earlier sessions.
    """

    def __init__(
        self,
        records: FaceRecords,
        index: np.ndarray,
        space: ParameterSpace,
        kept: Kept = None,
        group: Group = ALONE,
        largest: float = 0.0,
    ):
        super().__init__()
        self._kept, self._group = kept, group
        count = min(len(index), MAX_MONITORED)
        chosen = index[np.linspace(0, len(index) - 1, count, dtype=int)]
        self._images = np.asarray(records.images[chosen])
        self._identity, self._basis = space.layout.identity, space.shape_basis
        labels = space.whiten(records.parameters[chosen])[:, self._identity]
        self._labels, self._largest, self.collapsed = labels @ self._basis, largest, False

    def on_epoch_end(self, epoch, logs=None):
        """Add the size and error of the shapes to the log; stop if they have collapsed."""
        branch = (self._kept() if self._kept else self.model).get_layer("branch")
        with self._group.local():
            outputs = branch.predict_on_batch(self._images)["parameters"]
        health = shape_health(np.asarray(outputs)[:, self._identity] @ self._basis, self._labels)
        if logs is not None:
            logs |= {f"shape_{name}": value for name, value in health.items()}
        self._largest = max(self._largest, health["size"])
        if health["size"] < min(COLLAPSED_SIZE, self._largest / 4):
            self.collapsed = self.model.stop_training = True


def largest_shape(folder: Path) -> float:
    """The largest ``shape_size`` of a run's sessions so far; 0 before the first row.

    Raises:
        ValueError: the curves are damaged.
    """
    columns = read_curves(folder) if has_curves(folder) else {}
    return float(np.fmax.reduce(columns.get("shape_size", np.zeros(0)), initial=0.0))


def shape_health(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The values that ``ShapeMonitor`` logs, for (n, K) deviations from the mean face, mm."""
    vectors = predicted - labels, predicted, labels
    error, size, true = (np.linalg.norm(x, axis=1) for x in vectors)
    return {
        "explained": float(1 - np.square(error).sum() / np.square(true).sum()),
        "size": float(np.sqrt(np.square(size).sum() / np.square(true).sum())),
        "relative": float(error.mean() / true.mean()),
    }


class Progress(keras.callbacks.Callback):
    """A progress bar for the whole run: the used fraction of its budget, of steps or time.

    ``fit`` is called within ``contextlib.closing(progress)``, so that the bar's line also ends if
    training does not: Keras then calls no callback.
    """

    def __init__(self, budget: Budget, steps: int):
        super().__init__()
        self._budget, self._steps = budget, steps
        self._bar: tqdm | None = None

    def on_train_begin(self, logs=None):
        form = "{desc}: {percentage:3.0f}%|{bar}| {postfix}"
        start = self._budget.progress
        self._bar = tqdm(total=1.0, initial=start, desc="training", bar_format=form)

    def on_train_batch_end(self, batch, logs=None):
        assert self._bar is not None  # since on_train_begin
        loss = float((logs or {}).get("loss", np.nan))
        left = tqdm.format_interval(self._budget.seconds_left)
        step = self._budget.state.step
        self._bar.set_postfix_str(
            f"step {step} of {self._steps}, {left} left, loss {loss:.3f}", refresh=False
        )
        self._bar.update(self._budget.progress - self._bar.n)

    def close(self) -> None:
        """End the bar's line, so that what is printed next is below it."""
        if self._bar is not None:
            self._bar.close()

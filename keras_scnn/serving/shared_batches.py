"""One network for many threads: simultaneous requests run as one batch."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future

import numpy as np

from keras_scnn.models.inference import Network

Request = tuple[np.ndarray, Future]


class SharedBatches:
    """Gathers crops from several threads for one thread that runs the network.

    Args:
        network: takes (M, S, S, 3) crops, returns arrays with M as the first axis.
        max_crops: number of crops at which a batch waits for no more; a single call may have more.
        wait_s: seconds that the first request of a batch waits for others.
    """

    def __init__(self, network: Network, max_crops: int = 64, wait_s: float = 0.002):
        self._network, self._max_crops, self._wait_s = network, max_crops, wait_s
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._lock, self._is_open = threading.Lock(), True  # so that nothing follows the None
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    def __call__(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """The network's outputs for (M, S, S, 3) crops; waits for them.

        Raises:
            RuntimeError: ``close`` was called before.
            Exception: whatever the network raises.
        """
        answer: Future = Future()
        with self._lock:
            if not self._is_open:
                raise RuntimeError("the network was closed")
            self._requests.put((crops, answer))
        return answer.result()

    def close(self) -> None:
        """End the thread once all requests are answered."""
        with self._lock:
            self._is_open = False
            self._requests.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._requests.get()) is not None:
            self._answer([first, *self._others(len(first[0]))])

    def _answer(self, batch: list[Request]) -> None:
        """Run requests as one batch; if that fails, each alone, so that a bad one fails alone."""
        try:
            outputs = self._network(np.concatenate([crops for crops, _ in batch]))
        except Exception as error:  # the caller gets it, the thread goes on
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for request in batch:
                    self._answer([request])
            return
        at = 0
        for crops, answer in batch:
            end = at + len(crops)
            answer.set_result({key: value[at:end] for key, value in outputs.items()})
            at = end

    def _others(self, count: int) -> list[Request]:
        """Further requests that arrive while the first one waits."""
        waiting: list[Request] = []
        until = time.monotonic() + self._wait_s
        while count < self._max_crops:
            try:
                request = self._requests.get(timeout=max(until - time.monotonic(), 0))
            except queue.Empty:
                break
            if request is None:  # closed: answer these, then stop
                self._requests.put(None)
                break
            waiting.append(request)
            count += len(request[0])
        return waiting

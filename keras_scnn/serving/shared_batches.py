"""One network for many threads: what they ask for at the same time runs as one batch."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

Network = Callable[[np.ndarray], dict[str, np.ndarray]]
Asked = tuple[np.ndarray, Future]


class SharedBatches:
    """Gathers crops of several threads for one thread that runs the network.

    Args:
        network: takes (M, S, S, 3) crops, gives arrays with M as first axis.
        most: crops after which it waits for no more; a single call may have more.
        wait_s: how long the first of a batch waits for others.
    """

    def __init__(self, network: Network, most: int = 64, wait_s: float = 0.002):
        self._network, self._most, self._wait_s = network, most, wait_s
        self._asked: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._open = True
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    def __call__(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """The network's outputs for (M, S, S, 3) crops; waits for them.

        Raises:
            RuntimeError: ``close`` was called before.
            Exception: whatever the network raises.
        """
        if not self._open:
            raise RuntimeError("the network was closed")
        answer: Future = Future()
        self._asked.put((crops, answer))
        return answer.result()

    def close(self) -> None:
        """End the thread once all that was asked for is answered."""
        self._open = False
        self._asked.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._asked.get()) is not None:
            batch = [first, *self._others(len(first[0]))]
            try:
                outputs = self._network(np.concatenate([crops for crops, _ in batch]))
            except Exception as error:  # every caller gets it, the thread goes on
                for _, answer in batch:
                    answer.set_exception(error)
                continue
            at = 0
            for crops, answer in batch:
                end = at + len(crops)
                answer.set_result({key: value[at:end] for key, value in outputs.items()})
                at = end

    def _others(self, count: int) -> list[Asked]:
        """What else is asked for within the time that the first one waits."""
        found: list[Asked] = []
        until = time.monotonic() + self._wait_s
        while count < self._most:
            try:
                asked = self._asked.get(timeout=max(until - time.monotonic(), 0))
            except queue.Empty:
                break
            if asked is None:  # closed: answer these, then stop
                self._asked.put(None)
                break
            found.append(asked)
            count += len(asked[0])
        return found

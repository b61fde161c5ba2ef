import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
import pytest

from keras_scnn.serving.shared_batches import SharedBatches


class Doubling:
    """A network that remembers its batches; the first one lasts until ``go`` is set."""

    def __init__(self):
        self.sizes, self.go = [], threading.Event()

    def __call__(self, crops):
        self.sizes.append(len(crops))
        if len(self.sizes) == 1:
            assert self.go.wait(10)
        if (crops < 0).any():
            raise ValueError("negative")
        return {"twice": crops * 2, "first": crops[:, 0]}


def asked_at_once(network: Doubling, shared: SharedBatches, asked: list) -> list[Future]:
    """Outcomes of requests of which all but the first wait together."""
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = [pool.submit(shared, asked[0])]
        while not network.sizes:
            time.sleep(0.001)
        answers += [pool.submit(shared, one) for one in asked[1:]]
        while shared._requests.qsize() < len(asked) - 1:
            time.sleep(0.001)
        network.go.set()
    return answers


def test_simultaneous_requests_run_as_one_batch_and_each_gets_its_own_outputs():
    network = Doubling()
    shared = SharedBatches(network, max_crops=64, wait_s=0.05)
    asked = [np.random.default_rng(i).random((1 + i % 3, 4)) for i in range(20)]
    for one, answer in zip(asked, asked_at_once(network, shared, asked), strict=True):
        np.testing.assert_array_equal(answer.result(10)["twice"], one * 2)
        np.testing.assert_array_equal(answer.result(10)["first"], one[:, 0])
    assert network.sizes == [len(asked[0]), sum(map(len, asked[1:]))]
    shared.close()


def test_an_error_reaches_the_caller_and_the_thread_continues():
    network = Doubling()
    network.go.set()
    shared = SharedBatches(network)
    with pytest.raises(ValueError, match="negative"):
        shared(np.full((2, 3), -1.0))
    assert shared(np.ones((2, 3)))["twice"].shape == (2, 3)
    shared.close()
    with pytest.raises(RuntimeError, match="closed"):
        shared(np.ones((2, 3)))


def test_an_error_of_one_request_does_not_reach_those_of_its_batch():
    network = Doubling()
    shared = SharedBatches(network, wait_s=0.05)
    asked = [np.full((2, 3), value) for value in (1.0, 2.0, -1.0, 3.0)]
    answers = asked_at_once(network, shared, asked)
    errors = [answer.exception(10) for answer in answers]
    assert [str(error) for error in errors] == ["None", "None", "negative", "None"]
    for i in (0, 1, 3):
        np.testing.assert_array_equal(answers[i].result()["twice"], 2 * asked[i])
    assert network.sizes == [2, 6, 2, 2, 2]
    shared.close()


def in_thread(call, *arguments) -> Future:
    """The outcome of a call in a thread that may hang."""
    outcome = Future()

    def work():
        outcome.set_result(call(*arguments))

    threading.Thread(target=work, daemon=True).start()
    return outcome


class LateRequests:
    """A queue to which a request comes once another thread has closed the batches, if it can."""

    def __init__(self, shared):
        self._requests, self._shared = shared._requests, shared
        self.get = self._requests.get

    def put(self, request):
        if request is not None:
            self.closed = in_thread(self._shared.close)
            wait([self.closed], timeout=0.2)
        self._requests.put(request)


def test_a_request_at_the_time_of_close_is_answered():
    network = Doubling()
    network.go.set()
    shared = SharedBatches(network)
    shared._requests = LateRequests(shared)
    assert in_thread(shared, np.ones((2, 3))).result(10)["twice"].shape == (2, 3)
    shared._requests.closed.result(10)


def test_close_answers_open_requests():
    network = Doubling()
    shared = SharedBatches(network, max_crops=1)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(shared, np.full((1, 2), i)) for i in range(3)]
        while shared._requests.qsize() < 2:
            time.sleep(0.001)
        closing = pool.submit(shared.close)
        network.go.set()
        closing.result(10)
        for i, answer in enumerate(answers):
            assert answer.result(10)["first"].tolist() == [2 * i / 2]

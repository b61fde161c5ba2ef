import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

from keras_scnn.storage import one_thread


class Controller:
    """As threadpoolctl's: a limit restores what it found."""

    threads = 8

    @contextlib.contextmanager
    def limit(self, limits):
        before, self.threads = self.threads, limits
        yield
        self.threads = before


def test_overlapping_limits_are_removed_at_the_end(monkeypatch):
    """As from two threads that fit at once, of which the first one ends first."""
    blas, begun, ended = Controller(), threading.Event(), threading.Event()
    monkeypatch.setattr(one_thread, "_blas", lambda: blas)

    def second():
        with one_thread.ONE_BLAS_THREAD.held():
            begun.set()
            assert ended.wait(10)
            assert blas.threads == 1

    with ThreadPoolExecutor(1) as pool:
        with one_thread.ONE_BLAS_THREAD.held():
            assert blas.threads == 1
            other = pool.submit(second)
            assert begun.wait(10)
        ended.set()
        other.result()
    assert blas.threads == 8
    with one_thread.ONE_BLAS_THREAD.held():
        assert blas.threads == 1

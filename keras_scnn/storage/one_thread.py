"""Limits libraries to one thread while threads compute with them: more would only wait."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache

from threadpoolctl import ThreadpoolController, threadpool_limits

from keras_scnn.storage.shared_state import SharedState


@cache
def _blas() -> ThreadpoolController:
    """Cached: the search for loaded libraries takes longer than a small fit."""
    return ThreadpoolController().select(user_api="blas")


def _limit() -> Callable[[], None]:
    limits = contextlib.ExitStack()
    limits.enter_context(_blas().limit(limits=1))
    return limits.close


def _limit_others() -> Callable[[], None]:
    import cv2

    limits = contextlib.ExitStack()
    limits.callback(cv2.setNumThreads, cv2.getNumThreads())
    cv2.setNumThreads(1)
    limits.enter_context(threadpool_limits(1, "openmp"))
    return limits.close


# Limits of the whole process, each of which lasts while any thread needs it.
ONE_BLAS_THREAD, _OTHERS = SharedState(_limit), SharedState(_limit_others)


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Limit OpenCV, BLAS and OpenMP to one thread per calling thread."""
    with ONE_BLAS_THREAD.held(), _OTHERS.held():
        yield

"""One thread of BLAS for each thread that computes with small matrices: more would only wait."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import cache

from threadpoolctl import ThreadpoolController

_limiting = threading.Lock()


@cache
def _blas() -> ThreadpoolController:
    """Found once: to look for the loaded libraries takes longer than a small fit."""
    return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """In the block, BLAS has one thread; where another thread is in such a block, as it leaves it.

    The limit is the whole process's. Of two that overlap, each would put back what it found: the
    last one the first one's limit, for good.
    """
    if not _limiting.acquire(blocking=False):
        yield
        return
    try:
        with _blas().limit(limits=1):
            yield
    finally:
        _limiting.release()

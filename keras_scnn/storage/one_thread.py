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
    """BLAS has one thread in the block, unless another thread's block sets and ends the limit.

    The limit is that of the process. If two blocks overlapped, each would restore what it found,
    and the last one would restore the limit of the first one, for good.
    """
    if not _limiting.acquire(blocking=False):
        yield
        return
    try:
        with _blas().limit(limits=1):
            yield
    finally:
        _limiting.release()

"""Limits BLAS to one thread while threads compute with small matrices: more would only wait."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache

from threadpoolctl import ThreadpoolController

from keras_scnn.storage.shared_state import SharedState


@cache
def _blas() -> ThreadpoolController:
    """Cached: the search for loaded libraries takes longer than a small fit."""
    return ThreadpoolController().select(user_api="blas")


def _limit() -> Callable[[], None]:
    limits = contextlib.ExitStack()
    limits.enter_context(_blas().limit(limits=1))
    return limits.close


ONE_BLAS_THREAD = SharedState(_limit)
"""The limit is for the whole process; it lasts while any thread needs it."""

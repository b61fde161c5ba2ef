"""Bodies of JSON: their structure is limited before they are parsed."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Callable, Iterator

from keras_scnn.serving.requests import MAX_INSTANCES
from keras_scnn.storage.shared_state import SharedState

# A parsed object, list or text takes up to 100 times as many bytes as its brackets or quotes. No
# request that is accepted has more of them than this. A pixel "[0,0,0]," takes 8 bytes, so there is
# at most one list per 7 bytes.
MOST = {"{": 4 * MAX_INSTANCES, '"': 16 * MAX_INSTANCES}
LIST_BYTES, FEW_LISTS = 7, 1000
# Anything else is one value, or ends the parser at its first byte, as photos do.
SEVERAL_VALUES = re.compile(rb"\s*[{\[]")


def _stop_collection() -> Callable[[], None]:
    was_enabled = gc.isenabled()
    gc.disable()
    return gc.enable if was_enabled else lambda: None


NO_COLLECTION = SharedState(_stop_collection)


@contextlib.contextmanager
def parsing(body: bytes) -> Iterator[None]:
    """Parse a body of JSON in this context, once its structure is checked.

    The garbage collector waits until then: in Python 3.11 and before, it takes four fifths of the
    time in which a large body is parsed, and nothing else runs.

    Raises:
        InvalidInput: it has implausibly many objects, texts or lists.
    """
    if SEVERAL_VALUES.match(body):
        _check_structure(body)
    with NO_COLLECTION.held():
        yield


def _check_structure(body: bytes) -> None:
    from kserve.errors import InvalidInput

    most = MOST | {"[": len(body) // LIST_BYTES + FEW_LISTS}
    for mark, allowed in most.items():
        if (count := body.count(mark.encode())) > allowed:
            size = f"a JSON body of {len(body):,} bytes"
            raise InvalidInput(
                f"{count:,} times {mark!r} in {size}; at most {allowed:,} are accepted"
            )

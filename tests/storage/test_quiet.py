import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from keras_scnn.storage.quiet import without_native_lines

WITHOUT_STDERR = """
import os
os.close(2)
from keras_scnn.storage.quiet import without_native_lines
with without_native_lines():
    print("inside")
"""


def free_descriptor() -> int:
    number = os.dup(2)
    os.close(number)
    return number


def test_stderr_is_dropped_until_the_last_block_ends(capfd):
    first, second = without_native_lines(), without_native_lines()
    with first:
        second.__enter__()
        os.write(2, b"dropped, ")
    os.write(2, b"dropped too, ")
    second.__exit__(None, None, None)
    os.write(2, b"kept")
    assert capfd.readouterr().err == "kept"


def test_blocks_of_threads_that_overlap_leave_stderr_as_it_was(capfd):
    inside, free = threading.Barrier(4), free_descriptor()

    def block(_):
        with without_native_lines():
            inside.wait(10)
            os.write(2, b"dropped")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(block, range(4)))
    os.write(2, b"kept")
    assert capfd.readouterr().err == "kept"
    assert free_descriptor() == free  # none stays open


def test_a_process_may_have_no_stderr():
    command = [sys.executable, "-c", WITHOUT_STDERR]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "inside\n"

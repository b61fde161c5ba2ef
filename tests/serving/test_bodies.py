"""The collection of garbage while JSON is parsed."""

import gc
import threading

import pytest

pytest.importorskip("kserve", reason="extra 'serve' is not installed")
from kserve.errors import InvalidInput  # noqa: E402

from keras_scnn.serving.bodies import parsing  # noqa: E402


@pytest.fixture(params=[True, False], ids=["on", "off"])
def was_on(request):
    """Whether garbage was collected before."""
    before = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if before else gc.disable)()


def test_no_garbage_is_collected_while_a_body_is_parsed(was_on):
    with parsing(b"{}"):
        assert not gc.isenabled()
    assert gc.isenabled() == was_on


def test_garbage_is_collected_again_after_an_error(was_on):
    with pytest.raises(KeyError), parsing(b"{}"):
        raise KeyError
    assert gc.isenabled() == was_on
    with pytest.raises(InvalidInput, match="times '{'"), parsing(b"[" + b"{}," * 2000 + b"{}]"):
        pytest.fail("it was parsed")
    assert gc.isenabled() == was_on


def test_the_last_of_several_threads_starts_the_collection_again(was_on):
    inside, leave = threading.Event(), threading.Event()

    def parse():
        with parsing(b"{}"):
            inside.set()
            assert leave.wait(10)

    thread = threading.Thread(target=parse)
    thread.start()
    assert inside.wait(10)
    with parsing(b"{}"):
        assert not gc.isenabled()
    assert not gc.isenabled()
    leave.set()
    thread.join(10)
    assert gc.isenabled() == was_on


@pytest.mark.parametrize("body", [b"\xff\xd8" + b"{" * 5000, b'"' + b"[" * 5000, b"", b"17"])
def test_a_body_of_one_value_has_no_structure(body):
    with parsing(body):
        pass


@pytest.mark.parametrize("blanks", [b"", b" \n\t\r" * 3])
@pytest.mark.parametrize("begin", [b"{", b"["])
def test_blanks_before_a_body_do_not_hide_its_structure(begin, blanks):
    with pytest.raises(InvalidInput, match="in a JSON body of"), parsing(blanks + begin * 5000):
        pytest.fail("it was parsed")

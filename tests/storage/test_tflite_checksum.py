import random
import re

import pytest

from keras_scnn.models.presets import FOLDER, LITE_FILE
from keras_scnn.photos.blazeface import model_path
from keras_scnn.storage.tflite import read_lite_file, read_metadata, with_metadata


def test_a_byte_that_changed_anywhere_is_noticed(tmp_path):
    """LiteRT runs with any weights: faces would be wrong without an error."""
    metadata = {"format": "a", "digest": "0" * 64}
    content = with_metadata(model_path().read_bytes(), metadata)
    assert read_metadata(content) == metadata
    key = content.index(b"sha256") + len(b"sha256")
    places = [key, key + 4, key + 40, *random.Random(0).sample(range(8, len(content)), 40)]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1
        (tmp_path / "a.tflite").write_bytes(changed)
        with pytest.raises(ValueError, match="a.tflite: not a .tflite file of keras_scnn, or dam"):
            read_lite_file(tmp_path / "a.tflite")


def test_metadata_that_are_replaced_have_one_checksum():
    content = with_metadata(model_path().read_bytes(), {"a": 1})
    assert read_metadata(with_metadata(content, {"b": 2})) == {"b": 2}


def test_an_older_file_without_a_checksum_is_read():
    """Spaces in place of the entry: the JSON of files from before there were checksums."""
    metadata = {"format": "a", "digest": "0" * 64}
    content = with_metadata(model_path().read_bytes(), metadata)
    older = re.sub(rb', "sha256": "\w{64}"', lambda found: b" " * len(found[0]), content)
    assert b"sha256" in content and b"sha256" not in older
    assert len(older) == len(content)
    assert read_metadata(older) == metadata


def test_released_files_have_a_checksum():
    files = sorted(FOLDER.glob(f"*/{LITE_FILE}"))
    assert files
    for file in files:
        assert b'"sha256"' in file.read_bytes(), file
        assert read_metadata(file.read_bytes())["format"] == "keras_scnn.network"

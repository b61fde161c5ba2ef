from pathlib import Path

import pytest

from keras_scnn.export.metadata import CARD, read_card
from keras_scnn.models.presets import FOLDER


def test_a_folder_of_a_presets_name_does_not_hide_its_card(tmp_path, monkeypatch):
    (tmp_path / "mobile").mkdir()
    (tmp_path / "mobile" / CARD).write_text("another card")
    monkeypatch.chdir(tmp_path)
    assert read_card("mobile") == (FOLDER / "mobile" / CARD).read_text(encoding="utf-8")


def test_a_preset_may_have_no_card_but_not_one_in_another_encoding(tmp_path):
    assert read_card(tmp_path) == ""
    Path(tmp_path, CARD).write_bytes("Gesichter für alle".encode("latin-1"))
    with pytest.raises(ValueError, match="CARD.md: not a text file in UTF-8"):
        read_card(tmp_path)

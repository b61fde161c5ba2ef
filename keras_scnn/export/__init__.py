"""Doorway to the top-level ``export`` folder for a plain checkout; never packaged."""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / "export")]

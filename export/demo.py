"""The browser page: ``keras-scnn demo [PRESET]``.

Exports the preset, builds the page in ``web/`` with Node.js, serves both on this machine and opens
the browser. The build is kept in a cache folder, so the next start needs no Node.js. Everything
comes from this machine; the network is used only once, by npm.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import webbrowser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from keras_scnn.export.formats import QUANTIZE
from keras_scnn.settings import DEFAULT_PRESET, CommandParser, command
from keras_scnn.storage.atomic import staged_folder

if TYPE_CHECKING:
    from keras_scnn.models import Preset

SOURCES = Path(__file__).resolve().parent / "web"
CACHE = Path.home() / ".cache" / "keras_scnn"
NOT_SOURCES = ("node_modules", "dist")
WASM = Path("node_modules") / "@litertjs" / "core" / "wasm"
DIGITS = 6  # of numbers in model.json


def build_page(cache: Path) -> Path:
    """The folder in which the page is built, by ``npm ci`` and Vite where that is not done yet.

    Raises:
        RuntimeError: Node.js is missing, or the build fails.
    """
    folder = cache / f"web-{_fingerprint()}"
    if (folder / "dist" / "index.html").is_file():
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is not installed; the page is built with Node.js 20 or later")
    with staged_folder(cache) as aside:
        work = aside / "web"
        shutil.copytree(SOURCES, work, ignore=shutil.ignore_patterns(*NOT_SOURCES))
        for words in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
            print(f"npm {' '.join(words)} ...", flush=True)
            done = subprocess.run([npm, *words], cwd=work, capture_output=True, text=True)
            if done.returncode:
                last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
                raise RuntimeError(f"npm {' '.join(words)} failed in the page's folder:\n{last}")
        os.replace(work, folder)
    return folder


def _fingerprint() -> str:
    """Short hash of the page's sources."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*")):
        inside = path.relative_to(SOURCES)
        if path.is_file() and inside.parts[0] not in NOT_SOURCES:
            digest.update(f"{inside.as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def write_model(folder: Path, preset: Preset, name: str, precision: str = "float32") -> None:
    """Write what the page loads: model.json, maps.bin, and scnn, blazeface and facemesh .tflite."""
    from keras_scnn.export.chart import describe_chart
    from keras_scnn.export.metadata import read_card
    from keras_scnn.export.tflite import write_tflite
    from keras_scnn.photos import facemesh
    from keras_scnn.photos.blazeface import model_path

    card = read_card(name)
    write_tflite(folder / "scnn.tflite", preset, precision, True, None, name, card)
    shutil.copyfile(model_path(), folder / "blazeface.tflite")
    shutil.copyfile(model_path(facemesh.MODEL_FILE), folder / "facemesh.tflite")
    chart, maps = describe_chart(preset.face_model)
    (folder / "maps.bin").write_bytes(maps)
    (folder / "model.json").write_text(json.dumps(describe(preset, name) | chart))


def describe(preset: Preset, name: str) -> dict:
    """What the page has to know besides the networks: see ``Model`` in web/src/face.ts.

    Raises:
        ValueError: the preset's calibration is damaged.
    """
    import numpy as np

    from keras_scnn.export.metadata import build_metadata
    from keras_scnn.reconstruction.comparison import probabilities
    from keras_scnn.shape_distance import mahalanobis_coordinates, shape_coordinates

    model, identity = preset.face_model, preset.layout.identity
    coordinates = shape_coordinates(model, np.eye(model.n_identity))
    scatter = preset.within_person_covariance
    scaled = None if scatter is None else mahalanobis_coordinates(coordinates, scatter)
    calibration = preset.metadata.get("verification")
    probabilities(calibration, 0, 0, 0)  # refuses a damaged one here, not on the page
    return {
        "crop": build_metadata(preset, name)["crop"],
        "identity": [identity.start, identity.stop],
        "coordinates": np.round(np.float64(coordinates), DIGITS).tolist(),
        "scaled_coordinates": None if scaled is None else np.round(scaled, DIGITS).tolist(),
        "verification": calibration,
    }


class PageHandler(SimpleHTTPRequestHandler):
    """Serves the built page, LiteRT's WebAssembly under /wasm/ and the networks under /model/."""

    extensions_map = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".wasm": "application/wasm",
        ".tflite": "application/octet-stream",
    }

    def __init__(self, *args, page: Path, model: Path, **kwargs):
        self.homes = {"wasm": page / WASM, "model": model}
        super().__init__(*args, directory=str(page / "dist"), **kwargs)

    def translate_path(self, path: str) -> str:
        first, _, rest = unquote(urlsplit(path).path).lstrip("/").partition("/")
        if first in self.homes and "/" not in rest and rest not in ("", ".", ".."):
            return str(self.homes[first] / rest)
        return super().translate_path(path)

    def end_headers(self) -> None:
        # LiteRT's threads need a page that is isolated from other origins.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *args) -> None:
        """Say nothing: one page makes a dozen requests."""


def make_server(page: Path, model: Path, port: int) -> ThreadingHTTPServer:
    """A server of the page on 127.0.0.1; port 0 takes a free one."""
    handler = functools.partial(PageHandler, page=page, model=model)
    return ThreadingHTTPServer(("127.0.0.1", port), handler)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of a command line."""
    parser = CommandParser("demo", __doc__)
    add = parser.add_argument
    add("preset", nargs="?", default=DEFAULT_PRESET, help="a preset's name, or a folder")
    known = [precision for precision in QUANTIZE if precision != "int8"]  # needs photos
    add("--quantize", choices=known, default="float32", help="precision of the network")
    add("--port", type=int, default=8000, help="of 127.0.0.1; 0 takes a free one (8000)")
    add("--cache", type=Path, default=CACHE, help="where the built page is kept")
    add("--no-open", action="store_true", help="do not open the browser")
    return parser.parse_args(arguments)


@command
def main(arguments: list[str] | None = None) -> None:
    """The command; ``arguments`` as on the command line. Serves until Ctrl-C."""
    args = parse(arguments)
    from keras_scnn.models.presets import load_preset

    preset = load_preset(args.preset)
    page = build_page(args.cache)
    with contextlib.suppress(KeyboardInterrupt), staged_folder() as folder:
        print("exporting the network ...", flush=True)
        write_model(folder, preset, args.preset, args.quantize)
        with make_server(page, folder, args.port) as server:
            address = f"http://127.0.0.1:{server.server_address[1]}/"
            print(f"serving {address} (Ctrl-C ends it)", flush=True)
            if not args.no_open:
                webbrowser.open(address)
            server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())

"""The browser page as a folder of files for any web host, and a server for it.

A site has ``index.html`` with its scripts, LiteRT's WebAssembly, the sample picture, ``about/``
(license and sources), ``model/`` (the networks) and ``files.json``, which lists all files.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from keras_scnn.storage.atomic import remove_leftovers, staged_folder
from keras_scnn.storage.outputs import real_path
from keras_scnn.storage.tflite import read_metadata, with_metadata

if TYPE_CHECKING:
    from keras_scnn.models import Preset

SOURCES = Path(__file__).resolve().parent / "web"
NOT_SOURCES = ("node_modules", "dist")
LITERT = Path("node_modules") / "@litertjs" / "core"
RUNTIMES = ("internal", "compat_internal", "jspi_internal")  # LiteRT builds that the page may load
ENCODINGS = {"br": ".br", "gzip": ".gz"}  # the better one first
BEST, QUICK = 11, 5  # Brotli qualities
DIGITS = 6  # decimals in model.json
DROPPED_BITS = 2  # of half-precision weights' mantissas, which makes the download 10 % smaller


def build_page(cache: Path) -> Path:
    """The folder in which the page is built; unless it exists, build it with ``npm ci`` and Vite.

    Its ``dist`` is a site without networks.

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
            _run([npm, *words], work)
        _add_runtime(work)
        _put_page(work, folder)
    return folder


def _put_page(work: Path, folder: Path) -> None:
    """Move a finished page to its place, unless another process has put one there.

    Raises:
        OSError: it cannot be moved.
    """
    if not (folder / "dist" / "index.html").is_file() and folder.exists():
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            os.replace(folder, work.with_name("incomplete"))
    try:
        os.replace(work, folder)
    except OSError:
        if not (folder / "dist" / "index.html").is_file():
            raise


def compress(folder: Path, quality: int = BEST) -> None:
    """Write .br and .gz copies beside a folder's files; a RuntimeError if Node.js is missing.

    Args:
        folder: processed recursively.
        quality: of Brotli, 1 to 11.
    """
    _run([find_node(), "compress.mjs", str(folder.resolve()), str(quality)], SOURCES)


def find_node() -> str:
    """Path of the command ``node``; a RuntimeError if it is missing."""
    node = shutil.which("node")
    if node is None:
        raise RuntimeError("node is not installed; files are compressed with Node.js 20 or later")
    return node


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise RuntimeError(f"{Path(command[0]).name} {command[1]} failed:\n{last}")


def write_site(
    folder: Path, page: Path, preset: Preset, name: str, precision: str, quality: int | None = BEST
) -> None:
    """Write the site of a preset to a new folder, all or nothing.

    Args:
        folder: must not exist yet, or be empty.
        page: see ``build_page``.
        preset: the trained network.
        name: of the preset.
        precision: of the network: 'float32', 'float16' or 'dynamic'.
        quality: of the compressed copies, 1 to 11; None for no copies.

    Raises:
        FileExistsError: the folder is not empty.
        OSError, RuntimeError, ValueError: the site cannot be written, compressed or exported.
    """
    check_new(folder)
    folder = real_path(folder)
    exists = folder.is_dir()  # it may be the current folder or a volume, which cannot be replaced
    with staged_folder(folder if exists else folder.parent) as aside:
        site = aside / "site"
        shutil.copytree(page / "dist", site)
        (site / "model").mkdir()
        write_model(site / "model", preset, name, precision)
        network = site / "model" / "scnn.tflite"
        network.with_suffix(".bin").write_bytes(split_byte_planes(network.read_bytes()))
        network.unlink()
        if quality is not None:
            compress(site, quality)
        (site / "files.json").write_text(json.dumps(list_files(site)))
        if not exists:
            os.replace(site, folder)
            return
        for path in sorted(site.iterdir(), key=lambda path: path.name == "index.html"):
            os.replace(path, folder / path.name)  # index.html last: without it there is no site


def check_new(folder: Path) -> None:
    """Raise a FileExistsError if a folder is not empty, or is a file."""
    if folder.is_dir():
        remove_leftovers(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists; the site needs a new or an empty folder")


def list_files(site: Path) -> dict:
    """The contents of ``files.json``: version, the runtime's folder, and each file's size in bytes.

    ``sent`` is the size of the smallest copy, for servers that send compressed copies.
    """
    files, digest = {}, hashlib.sha256()
    for path in sorted(site.rglob("*")):
        if not path.is_file() or path.suffix in ENCODINGS.values():
            continue
        name, content = path.relative_to(site).as_posix(), path.read_bytes()
        digest.update(f"{name}\n".encode() + content)
        copies = [path.with_name(path.name + suffix) for suffix in ENCODINGS.values()]
        sent = min([len(content), *(c.stat().st_size for c in copies if c.is_file())])
        files[name] = {"bytes": len(content), "sent": sent}
    runtime = next(site.glob("wasm-*")).name
    return {"version": digest.hexdigest()[:12], "runtime": runtime, "files": files}


def split_byte_planes(content: bytes) -> bytes:
    """The bytes at even offsets, then those at odd ones, so that float16 data compresses better.

    >>> split_byte_planes(bytes([1, 2, 3, 4, 5]))
    b'\\x01\\x03\\x05\\x02\\x04'
    """
    return content[::2] + content[1::2]


def write_model(folder: Path, preset: Preset, name: str, precision: str = "float32") -> None:
    """Write the files that the page loads: model.json, maps.bin and the three .tflite networks.

    Also writes terms.txt, the network's license and card, to which the page about licenses links.
    """
    from keras_scnn.export.chart import describe_chart
    from keras_scnn.export.metadata import read_card
    from keras_scnn.export.tflite import write_tflite
    from keras_scnn.models.presets import preset_name
    from keras_scnn.photos import facemesh
    from keras_scnn.photos.blazeface import model_path

    network, title = folder / "scnn.tflite", preset_name(name)  # without this machine's paths
    card = read_card(name)
    write_tflite(network, preset, precision, True, None, title, card)
    content = network.read_bytes()
    rounded = with_metadata(round_float16_weights(content), read_metadata(content))
    network.write_bytes(rounded)  # its metadata has the checksum of the rounded weights
    shutil.copyfile(model_path(), folder / "blazeface.tflite")
    shutil.copyfile(model_path(facemesh.MODEL_FILE), folder / "facemesh.tflite")
    chart, maps = describe_chart(preset.face_model)
    (folder / "maps.bin").write_bytes(maps)
    (folder / "model.json").write_text(json.dumps(describe(preset, title) | chart))
    # With a byte order mark, since hosts do not tell the browser the text's encoding.
    (folder / "terms.txt").write_text(describe_terms(preset, title, card), encoding="utf-8-sig")


def describe_terms(preset: Preset, name: str, card: str) -> str:
    """The network's license, followed by the preset's card."""
    from keras_scnn.export.metadata import build_metadata

    return f"The network '{name}': {build_metadata(preset, name)['license']}\n\n{card}"


def round_float16_weights(content: bytes, bits: int = DROPPED_BITS) -> bytes:
    """A .tflite file whose half-precision weights have ``bits`` fewer bits in their mantissas.

    Rounds half to even. The file's length does not change, but it compresses better.
    """
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    changed = bytearray(content)
    model = schema.Model.GetRootAs(changed, 0)
    step = 1 << bits
    for i in range(model.SubgraphsLength()):
        graph = model.Subgraphs(i)
        for tensor in map(graph.Tensors, range(graph.TensorsLength())):
            buffer = model.Buffers(tensor.Buffer())
            if tensor.Type() != schema.TensorType.FLOAT16 or not buffer.DataLength():
                continue
            weights = buffer.DataAsNumpy().view(np.uint16)  # a view of the file's bytes
            weights[:] = (weights + (step // 2 - 1) + (weights >> bits & 1)) & (0x10000 - step)
    return bytes(changed)


def describe(preset: Preset, name: str) -> dict:
    """The data that the page needs besides the networks: see ``Model`` in web/src/face.ts.

    Raises:
        ValueError: the preset's calibration is damaged.
    """
    import numpy as np

    from keras_scnn.evaluation.calibration import checked_calibration
    from keras_scnn.export.metadata import build_metadata
    from keras_scnn.export.pipeline import describe_check, describe_detector
    from keras_scnn.shape_distance import mahalanobis_coordinates, shape_basis

    model = preset.face_model
    coordinates = shape_basis(model)
    covariance = preset.within_person_covariance
    scaled = None if covariance is None else mahalanobis_coordinates(coordinates, covariance)
    calibration = checked_calibration(preset.metadata.get("verification"))
    metadata = build_metadata(preset, name)
    slices = metadata["parameters"]["slices"]
    return {
        "crop": metadata["crop"],
        "detector": describe_detector(),
        "check": describe_check(),
        "identity": slices["identity"],
        "expression": slices["expression"],
        "expression_names": list(model.expression_names or ()),
        "coordinates": np.round(np.float64(coordinates), DIGITS).tolist(),
        "scaled_coordinates": None if scaled is None else np.round(scaled, DIGITS).tolist(),
        "verification": calibration,
    }


class PageHandler(SimpleHTTPRequestHandler):
    """Serves a site; sends compressed copies if the browser accepts them."""

    encoding: str | None = None
    timeout = 30  # s, for a connection that sends nothing
    extensions_map = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".wasm": "application/wasm",
        ".tflite": "application/octet-stream",
    }

    def translate_path(self, path: str) -> str:
        file = super().translate_path(path)
        parts = [part.strip() for part in self.headers.get("Accept-Encoding", "").split(",")]
        for name, suffix in ENCODINGS.items():
            if name in parts and os.path.isfile(file + suffix):
                self.encoding = name
                return file + suffix
        self.encoding = None
        return file

    def guess_type(self, path: str | os.PathLike[str]) -> str:
        suffix = ENCODINGS[self.encoding] if self.encoding else ""
        return super().guess_type(str(path).removesuffix(suffix))

    def send_head(self):
        # By its time stamp, a build may be older than another build cached for this address.
        del self.headers["If-Modified-Since"]
        if "\0" in unquote(self.path):  # file functions raise an error for such a name
            return self.send_error(404)
        return super().send_head()

    def list_directory(self, path: str | os.PathLike[str]) -> None:
        self.send_error(404)

    def end_headers(self) -> None:
        if self.encoding:
            self.send_header("Content-Encoding", self.encoding)
        self.send_header("Vary", "Accept-Encoding")
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def send_error(self, *args, **kwargs) -> None:
        self.encoding = None  # the error page, unlike the file, is not compressed
        super().send_error(*args, **kwargs)

    def log_message(self, *args) -> None:
        """Log nothing: one page makes a dozen requests."""


def make_server(
    site: Path, port: int, host: str = "127.0.0.1", certificate: Path | None = None
) -> ThreadingHTTPServer:
    """A server for a site; port 0 chooses a free one. With a certificate it uses https."""
    kind = _Server6 if ":" in host else _Server
    server = kind((host, port), functools.partial(PageHandler, directory=str(site)))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        # The handshake waits for the browser, so it is left to each connection's thread.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    return server


class _Server(ThreadingHTTPServer):
    """Logs nothing if a browser disconnects, or does not trust the certificate yet."""

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exc_info()[1], (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


def find_openssl() -> str:
    """Path of the command ``openssl``; a RuntimeError if it is missing."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise RuntimeError("openssl is not installed; it makes the certificate that --host needs")
    return openssl


def make_certificate(folder: Path, host: str) -> Path:
    """A self-signed certificate for an address, with its key, in one file, made by OpenSSL.

    Raises:
        RuntimeError: the command ``openssl`` is missing or fails.
    """
    openssl = find_openssl()
    path = folder / "certificate.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -batch"
    subject = ["-subj", "/CN=keras_scnn demo", "-addext", f"subjectAltName=IP:{host}"]
    key = folder / "key.pem"
    _run([openssl, *words.split(), *subject, "-keyout", str(key), "-out", str(path)], folder)
    with path.open("ab") as file:
        file.write(key.read_bytes())
    return path


def _add_runtime(work: Path) -> None:
    """Add LiteRT's WebAssembly, in a folder named by its version, and what licenses require."""
    core, about = work / LITERT, work / "dist" / "about"
    version = json.loads((core / "package.json").read_text())["version"]
    folder = work / "dist" / f"wasm-{version}"
    folder.mkdir()
    for name in RUNTIMES:
        for suffix in (".js", ".wasm"):
            file = f"litert_wasm_{name}{suffix}"
            shutil.copyfile(core / "wasm" / file, folder / file)
    shutil.copyfile(work / "node_modules" / "three" / "LICENSE", about / "three.txt")
    with zipfile.ZipFile(about / "source.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _sources():
            archive.write(path, path.relative_to(SOURCES))


def _sources() -> list[Path]:
    """The files from which the page is built."""
    paths = (path for path in sorted(SOURCES.rglob("*")) if path.is_file())
    return [path for path in paths if path.relative_to(SOURCES).parts[0] not in NOT_SOURCES]


def _fingerprint() -> str:
    """Short hash of the page's sources and of this file."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in _sources():
        name = path.relative_to(SOURCES).as_posix()
        digest.update(f"{name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]

"""Stores for tests of URLs: S3 by moto on loopback, HTTP on loopback, and one that fails."""

import contextlib
import errno
import functools
import http.server
import os
import threading
import uuid
from pathlib import Path

import pytest

fsspec = pytest.importorskip("fsspec", reason="extra 'remote' is not installed")
MemoryFileSystem = fsspec.get_filesystem_class("memory")


class FailingStore(MemoryFileSystem):
    """Memory, in which writing raises an error once ``left`` objects are written."""

    protocol = "failing"
    store: dict = {}
    pseudo_dirs = [""]
    error: Exception = OSError(errno.ENOSPC, "No space left on device")
    left = 0

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        if FailingStore.left <= 0:
            raise FailingStore.error
        FailingStore.left -= 1
        super().pipe_file(path, value, mode=mode, **kwargs)


fsspec.register_implementation("failing", FailingStore, clobber=True)


def memory_url() -> str:
    """A folder of its own in this process's memory."""
    return f"memory://{uuid.uuid4().hex}"


def put(url: str, folder: Path) -> None:
    """Copy all files of a folder to a URL."""
    fs, root = fsspec.core.url_to_fs(url)
    for path in folder.rglob("*"):
        if path.is_file():
            fs.pipe_file(f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def get(url: str) -> dict[str, bytes]:
    """All files of a URL."""
    fs, root = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    return {path.removeprefix(root).lstrip("/"): fs.cat_file(path) for path in fs.find(root)}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


@contextlib.contextmanager
def http_server(folder: Path):
    """The URL of a folder behind HTTP."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@contextlib.contextmanager
def s3_server(buckets=("photos", "results")):
    """Environment variables with which ``s3://`` leads to a server of moto, which has buckets."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    before = dict(os.environ)
    os.environ.update(environment)
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # of another server
    try:
        client = boto3.client("s3")
        for bucket in buckets:
            client.create_bucket(Bucket=bucket)
        yield environment
    finally:
        server.stop()
        os.environ.clear()
        os.environ.update(before)

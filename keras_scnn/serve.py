"""Serve a preset over HTTP: ``keras-scnn serve PRESET`` (extra 'serve', KServe).

TensorFlow Serving's REST API (``POST /v1/models/scnn:predict``) and the v2 protocol
(``POST /v2/models/scnn/infer``) on one port; docs/serving.md shows the requests.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import sys
from functools import partial

from keras_scnn.settings import (
    DEFAULT_PRESET,
    CommandParser,
    check_above,
    check_at_least,
    command,
)
from keras_scnn.storage.remote import url_host

LEAST_BODY_MB = 0.001  # the smallest JPEG of a face has a few hundred bytes


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options of a command line."""
    parser = CommandParser("serve", __doc__)
    words = f"name, folder or URL ({DEFAULT_PRESET})"
    parser.add_argument("preset", nargs="?", default=DEFAULT_PRESET, help=words)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8501, help="0 chooses a free one (8501)")
    parser.add_argument("--name", default="scnn", help="name of the model in URLs (scnn)")
    parser.add_argument("--vertices", action="store_true", help="return all vertices too")
    parser.add_argument("--max-body-mb", type=float, default=32, help="largest body, MB (32)")
    parser.add_argument("--no-access-log", action="store_true", help="do not log each request")
    words = "small requests processed at the same time (one per core, at least 2)"
    parser.add_argument("--threads", type=int, default=max(os.cpu_count() or 1, 2), help=words)
    args = parser.parse_args(argv)
    parser.check(args, check_above, "threads", "max_body_mb")
    parser.check(args, check_at_least, "max_body_mb", low=LEAST_BODY_MB)
    if not args.host:
        parser.error("--host is empty, which means all addresses; give 0.0.0.0 for those")
    if not 0 <= args.port < 65536:
        parser.error(f"--port is {args.port}; it must be from 0 to 65535")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", args.name):
        parser.error(
            f"--name is {args.name!r}; it must consist of letters, digits and '_', and after the "
            "first character also '.' and '-'"
        )
    return args


@command
def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; then answer open requests."""
    args = parse(argv)
    from keras_scnn.serving.server import build_server, give_freed_memory_back, require_kserve

    require_kserve()
    give_freed_memory_back()
    family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
    try:
        listening = socket.create_server((args.host, args.port), family=family)
    except OSError as error:  # it names neither option
        raise OSError(f"--host {args.host} --port {args.port}: {error}") from error
    from keras_scnn.export.first_use import ensure_network
    from keras_scnn.serving.journal import Metrics
    from keras_scnn.serving.predictor import PresetPredictor, model_version

    ensure_network(args.preset)
    metrics, version = Metrics(), model_version(args.preset)
    predictor = PresetPredictor.from_preset(args.preset, args.vertices, metrics.batch)
    log = None if args.no_access_log else partial(print, file=sys.stderr, flush=True)
    bounds = int(args.max_body_mb * 1e6), args.threads
    server = build_server(predictor, args.name, *bounds, version, metrics, log)
    for one in (signal.SIGTERM, signal.SIGINT):
        # The server has its own handlers while it runs; these are for before and after.
        signal.signal(one, lambda *_: server.stop())
    home = f"http://{url_host(args.host)}:{listening.getsockname()[1]}"
    print(f"serving {args.preset} at {home}/v1/models/{args.name}", flush=True)
    server.run(sockets=[listening])
    predictor.close()


if __name__ == "__main__":
    sys.exit(main())

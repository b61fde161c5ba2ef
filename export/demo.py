"""The browser page: ``keras-scnn demo [PRESET]``.

Exports the preset, builds the page in ``web/`` with Node.js, serves both on this machine and opens
the browser. The build is kept in a cache folder, so later starts need Node.js only for --build and
--host, which compress the files. Everything is served from this machine; only npm downloads
anything, once.

--build DIR writes the page as a folder of files instead, for any web server. --host ADDRESS serves
it to other devices on the same network, over https with a self-signed certificate, about which
browsers warn once: a phone's camera needs https. Anybody who can reach the address can open the
page.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import ipaddress
import socket
import sys
import webbrowser
from pathlib import Path

from keras_scnn.export.formats import QUANTIZE
from keras_scnn.export.website import (
    QUICK,
    build_page,
    check_new,
    find_node,
    find_openssl,
    make_certificate,
    make_server,
    write_site,
)
from keras_scnn.settings import DEFAULT_PRESET, CommandParser, command
from keras_scnn.storage.atomic import staged_folder
from keras_scnn.storage.downloads import user_cache
from keras_scnn.storage.outputs import check_out
from keras_scnn.storage.remote import url_host

LOCAL, PORT = "127.0.0.1", 8000


def check_address(host: str, port: int) -> bool:
    """Check an address, and return whether only this machine can reach it (loopback).

    Raises:
        OSError: the address is another machine's, or the port is in use.
        RuntimeError: other machines can reach it, and ``openssl`` or Node.js is missing.
        ValueError: the host is not the IP address of one machine, or the port is out of range.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is None or address.is_unspecified or address.is_multicast:
        raise ValueError(
            f"--host is {host!r}; it must be this machine's address on the network that it shares "
            "with the other device, such as 192.168.1.20"
        )
    if not 0 <= port <= 65535:
        raise ValueError(f"--port is {port}; it must be from 0 to 65535")
    with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(f"--host {host} --port {port}: {error.strerror}") from error
    if not address.is_loopback:
        find_openssl()
        find_node()
    return address.is_loopback


def choose_precision(asked: str | None) -> str:
    """The precision of the network; an ImportError if a package that it needs is missing."""
    if asked is None and importlib.util.find_spec("ai_edge_quantizer") is None:
        print("using float32; float16, of half the size, needs pip install '.[quantize]'")
        return "float32"
    if asked not in (None, "float32"):
        from keras_scnn.export.tflite import check_quantizer

        check_quantizer()
    return asked or "float16"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser("demo", __doc__)
    add = parser.add_argument
    add("preset", nargs="?", default=DEFAULT_PRESET, help="preset name, folder or URL")
    known = [precision for precision in QUANTIZE if precision != "int8"]  # int8 needs photos
    add("--quantize", choices=known, help="precision of the network (float16)")
    add("--build", type=Path, metavar="DIR", help="write the page to DIR and do not serve it")
    add("--host", metavar="ADDRESS", help="address of this machine, to serve other devices too")
    add("--port", type=int, help=f"port; 0 chooses a free one ({PORT})")
    add("--cache", type=Path, default=user_cache(), help="folder in which the built page is kept")
    add("--no-open", action="store_true", help="do not open the browser")
    return parser.parse_args(arguments)


def check_build_options(args: argparse.Namespace) -> None:
    """Raise a ValueError for an option of serving together with ``--build``."""
    serving = {"host": args.host is not None, "port": args.port is not None}
    for name, is_given in (serving | {"no-open": args.no_open}).items():
        if is_given and args.build is not None:
            raise ValueError(f"--build writes a folder and serves nothing: leave out --{name}")


@command
def main(arguments: list[str] | None = None) -> None:
    """Run the command; ``arguments`` as on the command line. Serves until Ctrl-C."""
    args = parse(arguments)
    check_build_options(args)
    host = args.host if args.host is not None else LOCAL
    port = args.port if args.port is not None else PORT
    if args.build is not None:
        check_new(args.build)
        check_out(args.build)
        find_node()
    else:
        is_local = check_address(host, port)
    precision = choose_precision(args.quantize)
    from keras_scnn.models.presets import load_preset

    preset = load_preset(args.preset)
    page = build_page(args.cache)
    print("exporting the network ...", flush=True)
    if args.build is not None:
        print("compressing, which takes a minute or two ...", flush=True)
        write_site(args.build, page, preset, args.preset, precision)
        print(f"{args.build}: serve this folder; a camera needs https or localhost")
        return
    with contextlib.suppress(KeyboardInterrupt), staged_folder() as folder:
        quality = None if is_local else QUICK
        write_site(folder / "site", page, preset, args.preset, precision, quality)
        serve(folder / "site", host, port, is_local, not args.no_open)


def serve(site: Path, host: str, port: int, is_local: bool, opens: bool) -> None:
    """Serve a site until Ctrl-C; over https unless only this machine can reach it."""
    with staged_folder() as folder:
        certificate = None if is_local else make_certificate(folder, host)
        with make_server(site, port, host, certificate) as server:
            scheme = "http" if is_local else "https"
            address = f"{scheme}://{url_host(host)}:{server.server_address[1]}/"
            print(f"serving {address} (stop with Ctrl-C)", flush=True)
            if not is_local:
                print("to anyone who can reach it; browsers warn about the certificate", flush=True)
            if opens:
                webbrowser.open(address)
            server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())

"""A server of a site, for tests of it and of browsers."""

import contextlib
import threading
from pathlib import Path

from keras_scnn.export import website


@contextlib.contextmanager
def serving(site: Path, **options):
    """Address of a server of a site."""
    with website.make_server(site, 0, **options) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()

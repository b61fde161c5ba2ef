"""Firefox without a window, driven by its own protocol (Marionette), which needs no package."""

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

FIREFOX = os.environ.get("FIREFOX") or shutil.which("firefox-esr") or shutil.which("firefox") or ""
# Nothing is asked of other machines: no updates, no safe browsing, no first pages.
PREFERENCES = {
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
    "webgl.force-enabled": True,  # software may imitate it
}


class Firefox:
    """A browser that runs until ``close``."""

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        lines = PREFERENCES | {"marionette.port": port}
        text = [f'user_pref("{name}", {json.dumps(value)});\n' for name, value in lines.items()]
        (folder / "user.js").write_text("".join(text))
        command = [FIREFOX, "--headless", "--marionette", "--no-remote", "--profile", str(folder)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, **quiet)
        self.count, self.stream = 0, self._connect(port)
        self._read()  # its greeting
        self("WebDriver:NewSession", acceptInsecureCerts=True)
        self("WebDriver:SetTimeouts", script=120_000, pageLoad=60_000)

    def _connect(self, port: int, seconds: float = 60):
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                return socket.create_connection(("127.0.0.1", port)).makefile("rwb")
            assert time.monotonic() < end and self.process.poll() is None, "Firefox does not start"
            time.sleep(0.2)

    def _read(self):
        size = b""
        while (byte := self.stream.read(1)) != b":":
            size += byte
        return json.loads(self.stream.read(int(size)))

    def __call__(self, name: str, **parameters):
        self.count += 1
        message = json.dumps([0, self.count, name, parameters]).encode()
        self.stream.write(f"{len(message)}:".encode() + message)
        self.stream.flush()
        _, _, error, result = self._read()
        assert error is None, error
        return result.get("value") if isinstance(result, dict) else result

    def run(self, script: str):
        """The value that the body of an async function returns on the page."""
        body = (
            "const [done] = arguments;"
            f"(async () => {{ {script} }})().then(done, (error) => done('error: ' + error));"
        )
        return self("WebDriver:ExecuteAsyncScript", script=body, args=[])

    def screenshot(self) -> bytes:
        """PNG."""
        return base64.b64decode(self("WebDriver:TakeScreenshot", full=True))

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self("Marionette:Quit", flags=["eForceQuit"])
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.process.kill()

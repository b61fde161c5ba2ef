"""Ctrl-C for processes that were started in the background, where shells let it be ignored."""

import signal


def hear_interrupts() -> None:
    """For ``preexec_fn``: Python installs its handler only where SIGINT is not ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

"""The study on Ray Tune; the only package that imports ray.

`allotment` decides what a trial gets of a node, `searchers` proposes points, `work` is what happens inside a Tune
trial, `driver` puts them together and stops cleanly. Ray Tune's own experiment state is never read back: the ledger
decides what is done.
"""

from __future__ import annotations

import os


def keep_to_loopback() -> None:
    """Have a Ray cluster of our own listen on the loopback address only; call before ray is imported.

    Whoever reaches a Ray cluster can run code on it. Ray knows this setting as the one that keeps it from asking for
    firewall exceptions on desktops; it does the same on a server.
    """
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

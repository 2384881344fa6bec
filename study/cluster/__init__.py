"""The study on Ray Tune; the only package that imports ray.

`allotment` decides what a trial gets of a node, `searchers` proposes points, `work` is what happens inside a Tune
trial, `driver` puts them together and stops cleanly. Ray Tune's own experiment state is never read back: the ledger
decides what is done.
"""

from __future__ import annotations

import os


# What is set by whoever runs a study counts, except where Ray would work against it.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # When a study is stopped, Tune's thread may outlive the cluster by an instant; it must not start another one.
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
SETTINGS_OF_OUR_OWN = {
    # Whoever reaches a Ray cluster can run code on it. Ray knows this setting as the one that keeps it from asking for
    # firewall exceptions on desktops; on a server, too, it makes it listen on the loopback address only.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Trainings notice by their pipe that their worker is gone and write a checkpoint; Ray would kill them first.
    "RAY_kill_child_processes_on_worker_exit": "0",
}


def configure_ray(*, own_cluster: bool) -> None:
    """Set Ray's environment variables, those of a cluster of our own too if it is one; call before ray is imported."""
    for name, value in {**SETTINGS, **(SETTINGS_OF_OUR_OWN if own_cluster else {})}.items():
        os.environ.setdefault(name, value)

"""Connections are open files, and a process may have only so many."""

from __future__ import annotations

import logging
import sys

FILES_BESIDE = 512  # database, log, indexes, engines, uploads
FILES_PER_CLIENT = 2  # its connection, and one to an expert
FEWEST_CLIENTS = 16

logger = logging.getLogger(__name__)


def clients_that_fit(wanted: int) -> int:
    """How many of `wanted` clients may be connected at once; raises this process's limit as far as the system lets it.

    One connection more than there may be files would keep experts and the database from being reached.
    """
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FILES_PER_CLIENT * wanted + FILES_BESIDE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    fitting = max(FEWEST_CLIENTS, (soft - FILES_BESIDE) // FILES_PER_CLIENT)
    logger.warning(
        "at most %d connections instead of gateway.max_connections %d: this process may have %d files open (ulimit -n)",
        fitting,
        wanted,
        soft,
    )
    return fitting

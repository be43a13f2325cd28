"""One thread for small matrix products: threads that wait for each other cost far more than they bring there.

Measured on two busy cores: 2.8 ms for one text of the multilingual encoder on one thread, 26 to 96 ms on two.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


@cache
def controller() -> ThreadpoolController:
    """Knows the BLAS libraries of this process; finding them takes milliseconds, so it is done once."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """A block in which BLAS uses one thread."""
    limited: AbstractContextManager[object] = controller().limit(limits=1, user_api="blas")
    return limited

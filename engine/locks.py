"""Locks of sessions, which a forked child finds open: the thread that held one is not in the child, and would never let go.

What they guard is whole at every moment, since a dict gets its entry when that is complete.
"""
from __future__ import annotations

import os
import threading
import weakref

_known: weakref.WeakSet = weakref.WeakSet()


def lock() -> threading.Lock:
    made = threading.Lock()
    _known.add(made)
    return made


def _open() -> None:
    for each in list(_known):
        each._at_fork_reinit()  # as `threading` does with its own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open)

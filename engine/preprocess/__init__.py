"""From pictures to the arrays a network takes, declared once for every command; docs/preprocessing.md."""
from __future__ import annotations

from .config import Preprocess

__all__ = ["Preprocess"]

"""pyarrow, or what to install for it."""
from __future__ import annotations

from ..errors import MissingDependencyError

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError:
    raise MissingDependencyError("rows need pyarrow: pip install 'infold[batch]'") from None

__all__ = ["pa", "pc", "pq"]

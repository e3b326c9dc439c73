"""Mean and variance per channel of data that comes in pieces, exact however it is cut."""

from __future__ import annotations

import numpy as np

_AT_A_TIME = 1 << 20  # elements widened to float64 at once


class Moments:
    """Pooled mean and variance over all axes but the second.

    Pieces are merged in float64 (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
    sample variances", 1979), which loses nothing where a sum of squares would cancel.

    Attributes:
        count: values seen per channel.
        mean: float64 [C].
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean = np.zeros(channels)
        self._squares = np.zeros(channels)  # sum of (x - mean)²

    def update(self, x: np.ndarray) -> None:
        """Add data of shape [N, C, ...]; what is not finite makes the moments of its channel NaN."""
        if not x.size:
            return
        with np.errstate(invalid="ignore"):
            self._update(x)

    def _update(self, x: np.ndarray) -> None:
        step = max(1, _AT_A_TIME * len(x) // x.size)
        axes = (0, *range(2, x.ndim))
        for start in range(0, len(x), step):
            part = x[start : start + step].astype(np.float64)
            mean = part.mean(axes, keepdims=True)
            part -= mean
            self._merge(part.size // part.shape[1], mean.ravel(), np.square(part, out=part).sum(axes))

    def variance(self, unbiased: bool) -> np.ndarray:
        """float64 [C]: the squares divided by count - 1, or by count."""
        return self._squares / (self.count - unbiased)

    def _merge(self, count: int, mean: np.ndarray, squares: np.ndarray) -> None:
        total, delta = self.count + count, mean - self.mean
        self._squares += squares + delta * delta * (self.count * count / total)
        self.mean += delta * (count / total)
        self.count = total

"""Lengths after the shares that ByteScale publishes of its data set "Byted"; the set itself is not public."""

import numpy as np

from .published import BYTED_DOCUMENTS, BYTED_REACHING, BYTED_TOKENS_ABOVE

__all__ = ["draw"]

SHORTEST = 64  # tokens, an assumption
(SHORT, SHORT_SHARE), (LONG, LONG_SHARE), (CONTEXT, _) = BYTED_DOCUMENTS


def draw(tokens: int, seed: int) -> list[int]:
    """Lengths that sum to `tokens` (the last is cut to fit), in five classes that have the published shares.

    Documents of 2M (0.05 %, 12.1 % of tokens) fix the mean; with it every share of tokens becomes the mean of a class. Inside
    a class the density is a power of the length: 1 / length in the outer two, else the power that gives that mean.
    """
    mean = BYTED_REACHING * CONTEXT / BYTED_TOKENS_ABOVE[CONTEXT]
    middle = 262144
    share_3 = (BYTED_TOKENS_ABOVE[LONG] - BYTED_TOKENS_ABOVE[middle]) * mean / _mean(LONG, middle, 1.0)
    share_4 = 1.0 - LONG_SHARE - BYTED_REACHING - share_3
    mean_4 = (BYTED_TOKENS_ABOVE[middle] - BYTED_TOKENS_ABOVE[CONTEXT]) * mean / share_4
    short = SHORT_SHARE * _mean(SHORTEST, SHORT, 1.0)
    mean_2 = ((1.0 - BYTED_TOKENS_ABOVE[LONG]) * mean - short) / (LONG_SHARE - SHORT_SHARE)
    classes = (
        (SHORT_SHARE, SHORTEST, SHORT, 1.0),
        (LONG_SHARE - SHORT_SHARE, SHORT, LONG, _power(SHORT, LONG, mean_2)),
        (share_3, LONG, middle, 1.0),
        (share_4, middle, CONTEXT, _power(middle, CONTEXT, mean_4)),
        (BYTED_REACHING, CONTEXT, CONTEXT, 1.0),
    )
    generator = np.random.default_rng(seed)
    shares = np.array([share for share, *_ in classes])
    drawn = np.zeros(0, np.int64)
    while drawn.sum() < tokens:
        chosen = generator.choice(len(classes), int(tokens / mean) + 1, p=shares / shares.sum())
        uniform = generator.random(len(chosen))
        more = np.zeros(len(chosen), np.int64)
        for number, (_, low, high, power) in enumerate(classes):
            at = chosen == number
            more[at] = _quantile(low, high, power, uniform[at])
        drawn = np.concatenate([drawn, more])
    ends = np.cumsum(drawn)
    last = int(np.searchsorted(ends, tokens))
    drawn[last] -= ends[last] - tokens
    return drawn[: last + 1].tolist()


def _integral(low: float, high: float, exponent: float) -> float:
    """Of x**exponent from low to high."""
    if abs(exponent + 1.0) < 1e-9:
        return float(np.log(high / low))
    return float((high ** (exponent + 1.0) - low ** (exponent + 1.0)) / (exponent + 1.0))


def _mean(low: float, high: float, power: float) -> float:
    """Of the density x**-power on low..high."""
    return _integral(low, high, 1.0 - power) / _integral(low, high, -power)


def _power(low: float, high: float, mean: float) -> float:
    """The power whose density has that mean; the mean falls with it."""
    least, most = -5.0, 15.0
    assert _mean(low, high, most) < mean < _mean(low, high, least)
    for _ in range(100):
        middle = 0.5 * (least + most)
        least, most = (middle, most) if _mean(low, high, middle) > mean else (least, middle)
    return 0.5 * (least + most)


def _quantile(low: float, high: float, power: float, share: np.ndarray) -> np.ndarray:
    if abs(power - 1.0) < 1e-9:
        return low * (high / low) ** share
    a, b = low ** (1.0 - power), high ** (1.0 - power)
    return (a + share * (b - a)) ** (1.0 / (1.0 - power))

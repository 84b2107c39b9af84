"""What the CUDA benchmark measures and what it asks for: problems, and bars as data.

Useful work counts a causal document as half of its square, as published figures do, and 2 FLOP a multiply-add: forward
2 (d + dv), backward 2 (3 d + 2 dv) per head and visible pair of a query and a key. Heads x head dimension is 2048, the habit of
the published tables.
"""

from __future__ import annotations

from dataclasses import dataclass

# Lengths of a step of 32,768 tokens, drawn at random with a fixed seed, each at most 16,384, the last cut to fit.
# Code: tokens of source files in public repositories, one token per 3.5 bytes. Wikipedia: tokens of articles, from the
# public record of lengths in the release of FlexSP (Wang et al., arXiv 2412.01523).
CODE = (4524, 52, 6727, 509, 8528, 1706, 3264, 1649, 384, 494, 610, 4321)
WIKIPEDIA = (
    289, 365, 555, 245, 4354, 119, 1804, 356, 2008, 65, 2135, 278, 294, 165, 561, 743, 91, 110, 639, 1465, 227, 111,
    795, 77, 472, 34, 82, 186, 238, 646, 392, 45, 463, 608, 62, 67, 1383, 221, 1202, 260, 342, 157, 74, 108, 766, 150,
    132, 151, 517, 172, 457, 60, 482, 351, 326, 2928, 183, 730, 470,
)  # fmt: skip
LONG = 128 * 1024
SKEWED = (LONG,) + 500 * (256,)  # one long document among short ones
EQUAL_WORK = 131_200  # tokens of one causal document with the work of SKEWED, to 5 in 100,000


@dataclass(frozen=True)
class Problem:
    """A packed batch and the pass that is timed."""

    lengths: tuple[int, ...]
    heads: int = 16
    heads_kv: int = 16
    dim: int = 128
    dim_v: int = 128
    dtype: str = "bfloat16"
    backward: bool = False
    causal: bool = True

    @property
    def pairs(self) -> float:
        """Visible pairs of a head, as tables count them."""
        return sum(n * n for n in self.lengths) / (2 if self.causal else 1)

    @property
    def flop(self) -> float:
        per_pair = 3 * self.dim + 2 * self.dim_v if self.backward else self.dim + self.dim_v
        return 2.0 * per_pair * self.heads * self.pairs

    def shrunk(self, divide: int) -> Problem:
        """The same with lengths divided: to see that it runs, not how fast."""
        return Problem(**{**self.__dict__, "lengths": tuple(max(1, n // divide) for n in self.lengths)})


@dataclass(frozen=True)
class Bar:
    """What is asked of a figure of a row. `least`: whether the figure has to be at least or at most so large."""

    figure: str
    must: float
    strong: float
    aim: float
    least: bool = True

    def verdict(self, found: float) -> str:
        """The best level that is reached."""
        for level in ("aim", "strong", "must"):
            asked = getattr(self, level)
            if found >= asked if self.least else found <= asked:
                return f"{level} met"
        return "NOT met"


@dataclass(frozen=True)
class Row:
    """One case. `kind` chooses the contenders (cuda_contenders.py)."""

    name: str
    problem: Problem
    kind: str = "batch"
    bars: tuple[Bar, ...] = ()


OVER_VARLEN = Bar("over varlen_attn", 1.3, 1.6, 2.0)


def rate(must: float, strong: float, aim: float) -> Bar:
    return Bar("TFLOP/s", must, strong, aim)


def both(name: str, problem: Problem, *, forward: tuple[Bar, ...] = (), backward: tuple[Bar, ...] = ()) -> list[Row]:
    there = Problem(**{**problem.__dict__, "backward": True})
    return [Row(f"forward {name}", problem, bars=forward), Row(f"backward {name}", there, bars=backward)]


K16 = (16_384,)
PACKED = {"forward": (rate(520, 600, 640), OVER_VARLEN), "backward": (rate(400, 480, 540), OVER_VARLEN)}
ROWS = [  # the most important first: a run that is cut short has those
    *both("causal 16k", Problem(K16), forward=(rate(600, 680, 720),), backward=(rate(450, 560, 620),)),
    *both("32k packed, code", Problem(CODE), **PACKED),
    Row("backward 1x128K + 500x256", Problem(SKEWED, 8, 8, backward=True), "skewed",
        (Bar("of one document's rate", 0.95, 0.98, 0.99), OVER_VARLEN)),
    Row("ring hop 16k with merge", Problem(K16, causal=False), "ring",
        (Bar("of a plain hop's time", 1.03, 1.01, 1.0, least=False),)),
    *both("32k packed, Wikipedia", Problem(WIKIPEDIA), **PACKED),
    *both("causal 16k, 8 query heads a key head", Problem(K16, 16, 2)),
    *both("causal 16k, head dim 64", Problem(K16, 32, 32, 64, 64)),
    *both("causal 16k, head dims 192, 128", Problem(K16, 16, 16, 192, 128)),
    *both("causal 16k, head dim 256", Problem(K16, 8, 8, 256, 256)),
    Row("backward causal 16k, deterministic", Problem(K16, backward=True), "deterministic"),
    Row("forward 1x128K + 500x256", Problem(SKEWED, 8, 8), "skewed", (OVER_VARLEN,)),
    *both("causal 16k, float16", Problem(K16, dtype="float16")),
    *both("full 16k", Problem(K16, causal=False)),
]  # fmt: skip

"""Small pictures in SVG: scales, axes and a few marks. No script, no font, no colour of their own but CSS classes.

A chart is 360 units wide and keeps its texts readable from a phone (shown 1:1) to a screen (half as large again).
Classes of marks: `a` this model, `b` the other one, `c` a reference, `q0` to `q4` from low to high values.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
from markupsafe import Markup, escape

WIDTH = 360.0
HEIGHT = 230.0
ROW = 24.0
TEXT = 7.3  # mean width of a letter of 12 units in the widest of the usual fonts
LONGEST_NAME = 20
SHADES = 5

XY = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """What one direction of a chart means.

    Attributes:
        label: The quantity and its unit.
        low: The value at the left or lower end.
        high: The value at the right or upper end; less than `low` where it runs downwards.
        ticks: Values and their texts.
        has_names: Whether the ticks name things, so that no grid belongs to them.
    """

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    has_names: bool = False

    def place(self, value: float, start: float, end: float) -> float:
        """Where a value lies between two ends in units of the picture."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)


def number_axis(label: str, values: Iterable[float], *, is_whole: bool = False) -> Axis:
    """An axis of numbers with round ticks; its ends are the nearest half steps that hold all values.

    Args:
        label: The quantity and its unit.
        values: What it must hold; NaN does not count.
        is_whole: Whether there is nothing between two whole numbers.
    """
    known = [value for value in values if np.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if low == high:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    step = round_step((high - low) / 5)
    step = max(step, 1.0) if is_whole else step
    first, last = np.floor(2 * low / step + 1e-9), np.ceil(2 * high / step - 1e-9)
    halves = np.arange(first, last + 1)
    ticks = tuple((float(half * step / 2), number_text(half * step / 2)) for half in halves if half % 2 == 0)
    return Axis(label, float(first * step / 2), float(last * step / 2), ticks)


def share_axis(label: str) -> Axis:
    """From 0 to 100 %."""
    return Axis(label, 0.0, 1.0, tuple((part / 4, f"{part * 25} %") for part in range(5)))


def time_axis(label: str, moments: Sequence[float]) -> Axis:
    """Seconds since 1970 as dates, as exact as the span asks for."""
    low, high = min(moments), max(moments)
    high = high if high > low else low + 1
    days = (high - low) / 86400
    pattern = "%Y" if days > 1500 else "%b %Y" if days > 100 else "%d %b" if days > 3 else "%d %b %H:%M"
    ticks = tuple((float(at), moment_text(float(at), pattern)) for at in np.linspace(low, high, 4))
    return Axis(label, low, high, ticks)


def names_axis(names: Sequence[str]) -> Axis:
    """One line a name, the first on top, at 0, 1, ..."""
    return Axis("", len(names) - 0.5, -0.5, tuple(enumerate(names)), has_names=True)


def round_step(width: float) -> float:
    """The nearest of 1, 2, 5, 10, ... that is not below a width."""
    unit = 10.0 ** np.floor(np.log10(width))
    return float(unit * next(step for step in (1, 2, 5, 10) if step * unit >= width * 0.999))


def number_text(value: float) -> str:
    """A tick."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if suffix == 'k' else size):.4g}{suffix}"
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}"


def moment_text(seconds: float, pattern: str) -> str:
    """A moment as a tick."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).strftime(pattern)


@dataclass
class Chart:
    """Marks between two axes.

    Attributes:
        x: The horizontal axis.
        y: The vertical one.
        height: In units; the width is always `WIDTH`.
        longest: How many letters of a name are shown.
        marks: What was drawn so far, in SVG.
    """

    x: Axis
    y: Axis
    height: float = HEIGHT
    longest: int = LONGEST_NAME
    marks: list[str] = field(default_factory=list)

    @classmethod
    def of_rows(cls, x: Axis, names: Sequence[str], longest: int = LONGEST_NAME) -> "Chart":
        """A chart with a line for each name."""
        return cls(x, names_axis(names), height=len(names) * ROW + 52, longest=longest)

    @property
    def left(self) -> float:
        """Where the plotting area begins: behind the texts of the vertical axis."""
        return 12 + TEXT * max(len(short(text, self.longest)) for _, text in self.y.ticks)

    @property
    def right(self) -> float:
        """Where it ends."""
        return WIDTH - 16

    @property
    def top(self) -> float:
        """Its upper end, below the label of the vertical axis."""
        return 24.0 if self.y.label else 8.0

    @property
    def bottom(self) -> float:
        """Its lower end, above the texts of the horizontal axis."""
        return self.height - 38

    def at(self, x: float, y: float) -> XY:
        """The place of a value pair."""
        room = 8 if self.y.has_names else 0  # so that a mark at the end does not cover a name
        return self.x.place(x, self.left + room, self.right - room), self.y.place(y, self.bottom, self.top)

    def line(self, points: Sequence[XY], style: str, *, is_step: bool = False) -> None:
        """A line through value pairs; as steps, each value holds until the next."""
        places = [self.at(*point) for point in points]
        if is_step:
            corners = [corner for before, after in pairwise(places) for corner in ((after[0], before[1]), after)]
            places = [*places[:1], *corners]
        self.marks.append(f'<path class="line {style}" d="M{" ".join(map(pair, places))}"/>')

    def band(self, x: Sequence[float], low: Sequence[float], high: Sequence[float], style: str) -> None:
        """The area between two lines."""
        edge = [*zip(x, low, strict=True), *reversed([*zip(x, high, strict=True)])]
        self.marks.append(f'<path class="band {style}" d="M{" ".join(pair(self.at(*point)) for point in edge)}Z"/>')

    def dots(self, points: Iterable[XY], style: str) -> None:
        """A dot at each value pair."""
        self.marks.append(dots((self.at(*point) for point in points), style))

    def whisker(self, low: float, high: float, row: float, style: str) -> None:
        """An interval with caps on the line of a name."""
        (start, y), (end, _) = self.at(low, row), self.at(high, row)
        self.marks.append(
            f'<path class="line {style}" d="M{start:.1f} {y:.1f}H{end:.1f}M{start:.1f} {y - 4:.1f}v8'
            f'M{end:.1f} {y - 4:.1f}v8"/>'
        )

    def diamond(self, value: float, row: float, style: str) -> None:
        """A hollow mark on the line of a name."""
        x, y = self.at(value, row)
        self.marks.append(f'<path class="line open {style}" d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5Z"/>')

    def bar(self, value: float, row: float, style: str, *, words: str = "") -> None:
        """A bar from zero on the line of a name, with a text behind its end."""
        (start, y), (end, _) = self.at(0, row), self.at(value, row)
        self.marks.append(
            f'<rect class="bar {style}" x="{min(start, end):.1f}" y="{y - 7:.1f}" width="{abs(end - start):.1f}" '
            f'height="14" rx="2"/>'
        )
        if words:
            self.marks.append(f'<text x="{max(start, end) + 4:.1f}" y="{y + 4:.1f}">{escape(words)}</text>')

    def rule(self, *, x: float | None = None, y: float | None = None, style: str = "c") -> None:
        """A line across the area at a value of one axis."""
        if x is not None:
            self.line([(x, self.y.low), (x, self.y.high)], f"rule {style}")
        if y is not None:
            self.line([(self.x.low, y), (self.x.high, y)], f"rule {style}")

    def svg(self, title: str) -> Markup:
        """The picture; the title is read to those who do not see it."""
        return svg(WIDTH, self.height, title, [*self._grid(), *self.marks])

    def _grid(self) -> list[str]:
        found = []
        for position, (value, text) in enumerate(self.x.ticks):
            x, _ = self.at(value, self.y.low)
            is_last, is_long = position == len(self.x.ticks) - 1, len(text) > 4 and not self.y.has_names
            anchor = ("end" if is_last else "middle" if position else "start") if is_long else "middle"
            found.append(f'<path class="grid" d="M{x:.1f} {self.top:.1f}V{self.bottom:.1f}"/>')
            found.append(f'<text class="soft {anchor}" x="{x:.1f}" y="{self.bottom + 14:.1f}">{escape(text)}</text>')
        for value, text in self.y.ticks:
            _, y = self.at(self.x.low, value)
            if not self.y.has_names:
                found.append(f'<path class="grid" d="M{self.left:.1f} {y:.1f}H{self.right:.1f}"/>')
            name = short(text, self.longest)
            whole = f"<title>{escape(text)}</title>" if name != text else ""
            found.append(
                f'<text class="end{"" if self.y.has_names else " soft"}" x="{self.left - 6:.1f}" y="{y + 4:.1f}">'
                f"{escape(name)}{whole}</text>"
            )
        half = TEXT * len(self.x.label) / 2
        middle = max(half, min((self.left + self.right) / 2, WIDTH - half))
        found.append(f'<text class="middle" x="{middle:.1f}" y="{self.height - 6:.1f}">{escape(self.x.label)}</text>')
        found.append(f'<text x="4" y="12">{escape(self.y.label)}</text>' if self.y.label else "")
        return found


def heat(counts: Sequence[Sequence[int]], names: Sequence[str], title: str) -> Markup:
    """Counts as shaded squares: rows are actual, columns predicted; the shade is the share of the row."""
    left = max(56.0, 20 + TEXT * max(len(short(name, 12)) for name in names))
    side = min(64.0, (WIDTH - left - 8) / len(names))
    marks = [f'<text x="4" y="33">actual</text><text x="{left:.1f}" y="12">predicted</text>']
    for row, name in enumerate(names):
        y = 40 + row * side
        x = left + row * side + side / 2
        marks.append(
            f'<text class="end" x="{left - 6:.1f}" y="{y + side / 2 + 4:.1f}">{escape(short(name, 12))}</text>'
        )
        marks.append(f'<text class="middle" x="{x:.1f}" y="33">{escape(short(name, max(2, int(side / TEXT))))}</text>')
        for column, count in enumerate(counts[row]):
            share = count / (sum(counts[row]) or 1)
            x = left + column * side
            marks.append(
                f'<rect class="bar a" x="{x:.1f}" y="{y:.1f}" width="{side - 2:.1f}" height="{side - 2:.1f}" rx="2" '
                f'fill-opacity="{0.04 + 0.5 * share:.3f}"/>'
            )
            middle = x + side / 2 - 1
            marks.append(
                f'<text class="middle" x="{middle:.1f}" y="{y + side / 2 + 3:.1f}">{number_text(count)}</text>'
            )
    return svg(WIDTH, 44 + side * len(names), title, marks)


def spark(heights: Sequence[float], title: str) -> Markup:
    """A tiny distribution: one bar a height."""
    width, height = 96.0, 22.0
    step, largest = width / len(heights), max(heights) or 1.0
    marks = [
        f'<rect class="bar a" x="{n * step:.1f}" y="{height - height * value / largest:.1f}" '
        f'width="{max(step - 1, 1):.1f}" height="{height * value / largest:.1f}"/>'
        for n, value in enumerate(heights)
    ]
    return svg(width, height, title, marks, style="spark")


def svg(width: float, height: float, title: str, marks: Iterable[str], style: str = "chart") -> Markup:
    """A picture of marks; the title is escaped, the marks are SVG already."""
    words = escape(title)
    return Markup(  # noqa: S704  every text in the marks went through escape  # nosec B704
        f'<svg class="{style}" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{words}">'
        f"<title>{words}</title>{''.join(marks)}</svg>"
    )


def dots(places: Iterable[XY], style: str) -> str:
    """Dots in units of the picture: one path, whose points are lines of no length with round caps."""
    return f'<path class="dots {style}" d="{"".join(f"M{pair(place)}h0" for place in places)}"/>'


def pair(place: XY) -> str:
    """A place in the language of SVG."""
    return f"{place[0]:.1f} {place[1]:.1f}"


def short(text: str, longest: int) -> str:
    """A name that fits."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"

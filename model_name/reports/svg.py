"""Charts in SVG: scales, axes and a few kinds of marks.

The SVG is written here, not by a plotting library, because `docs/report.md` promises pages of about 100 KB that follow
the reader's light or dark mode and have titles for screen readers. Colours are therefore CSS classes of the page, texts
stay texts, and the same data gives the same bytes.

A chart is 360 units wide, so that its texts are readable on a phone (shown 1:1) and on a screen (half as large again).
Classes of marks: `a` this model, `b` the other model, `c` a reference, `q0` to `q4` from low to high values.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
from markupsafe import Markup, escape

WIDTH = 360.0
HEIGHT = 230.0
ROW_HEIGHT = 24.0
CHARACTER_WIDTH = 7.3  # mean width of a character of 12 units in the widest of the common system fonts
MAX_NAME_LENGTH = 20
SHADES = 5

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """Horizontal or vertical axis of a chart.

    Attributes:
        label: Name of the quantity, with its unit.
        low: Value at the left or lower end.
        high: Value at the right or upper end; less than `low` if the axis runs downwards.
        ticks: Values and their texts.
        is_categorical: Whether the ticks are names, so that no grid lines are drawn.
    """

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    is_categorical: bool = False

    def scale(self, value: float, start: float, end: float) -> float:
        """Map a value to chart units, given those of both ends of the axis."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)


def number_axis(label: str, values: Iterable[float], *, is_whole: bool = False) -> Axis:
    """Build an axis of numbers with round ticks; its ends are the nearest half steps around all values.

    Args:
        label: Name of the quantity, with its unit.
        values: Values that the axis must include; NaN is ignored.
        is_whole: Whether the quantity has whole numbers only.
    """
    known = [value for value in values if np.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if low == high:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    step = nice_step((high - low) / 5)
    step = max(step, 1.0) if is_whole else step
    first, last = np.floor(2 * low / step + 1e-9), np.ceil(2 * high / step - 1e-9)
    halves = np.arange(first, last + 1)
    ticks = tuple((float(half * step / 2), format_tick(half * step / 2)) for half in halves if half % 2 == 0)
    return Axis(label, float(first * step / 2), float(last * step / 2), ticks)


def share_axis(label: str) -> Axis:
    """Build an axis from 0 to 100 %."""
    return Axis(label, 0.0, 1.0, tuple((part / 4, f"{part * 25} %") for part in range(5)))


def time_axis(label: str, moments: Sequence[float]) -> Axis:
    """Build an axis of dates from seconds since 1970; the precision of the ticks depends on the span."""
    low, high = min(moments), max(moments)
    high = high if high > low else low + 1
    days = (high - low) / 86400
    pattern = "%Y" if days > 1500 else "%b %Y" if days > 100 else "%d %b" if days > 3 else "%d %b %H:%M"
    ticks = tuple((float(at), format_time_tick(float(at), pattern)) for at in np.linspace(low, high, 4))
    return Axis(label, low, high, ticks)


def category_axis(names: Sequence[str]) -> Axis:
    """Build an axis with one row per name, the first on top, at 0, 1, ..."""
    return Axis("", len(names) - 0.5, -0.5, tuple(enumerate(names)), is_categorical=True)


def nice_step(width: float) -> float:
    """Round a width up to the next of 1, 2, 5, 10, 20, ..."""
    unit = 10.0 ** np.floor(np.log10(width))
    return float(unit * next(step for step in (1, 2, 5, 10) if step * unit >= width * 0.999))


def format_tick(value: float) -> str:
    """Format a number as a tick."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if suffix == 'k' else size):.4g}{suffix}"
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}"


def format_time_tick(seconds: float, pattern: str) -> str:
    """Format a moment as a tick."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).strftime(pattern)


@dataclass
class Chart:
    """Chart with marks between two axes.

    Attributes:
        x: Horizontal axis.
        y: Vertical axis.
        height: Height in units; the width is always `WIDTH`.
        max_name_length: Number of characters of a name that are shown.
        marks: SVG elements that were drawn so far.
    """

    x: Axis
    y: Axis
    height: float = HEIGHT
    max_name_length: int = MAX_NAME_LENGTH
    marks: list[str] = field(default_factory=list)

    @classmethod
    def with_rows(cls, x: Axis, names: Sequence[str], max_name_length: int = MAX_NAME_LENGTH) -> "Chart":
        """Create a chart with one row per name."""
        return cls(x, category_axis(names), height=len(names) * ROW_HEIGHT + 52, max_name_length=max_name_length)

    @property
    def left(self) -> float:
        """Left end of the plotting area, after the texts of the vertical axis."""
        return 12 + CHARACTER_WIDTH * max(len(truncate(text, self.max_name_length)) for _, text in self.y.ticks)

    @property
    def right(self) -> float:
        """Right end of the plotting area."""
        return WIDTH - 16

    @property
    def top(self) -> float:
        """Upper end of the plotting area, below the label of the vertical axis."""
        return 24.0 if self.y.label else 8.0

    @property
    def bottom(self) -> float:
        """Lower end of the plotting area, above the texts of the horizontal axis."""
        return self.height - 38

    def project(self, x: float, y: float) -> Point:
        """Map a pair of values to chart units."""
        margin = 8 if self.y.is_categorical else 0  # so that a mark at the end does not cover a name
        return self.x.scale(x, self.left + margin, self.right - margin), self.y.scale(y, self.bottom, self.top)

    def line(self, points: Sequence[Point], style: str, *, is_step: bool = False) -> None:
        """Draw a line through pairs of values; with `is_step`, each value holds until the next."""
        places = [self.project(*point) for point in points]
        if is_step:
            corners = [corner for before, after in pairwise(places) for corner in ((after[0], before[1]), after)]
            places = [*places[:1], *corners]
        self.marks.append(f'<path class="line {style}" d="M{" ".join(map(format_point, places))}"/>')

    def band(self, x: Sequence[float], low: Sequence[float], high: Sequence[float], style: str) -> None:
        """Draw the area between two lines."""
        edge = [*zip(x, low, strict=True), *reversed([*zip(x, high, strict=True)])]
        self.marks.append(
            f'<path class="band {style}" d="M{" ".join(format_point(self.project(*point)) for point in edge)}Z"/>'
        )

    def dots(self, points: Iterable[Point], style: str) -> None:
        """Draw a dot at each pair of values."""
        self.marks.append(dots_path((self.project(*point) for point in points), style))

    def whisker(self, low: float, high: float, row: float, style: str) -> None:
        """Draw an interval with caps in a row."""
        (start, y), (end, _) = self.project(low, row), self.project(high, row)
        self.marks.append(
            f'<path class="line {style}" d="M{start:.1f} {y:.1f}H{end:.1f}M{start:.1f} {y - 4:.1f}v8'
            f'M{end:.1f} {y - 4:.1f}v8"/>'
        )

    def diamond(self, value: float, row: float, style: str) -> None:
        """Draw a hollow diamond in a row."""
        x, y = self.project(value, row)
        self.marks.append(f'<path class="line open {style}" d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5Z"/>')

    def bar(self, value: float, row: float, style: str, *, label: str = "") -> None:
        """Draw a bar from zero in a row, with a text after its end."""
        (start, y), (end, _) = self.project(0, row), self.project(value, row)
        self.marks.append(
            f'<rect class="bar {style}" x="{min(start, end):.1f}" y="{y - 7:.1f}" width="{abs(end - start):.1f}" '
            f'height="14" rx="2"/>'
        )
        if label:
            self.marks.append(f'<text x="{max(start, end) + 4:.1f}" y="{y + 4:.1f}">{escape(label)}</text>')

    def rule(self, *, x: float | None = None, y: float | None = None, style: str = "c") -> None:
        """Draw a line across the plotting area at a value of one axis."""
        if x is not None:
            self.line([(x, self.y.low), (x, self.y.high)], f"rule {style}")
        if y is not None:
            self.line([(self.x.low, y), (self.x.high, y)], f"rule {style}")

    def svg(self, title: str) -> Markup:
        """Return the SVG element of the chart; screen readers read its title."""
        return svg_element(WIDTH, self.height, title, [*self._grid(), *self.marks])

    def _grid(self) -> list[str]:
        elements = []
        for position, (value, text) in enumerate(self.x.ticks):
            x, _ = self.project(value, self.y.low)
            is_last, is_long = position == len(self.x.ticks) - 1, len(text) > 4 and not self.y.is_categorical
            anchor = ("end" if is_last else "middle" if position else "start") if is_long else "middle"
            elements.append(f'<path class="grid" d="M{x:.1f} {self.top:.1f}V{self.bottom:.1f}"/>')
            elements.append(f'<text class="soft {anchor}" x="{x:.1f}" y="{self.bottom + 14:.1f}">{escape(text)}</text>')
        for value, text in self.y.ticks:
            _, y = self.project(self.x.low, value)
            if not self.y.is_categorical:
                elements.append(f'<path class="grid" d="M{self.left:.1f} {y:.1f}H{self.right:.1f}"/>')
            name = truncate(text, self.max_name_length)
            whole = f"<title>{escape(text)}</title>" if name != text else ""
            elements.append(
                f'<text class="end{"" if self.y.is_categorical else " soft"}" x="{self.left - 6:.1f}" y="{y + 4:.1f}">'
                f"{escape(name)}{whole}</text>"
            )
        half = CHARACTER_WIDTH * len(self.x.label) / 2
        middle = max(half, min((self.left + self.right) / 2, WIDTH - half))
        elements.append(
            f'<text class="middle" x="{middle:.1f}" y="{self.height - 6:.1f}">{escape(self.x.label)}</text>'
        )
        elements.append(f'<text x="4" y="12">{escape(self.y.label)}</text>' if self.y.label else "")
        return elements


def heatmap(counts: Sequence[Sequence[int]], names: Sequence[str], title: str) -> Markup:
    """Draw counts as shaded squares: rows are actual, columns predicted classes; the shade is the share of the row."""
    left = max(56.0, 20 + CHARACTER_WIDTH * max(len(truncate(name, 12)) for name in names))
    side = min(64.0, (WIDTH - left - 8) / len(names))
    marks = [f'<text x="4" y="33">actual</text><text x="{left:.1f}" y="12">predicted</text>']
    for row, name in enumerate(names):
        y = 40 + row * side
        x = left + row * side + side / 2
        marks.append(
            f'<text class="end" x="{left - 6:.1f}" y="{y + side / 2 + 4:.1f}">{escape(truncate(name, 12))}</text>'
        )
        column_name = escape(truncate(name, max(2, int(side / CHARACTER_WIDTH))))
        marks.append(f'<text class="middle" x="{x:.1f}" y="33">{column_name}</text>')
        for column, count in enumerate(counts[row]):
            share = count / (sum(counts[row]) or 1)
            x = left + column * side
            marks.append(
                f'<rect class="bar a" x="{x:.1f}" y="{y:.1f}" width="{side - 2:.1f}" height="{side - 2:.1f}" rx="2" '
                f'fill-opacity="{0.04 + 0.5 * share:.3f}"/>'
            )
            middle = x + side / 2 - 1
            marks.append(
                f'<text class="middle" x="{middle:.1f}" y="{y + side / 2 + 3:.1f}">{format_tick(count)}</text>'
            )
    return svg_element(WIDTH, 44 + side * len(names), title, marks)


def sparkline_svg(heights: Sequence[float], title: str) -> Markup:
    """Draw a small distribution with one bar per height."""
    width, height = 96.0, 22.0
    step, largest = width / len(heights), max(heights) or 1.0
    marks = [
        f'<rect class="bar a" x="{n * step:.1f}" y="{height - height * value / largest:.1f}" '
        f'width="{max(step - 1, 1):.1f}" height="{height * value / largest:.1f}"/>'
        for n, value in enumerate(heights)
    ]
    return svg_element(width, height, title, marks, style="spark")


def svg_element(width: float, height: float, title: str, marks: Iterable[str], style: str = "chart") -> Markup:
    """Wrap marks in an SVG element; the title is escaped, the marks are SVG already."""
    escaped = escape(title)
    return Markup(  # noqa: S704  every text in the marks is escaped  # nosec B704
        f'<svg class="{style}" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escaped}">'
        f"<title>{escaped}</title>{''.join(marks)}</svg>"
    )


def dots_path(points: Iterable[Point], style: str) -> str:
    """Draw dots, given in chart units, as one path: each is a line of zero length with round caps."""
    return f'<path class="dots {style}" d="{"".join(f"M{format_point(point)}h0" for point in points)}"/>'


def format_point(point: Point) -> str:
    """Format a point for the `d` attribute of a path."""
    return f"{point[0]:.1f} {point[1]:.1f}"


def truncate(text: str, max_length: int) -> str:
    """Shorten a text to a number of characters, with an ellipsis."""
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"

"""Charts as inline SVG, drawn here: a report must open anywhere, without a network and without a plotting library.

Colours are classes (`s0`, `s1`, ...) that the style sheet fills in for light and dark. Text that comes from outside is
escaped by Markup.format. Coordinates are those of a 360 x 190 box that the page stretches; a wide chart is drawn
once more in a box of two columns, and the page shows what fits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

WIDTH, WIDE, HEIGHT = 360.0, 744.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 10.0, 10.0, 22.0


@dataclass(frozen=True)
class Series:
    """One line: a name, a colour number, and (step, value) points in order of steps."""

    name: str
    colour: int
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """A titled chart with its explanation. `style` is "line", "dots" (few measured points) or "stack"."""

    title: str
    note: str
    unit: str
    series: Sequence[Series]
    style: str = "line"
    zero: bool = False  # the axis begins at zero
    names: Sequence[str] = field(default=())  # the metrics it shows
    wide: bool = False  # takes two columns where there are several


def number(value: float, unit: str) -> str:
    """A value as people read it."""
    if unit == "share":
        return f"{100 * value:.0f} %" if abs(value) < 10 else f"{value:.0f}"
    if unit == "bytes":
        return f"{value / 1e9:.2f} GB" if abs(value) >= 1e8 else f"{value / 1e6:.0f} MB"
    if value and (abs(value) < 1e-3 or abs(value) >= 1e5):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers that span [low, high]: steps of 1, 2, 2.5 or 5 times a power of ten."""
    span = high - low or abs(high) or 1.0
    raw = span / wanted
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def smooth(values: Sequence[float], window: float) -> list[float]:
    """Exponential mean with the bias of its start taken out, so that the first value counts no more than others."""
    keep, total, weight, result = math.exp(-1 / max(window, 1e-9)), 0.0, 0.0, []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        result.append(total / weight)
    return result


def thinned(points: Sequence[tuple[float, float]], most: int = 360) -> list[tuple[float, float]]:
    """At most `most` points: means of neighbours. A pixel cannot show more."""
    count = min(most, len(points))
    edges = [len(points) * i // count for i in range(count + 1)] if count else []
    return [
        (sum(x for x, _ in points[a:b]) / (b - a), sum(y for _, y in points[a:b]) / (b - a))
        for a, b in itertools.pairwise(edges)
    ]


class Frame:
    """The box of a chart: where a step and a value lie in it, and its axes."""

    def __init__(self, chart: Chart, width: float = WIDTH) -> None:
        self.width = width
        xs = [x for one in chart.series for x, _ in one.points]
        if chart.style == "stack":
            tops: dict[float, float] = {}
            for one in chart.series:
                for x, y in one.points:
                    tops[x] = tops.get(x, 0.0) + y
            ys = [0.0, *tops.values()]
        else:
            ys = [y for one in chart.series for _, y in one.points]
            ys = robust(ys)
        low, high = min(ys), max(ys)
        if chart.zero or chart.unit == "share" or (low > 0 and low < 0.4 * high):
            low = min(0.0, low)
        if chart.unit == "share":
            high = min(max(high, 0.05), 1.0) if high <= 1 else high
        if high - low < 1e-12:
            low, high = (low - 0.5 * abs(low), high + 0.5 * abs(high)) if high else (0.0, 1.0)
        self.ticks = ticks(low, high)
        self.unit = chart.unit
        self.x0, self.x1 = min(xs), max(xs)
        self.y0, self.y1 = self.ticks[0], self.ticks[-1]

    def x(self, step: float) -> float:
        span = self.x1 - self.x0
        return LEFT + (self.width - LEFT - RIGHT) * ((step - self.x0) / span if span else 0.5)

    def y(self, value: float) -> float:
        share = (min(max(value, self.y0), self.y1) - self.y0) / (self.y1 - self.y0)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    def axes(self) -> Markup:
        parts = []
        for tick in self.ticks:
            y = self.y(tick)
            parts.append(
                Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                    LEFT, self.width - RIGHT, y, y
                )
                + Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                    LEFT - 5, y + 3.5, number(tick, self.unit)
                )
            )
        inner = [
            t
            for t in ticks(self.x0, self.x1, 4 if self.width == WIDTH else 8)
            if self.x0 <= t <= self.x1 and t == int(t)
        ]
        for tick in inner or [self.x0]:
            x = self.x(tick)
            anchor = "end" if x > self.width - RIGHT - 14 else "middle"
            parts.append(
                Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="{}">{:.0f}</text>').format(
                    x, HEIGHT - 7, anchor, tick
                )
            )
        return Markup("").join(parts)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)


def robust(values: Sequence[float]) -> list[float]:
    """Values without the odd spike that would press a chart flat: beyond three times the 2nd to 98th percentile."""
    if len(values) < 20:
        return list(values)
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 50], ordered[-1 - len(ordered) // 50]
    reach = 2 * (high - low)
    return [v for v in values if low - reach <= v <= high + reach] if reach else list(values)


def draw_chart(chart: Chart, identity: str) -> Markup:
    """The chart as an <svg>, a wide one as two. A chart without points is an empty string."""
    if not any(one.points for one in chart.series):
        return Markup("")
    if not chart.wide:
        return _drawn(chart, identity, WIDTH, "")
    return _drawn(chart, identity, WIDTH, " narrow") + _drawn(chart, f"{identity}w", WIDE, " wide")


def _drawn(chart: Chart, identity: str, width: float, style: str) -> Markup:
    frame = Frame(chart, width)
    parts = [frame.axes()]
    if chart.style == "stack":
        parts.append(_stack(chart, frame))
    else:
        for one in chart.series:
            parts.append(_line(chart, one, frame))
    parts.append(
        Markup('<line class="cross" x1="0" x2="0" y1="{}" y2="{}" visibility="hidden"/>').format(TOP, HEIGHT - BOTTOM)
    )
    return Markup(
        '<svg class="chart{}" id="{}" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}" data-x0="{}" data-x1="{}">'
        "{}</svg>"
    ).format(style, identity, width, HEIGHT, chart.title, frame.x0, frame.x1, Markup("").join(parts))


def _line(chart: Chart, one: Series, frame: Frame) -> Markup:
    if not one.points:
        return Markup("")
    if chart.style == "dots" or len(one.points) < 8:
        line = Markup('<path class="line c{0}" d="{1}"/>').format(one.colour, frame.path(one.points))
        dots = [
            Markup('<circle class="dot f{}" cx="{:.1f}" cy="{:.1f}" r="2.6"/>').format(
                one.colour, frame.x(x), frame.y(y)
            )
            for x, y in one.points
        ]
        return line + Markup("").join(dots)
    means = smooth([y for _, y in one.points], len(one.points) / 25)
    bold = thinned(list(zip((x for x, _ in one.points), means, strict=True)))
    raw = Markup('<path class="raw c{}" d="{}"/>').format(one.colour, frame.path(thinned(one.points)))
    end = bold[-1]
    return (
        raw
        + Markup('<path class="line c{}" d="{}"/>').format(one.colour, frame.path(bold))
        + Markup('<circle class="dot f{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(
            one.colour, frame.x(end[0]), frame.y(end[1])
        )
    )


def _stack(chart: Chart, frame: Frame) -> Markup:
    """Layers on top of each other, the first at the bottom; a missing value is nothing."""
    steps = sorted({x for one in chart.series for x, _ in one.points})
    base = dict.fromkeys(steps, 0.0)
    parts = []
    for one in chart.series:
        values = dict(one.points)
        top = {x: base[x] + values.get(x, 0.0) for x in steps}
        upper = thinned([(x, top[x]) for x in steps])
        lower = thinned([(x, base[x]) for x in steps])
        if len(upper) == 1:  # an area needs two sides
            upper, lower = ([(frame.x0, p[0][1]), (frame.x1 + 1, p[0][1])] for p in (upper, lower))
        shape = frame.path(upper) + "L" + frame.path(lower[::-1])[1:] + "Z"
        parts.append(Markup('<path class="area f{}" d="{}"/>').format(one.colour, shape))
        base = top
    return Markup("").join(parts)


@dataclass(frozen=True)
class Change:
    """Before and after with the half widths of their 95 % intervals, all shares."""

    name: str
    before: float
    before_width: float
    after: float
    after_width: float
    change: float
    change_width: float
    strong: bool = False

    @property
    def real(self) -> bool:
        return abs(self.change) > self.change_width


def dumbbells(changes: Sequence[Change]) -> Markup:
    """Before (hollow) and after (full) on one axis, with intervals; a row for each change."""
    row, left, right, width = 44.0, 14.0, 14.0, 560.0
    height = row * len(changes) + 26
    reach = [v for c in changes for v in (c.before + c.before_width, c.after + c.after_width) if math.isfinite(v)]
    axis = ticks(0, min(1.0, max([0.1, *reach])), 4)

    def x(share: float) -> float:
        return left + (width - left - right) * min(max(share, 0.0), axis[-1]) / axis[-1]

    parts = []
    for tick in axis:
        parts.append(
            Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="4" y2="{1}"/>').format(x(tick), height - 22)
            + Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
                x(tick), height - 6, "start" if tick == 0 else "end" if tick == axis[-1] else "middle",
                number(tick, "share"),
            )
        )  # fmt: skip
    for i, one in enumerate(changes):
        y = row * i + 31
        style = "strong" if one.strong else "plain"
        parts.append(
            Markup('<text class="name {}" x="{}" y="{}">{}</text>').format(style, left, y - 14, one.name)
            + Markup('<text class="gain {}" x="{}" y="{}" text-anchor="end">{:+.1f} points</text>').format(
                f"{style} {'unsure' if not one.real else 'up' if one.change > 0 else 'down'}",
                width - right,
                y - 14,
                100 * one.change,
            )
        )
        for kind, middle, spread in (
            ("before", one.before, one.before_width), ("after", one.after, one.after_width)
        ):  # fmt: skip
            low, high = (x(middle - spread), x(middle + spread)) if math.isfinite(spread) else (x(middle), x(middle))
            parts.append(
                Markup('<line class="span {}" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(kind, low, high, y, y)
            )
        parts.append(
            Markup('<line class="bar {}" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(
                style, x(one.before), x(one.after), y, y
            )
            + Markup('<circle class="before" cx="{:.1f}" cy="{}" r="5"/>').format(x(one.before), y)
            + Markup('<circle class="after" cx="{:.1f}" cy="{}" r="6"/>').format(x(one.after), y)
        )
    return Markup('<svg class="dumbbells" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>').format(
        width, height, "right answers before and after", Markup("").join(parts)
    )

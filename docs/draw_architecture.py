"""Draws docs/images/architecture.svg from the imports that the package has today: `make docs` runs it.

The rows are written here, by hand; what a box holds and which arrows there are is read from the code.
"""

from __future__ import annotations

import ast
import textwrap
from html import escape
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "azr_mlx"
TARGET = ROOT / "docs" / "images" / "architecture.svg"

# (box, what it is for, colour), row by row from the top; a box is a folder, or modules of the package.
ROWS: tuple[tuple[tuple[str, str, str], ...], ...] = (
    (("cli doctor", "the commands that a person types", "#eef2f7"),),
    (
        ("run", "a session and what is seen", "#fff7e6"),
        ("report", "one HTML page", "#fff7e6"),
        ("evaluation", "benchmarks", "#fff7e6"),
        ("export", "weights for others", "#fff7e6"),
        ("planner", "will it fit, how long", "#fff7e6"),
    ),
    (("trainer", "one training step: the policy and the environments come in as arguments", "#fde8e8"),),
    (("cluster", "several machines compute one run's items", "#e8effd"),),
    (
        ("rows", "environment: the user's data and rewards", "#e7f6ec"),
        ("selfplay", "environment: what is asked, what Python says, what it is worth", "#e7f6ec"),
        ("model", "model: sampling, loss, update", "#e8effd"),
    ),
    (("executor", "environment: runs programs that nobody trusts", "#e7f6ec"),),
    (
        (
            "config types environment generation errors paths files versions terminal",
            "used by all",
            "#f4f4f5",
        ),
    ),
)
ALIKE = {"kinds": "one module for each task kind"}  # folders whose modules are described, not listed
WIDTH, MARGIN, GAP, LINE = 1120, 24, 20, 17
Box = tuple[float, float, float, float]  # x, y, width, height


def modules() -> dict[str, Path]:
    """Modules by dotted name; a folder's `__init__` is the folder."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["azr_mlx", *path.relative_to(PACKAGE).with_suffix("").parts]
        if parts[-1] in ("__init__", "__main__"):
            continue
        found[".".join(parts)] = path
    return found


def box_of(name: str) -> str | None:
    """The box that a dotted name of the package belongs to."""
    top = name.split(".")[1] if name.startswith("azr_mlx.") else ""
    return next((box for row in ROWS for box, _, _ in row if top in box.split()), None)


def arrows() -> dict[tuple[str, str], int]:
    """(importing box, imported box) -> how many modules do so."""
    found: dict[tuple[str, str], set[str]] = {}
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                source, target = box_of(module), box_of(name)
                if source and target and source != target:
                    found.setdefault((source, target), set()).add(module)
    return {pair: len(names) for pair, names in sorted(found.items())}


def lines_of(box: str, room: int) -> list[str]:
    """The modules of a box, folded to `room` characters."""
    names = [m.removeprefix("azr_mlx.") for m in modules() if box_of(m) == box]
    if len(box.split()) == 1:
        names = [name.partition(".")[2] for name in names]
    tops = [(top, [n.partition(".")[2] for n in group]) for top, group in groupby(names, lambda n: n.partition(".")[0])]
    words = [
        top if not any(rest) else f"{top}/ ({ALIKE.get(top) or ', '.join(r for r in rest if r)})" for top, rest in tops
    ]
    return textwrap.wrap(", ".join(words), room)


def draw() -> str:
    """The picture as SVG."""
    foundation = ROWS[-1][0][0]
    places: dict[str, Box] = {}
    parts: list[str] = []
    y = float(MARGIN)
    for row in ROWS:
        width = (WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) / len(row)
        if len(row) == 1 and row[0][0] in ("cli doctor", "generation trainer"):
            width = (WIDTH - 2 * MARGIN) / 2
        texts = [lines_of(box, int((width - 24) / 6.6)) for box, _, _ in row]
        titles = [box if len(box.split()) == 1 else "" for box, _, _ in row]
        height = 64 + LINE * max(len(lines) for lines in texts)
        x = (WIDTH - width * len(row) - GAP * (len(row) - 1)) / 2
        for (box, purpose, colour), lines, title in zip(row, texts, titles, strict=True):
            places[box] = (x, y, width, height)
            parts.append(
                f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="8" fill="{colour}" '
                'stroke="#94a3b8"/>'
            )
            head = f"{title}/" if title else box.replace(" ", ", ")
            parts.append(f'<text x="{x + 12:.0f}" y="{y + 22:.0f}" font-weight="600">{head}</text>')
            parts.append(f'<text x="{x + 12:.0f}" y="{y + 40:.0f}" fill="#475569">{escape(purpose)}</text>')
            for i, line in enumerate(lines):
                parts.append(
                    f'<text x="{x + 12:.0f}" y="{y + 60 + LINE * i:.0f}" font-size="12" '
                    f'font-family="ui-monospace, monospace">{escape(line)}</text>'
                )
            x += width + GAP
        y += height + 52
    pairs = [pair for pair in arrows() if foundation not in pair]
    # Under the boxes, so that an arrow that passes others is seen between them only.
    parts = [arrow(places[source], places[target], number) for number, (source, target) in enumerate(pairs)] + parts
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y - 52 + MARGIN:.0f}" font-size="13" '
        'font-family="system-ui, sans-serif" role="img" '
        'aria-label="The modules of azr_mlx in layers; arrows are imports and go down.">\n'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#64748b"/></marker></defs>\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{chr(10).join(parts)}\n</svg>\n'
    )


def arrow(source: Box, target: Box, number: int) -> str:
    """An import: a line from a box to one below it (or beside it)."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = source, target
    shift = (number % 5 - 2) * 9
    if abs(ay - by) < 1:  # side by side: an arc under both
        x1, x2, y = ax + aw / 2 + shift, bx + bw / 2 + shift, ay + ah
        path = f"M{x1:.0f} {y:.0f} C{x1:.0f} {y + 34:.0f} {x2:.0f} {y + 34:.0f} {x2:.0f} {y + 2:.0f}"
    else:
        x1, y1 = min(max(bx + bw / 2, ax + 20), ax + aw - 20) + shift, ay + ah
        x2, y2 = min(max(x1, bx + 20), bx + bw - 20) + shift / 2, by - 1
        if by < ay:
            y1, y2 = ay, by + bh + 1
        path = f"M{x1:.0f} {y1:.0f} L{x2:.0f} {y2:.0f}"
    return f'<path d="{path}" fill="none" stroke="#64748b" stroke-opacity="0.55" marker-end="url(#tip)"/>'


if __name__ == "__main__":
    TARGET.write_text(draw(), encoding="utf-8")

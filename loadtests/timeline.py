"""A picture of a run: values over time, one below the other, with what happened meanwhile."""

from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, GAP = 900, 110, 70, 20, 40, 34
COLORS = {"killed": "#c0392b", "handed over": "#2471a3"}


@dataclass
class Panel:
    """One value; `points` are pairs of seconds and value."""

    title: str
    points: list = field(default_factory=list)


def svg(heading, panels, events, seconds):
    """The picture; `events` are pairs of seconds and kind."""
    height = TOP + len(panels) * (HEIGHT + GAP) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(heading)}</text>',
    ]
    parts += _legend()
    for number, panel in enumerate(panels):
        parts += _panel(panel, TOP + number * (HEIGHT + GAP), events, seconds)
    return "\n".join([*parts, "</svg>", ""])


def _legend():
    for number, (kind, color) in enumerate(COLORS.items()):
        x = WIDTH - RIGHT - 190 + number * 90
        yield f'<line x1="{x}" y1="16" x2="{x + 14}" y2="16" stroke="{color}" stroke-dasharray="3 2"/>'
        yield f'<text x="{x + 18}" y="20">{kind}</text>'


def _label(value):
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.2g}"


def _panel(panel, top, events, seconds):
    top += 18
    bottom = top + HEIGHT - 14
    most = max((value for _, value in panel.points), default=0) or 1

    def x(at):
        return LEFT + (WIDTH - LEFT - RIGHT) * at / max(seconds, 1)

    yield f'<text x="{LEFT}" y="{top - 6}" font-weight="bold">{escape(panel.title)}</text>'
    for share in (0, 0.5, 1):
        y = bottom - (bottom - top) * share
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_label(most * share)}</text>'
    for at, kind in events:
        line = f'x1="{x(at):.1f}" y1="{top}" x2="{x(at):.1f}" y2="{bottom}"'
        yield f'<line {line} stroke="{COLORS[kind]}" stroke-dasharray="3 2"/>'
    line = " ".join(f"{x(at):.1f},{bottom - (bottom - top) * v / most:.1f}" for at, v in panel.points)
    yield f'<polyline points="{line}" fill="none" stroke="#222" stroke-width="1"/>'
    yield f'<text x="{LEFT}" y="{bottom + 14}">0</text>'
    yield f'<text x="{WIDTH - RIGHT}" y="{bottom + 14}" text-anchor="end">{seconds / 60:.1f} min</text>'

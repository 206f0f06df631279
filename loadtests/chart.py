"""Results as SVG."""

from html import escape

ROW, BAR, GAP = 46, 14, 3
LEFT, WIDTH, RIGHT = 250, 420, 60
COLOURS = {"HAProxy": "#9aa5b1", "Litepilot": "#2f6f4f"}


def bars(title, costs):
    """Two bars for each kind: HAProxy's ratio and Litepilot's; a line where nginx is."""
    top, scale = 48, WIDTH / max(1.2, *(max(pair[:2]) for pair in costs.values()))
    height = top + ROW * len(costs) + 30
    one = LEFT + scale
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}"'
        ' font-family="system-ui, sans-serif" font-size="13" role="img">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="16" y="24" font-size="15" font-weight="600">{escape(title)}</text>',
    ]
    for number, (kind, ratios) in enumerate(costs.items()):
        y = top + number * ROW
        parts.append(f'<text x="{LEFT - 12}" y="{y + 20}" text-anchor="end">{escape(kind)}</text>')
        for place, (name, ratio) in enumerate(zip(COLOURS, ratios)):
            at = y + place * (BAR + GAP)
            parts.append(
                f'<rect x="{LEFT}" y="{at}" width="{ratio * scale:.0f}" height="{BAR}"'
                f' fill="{COLOURS[name]}"/>'
                f'<text x="{LEFT + ratio * scale + 6:.0f}" y="{at + 11}" font-size="11">{ratio:.2f}</text>'
            )
    bottom = top + ROW * len(costs)
    parts.append(f'<path d="M{one:.0f} {top - 8}V{bottom}" stroke="#b33" stroke-dasharray="4 3"/>')
    parts.append(f'<text x="{one:.0f}" y="{bottom + 16}" text-anchor="middle" fill="#b33">nginx</text>')
    for place, (name, colour) in enumerate(COLOURS.items()):
        x = 16 + place * 100
        parts.append(f'<rect x="{x}" y="{bottom + 6}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18}" y="{bottom + 16}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])

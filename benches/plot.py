"""The plots: bars with the median, and a line from the smallest round to the largest."""

import html

from figures import amount, label

COLORS = {"millrace": "#1f6f8b", "testpmd": "#d9c58b"}


def plot(title, rows):
    """An SVG of rows with one unit."""
    left, width, step, top = 190, 430, 34, 52
    most = max([row["max"] for row in rows] + [1e-9])
    place = lambda value: left + width * max(0, value) / most
    height = top + step * len(rows) + 14
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" viewBox="0 0 760 {height}" '
             'font-family="sans-serif" font-size="13">', f'<rect width="760" height="{height}" fill="#ffffff"/>',
             f'<text x="12" y="24" font-size="16" font-weight="bold">{html.escape(title)}</text>',
             f'<text x="12" y="42" fill="#555555">{html.escape(rows[0]["unit"])}; the line is the smallest to the largest round</text>']
    for number, row in enumerate(rows):
        y = top + step * number
        color = COLORS.get(row["system"], "#a9a9a9")
        note = amount(row["median"]) + (f" ({row['errors']} ERRORS)" if row["errors"] else "")
        parts += [f'<text x="{left - 8}" y="{y + 18}" text-anchor="end">{html.escape(label(row))}</text>',
                  f'<rect x="{left}" y="{y + 4}" width="{place(row["median"]) - left:.1f}" height="20" fill="{color}"/>',
                  f'<line x1="{place(row["min"]):.1f}" x2="{place(row["max"]):.1f}" y1="{y + 14}" y2="{y + 14}" stroke="#000000" '
                  'stroke-width="2"/>',
                  f'<text x="{place(row["max"]) + 8:.1f}" y="{y + 18}">{html.escape(note)}</text>']
    return "\n".join([*parts, "</svg>"]) + "\n"

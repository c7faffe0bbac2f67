# SPDX-License-Identifier: Apache-2.0
"""From samples to a table, with the targets beside it, and to a plot (SVG, written by hand)."""

from statistics import median
from xml.sax.saxutils import escape

COLOURS = {"loopback": "#9aa5b1", "slirp4netns": "#c98b4b", "pasta": "#8e6bb0",
           "culvert": "#1f7a8c", "culvert-nospin": "#4fa9b8", "culvert-thread": "#2f9e6e",
           "qemu-slirp": "#c98b4b", "qemu-passt": "#8e6bb0", "qemu-stream": "#4fa9b8",
           "qemu-vhost": "#1f7a8c", "dnsmasq": "#b5533c", "dnsmasq-behind": "#d08a6e"}


def values(data, measurement, engine, key="value"):
    samples = data["samples"].get(measurement, {}).get(engine, [])
    return [sample[key] for sample in samples if key in sample]


def middle(data, measurement, engine, key="value"):
    found = values(data, measurement, engine, key)
    return median(found) if found else None


def figure(number):
    if number >= 100:
        return f"{number:.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def cell(data, measurement, engine):
    found = values(data, measurement.name, engine)
    if not found:
        return "–"
    if len(found) == 1:
        return figure(found[0])
    return f"{figure(median(found))} ({figure(min(found))}–{figure(max(found))})"


def judge(data, measurement, target):
    """"0.62 × loopback, ≥ 0.60 met"; None when one side was not measured."""
    engine, op, factor, other, key = target
    ours = middle(data, measurement.name, engine, key)
    theirs = middle(data, measurement.name, other, key) if other else 1
    if ours is None or not theirs:
        return None
    ratio = ours / theirs
    met = ratio >= factor if op == "≥" else ratio <= factor
    beside = f" × {other}" if other else ""
    who = "" if engine == "culvert" else f"{engine} "
    what = {"slowest_share": "slowest stream's share ", "cpu_s_per_gib": "CPU "}.get(key, "")
    verdict = "met" if met else "**missed**"
    return f"{who}{what}{figure(ratio)}{beside}, {op} {factor:g} {verdict}"


def aim(target):
    engine, op, factor, other, key = target
    what = {"slowest_share": "slowest share ", "cpu_s_per_gib": "CPU "}.get(key, "")
    who = {"culvert-nospin": "no spin ", "culvert-vhost": "vhost "}.get(engine, "")
    return f"{who}{what}{op} {factor:g}" + (f" × {other}" if other else "")


def measured(data, measurements, engine):
    return any(values(data, m.name, engine) for m in measurements)


def table(data, measurements):
    engines = [engine for engine in data["engines"] if measured(data, measurements, engine)]
    lines = ["| | " + " | ".join(engines) + " | targets |",
             "|---" * (len(engines) + 2) + "|"]
    for m in measurements:
        cells = [cell(data, m, engine) for engine in engines]
        targets = "; ".join(judge(data, m, t) or aim(t) for t in m.targets)
        lines.append(f"| {m.title}, {m.unit} | " + " | ".join(cells) + f" | {targets} |")
    return "\n".join(lines) + "\n"


def tables(data, measurements):
    """One a group."""
    groups = dict.fromkeys(m.group for m in measurements)
    return "\n".join(table(data, [m for m in measurements if m.group == group])
                     for group in groups)


def cpu_table(data, measurements):
    engines = [engine for engine in data["engines"]
               if engine != "loopback" and measured(data, measurements, engine)]
    lines = ["The engine's own CPU: seconds a GiB, or its share of a core.", "",
             "| | " + " | ".join(engines) + " |", "|---" * (len(engines) + 1) + "|"]
    for m in measurements:
        cells = []
        for engine in engines:
            per_gib = middle(data, m.name, engine, "cpu_s_per_gib")
            share = middle(data, m.name, engine, "cpu_share")
            if per_gib is not None:
                cells.append(f"{figure(per_gib)} s/GiB")
            else:
                cells.append("–" if share is None or m.once else f"{share * 100:.0f} %")
        if any(c != "–" for c in cells) and m.name not in ("start", "machine-boot"):
            lines.append(f"| {m.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def summary(data):
    at = data["machine"]
    lines = [f"{at['date']}, {at['cpu']}, {at['cores']} cores, Linux {at['kernel']}, load average "
             f"{at['load_average_before']:.1f} before. Median (lowest–highest) of {data['rounds']} "
             f"interleaved rounds of {data['seconds']:g} s each.",
             "Engines: " + ", ".join(f"{name} ({version})" if version else name
                                     for name, version in data["engines"].items()) + ".", ""]
    lines += [f"- {note}." for note in data.get("notes", [])]
    return "\n".join(lines)


# ---- the plot: one small panel a measurement, one bar an engine, a whisker from lowest to highest

PANEL_W, ROW_H, LABEL_W, COLUMNS, GAP = 380, 20, 96, 3, 22


def text(x, y, content, extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" {extra}>{escape(content)}</text>'


def bar(data, m, engine, y, scale):
    found = values(data, m.name, engine)
    value, low, high = median(found), min(found), max(found)
    x, width = LABEL_W, max(value * scale, 1)
    centre = y + ROW_H / 2
    colour = COLOURS.get(engine, "#555")
    parts = [text(LABEL_W - 6, centre + 4, engine, 'text-anchor="end" class="name"'),
             f'<rect x="{x}" y="{y + 3}" width="{width:.1f}" height="{ROW_H - 6}" '
             f'fill="{colour}"/>']
    if high > low:
        parts.append(f'<path d="M{x + low * scale:.1f} {centre}H{x + high * scale:.1f}" '
                     'class="whisker"/>')
    parts.append(text(x + max(width, high * scale) + 5, centre + 4, figure(value), 'class="value"'))
    return "".join(parts)


def panel(data, m, engines):
    highest = max(max(values(data, m.name, engine)) for engine in engines)
    scale = (PANEL_W - LABEL_W - 56) / highest if highest > 0 else 1
    better = "more is better" if m.targets and m.targets[0][1] == "≥" else "less is better"
    parts = [text(0, 14, m.title, 'class="title"'),
             text(0, 29, f"{m.unit}, {better}", 'class="unit"')]
    for i, engine in enumerate(engines):
        parts.append(bar(data, m, engine, 36 + i * ROW_H, scale))
    return "".join(parts), 36 + len(engines) * ROW_H


def plot(data, measurements):
    panels = []
    for m in measurements:
        engines = [e for e in data["engines"] if values(data, m.name, e)]
        if engines:
            panels.append(panel(data, m, engines))
    body, y = [], GAP
    for first in range(0, len(panels), COLUMNS):
        row = panels[first:first + COLUMNS]
        for column, (content, _) in enumerate(row):
            x = GAP + column * (PANEL_W + GAP)
            body.append(f'<g transform="translate({x} {y})">{content}</g>')
        y += max(height for _, height in row) + GAP
    at = data["machine"]
    body.append(text(GAP, y + 8, f"{at['cpu']}, {at['cores']} cores, Linux {at['kernel']}; median "
                     f"of {data['rounds']} interleaved rounds, whiskers: lowest to highest",
                     'class="unit"'))
    width, height = GAP + COLUMNS * (PANEL_W + GAP), y + GAP
    style = ("text{font:12px system-ui,sans-serif;fill:#1b2733}.title{font-weight:600}"
             ".unit{fill:#5b6770;font-size:11px}.value{font-size:11px}"
             ".whisker{stroke:#1b2733;stroke-width:1.2;fill:none}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" '
            f'width="{width}" height="{height:.0f}"><style>{style}</style>'
            f'<rect width="100%" height="100%" fill="#fff"/>' + "\n".join(body) + "</svg>\n")

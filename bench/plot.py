#!/usr/bin/python3
"""plot.py RESULTS.json - draws what bench/peer.sh measured (make bench-peer): RESULTS.svg beside
it, and build/RESULTS.png to look at. Needs matplotlib (Debian's python3-matplotlib), which nothing
else here does. The same results give the same bytes of SVG."""
import json
import os
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Of a palette that is told apart without red and green, and in print without colour.
OURS, PEER, DARK, FAINT = "#0072b2", "#e69f00", "#222222", "#6b6b6b"
DISTURBED = 0.1  # processors that other programs kept busy, as bench/peer.sh has it

plt.rcParams.update({
    # Text becomes outlines (the default), so that it looks the same without this font.
    "svg.hashsalt": "smallmind",  # names of clip paths are random otherwise
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
})


def number(v):
    return "%.0f" % v if v >= 100 else "%.1f" % v if v >= 10 else "%.2f" % v


def label(row):
    star = "* " if disturbed(row) else ""
    return "%s%s, %d thread%s" % (star, row["isa"], row["threads"], "s"[row["threads"] == 1:])


def disturbed(row):
    return (row.get("others_busy") or 0) >= DISTURBED


def strength(row):
    return 0.45 if disturbed(row) else 1.0


def positions(rows):
    """From the top down; where a model begins there is room for its name."""
    y, at = [], 0.0
    for i, row in enumerate(rows):
        if i:
            at -= 1.0 if row["model"] == rows[i - 1]["model"] else 1.65
        y.append(at)
    return y


def draw_decode(ax, rows, y):
    """Decoding as a share of what reading the weights alone would reach."""
    most = max([1.0] + [max(r["ours_of_limit"], r["peer_of_limit"]) for r in rows])
    for i, (row, at) in enumerate(zip(rows, y)):
        if not i or row["model"] != rows[i - 1]["model"]:
            ax.text(0, at + 0.68, row["model"], va="center", fontweight="bold", zorder=4)
        for key, color, ink, offset in (("ours", OURS, "white", 0.2), ("peer", PEER, DARK, -0.2)):
            share = row[key + "_of_limit"]
            ax.barh(at + offset, share, 0.38, color=color, alpha=strength(row))
            # The figure stands in the bar, or behind one that is too short for it.
            inside = share > 0.08 * most
            ax.text(0.008 * most + (0 if inside else share), at + offset - 0.01,
                    number(row[key + "_decode"]), va="center", fontsize=8,
                    color=ink if inside and not disturbed(row) else DARK, zorder=4)
        ax.plot([1, 1], [at - 0.44, at + 0.44], color=DARK, linewidth=2.5, solid_capstyle="butt",
                zorder=3)
        ax.text(1.13 * most, at, number(row["limit_decode"]), va="center", ha="right", fontsize=8,
                color=FAINT)
    ax.text(1.13 * most, 0.68, "limit", va="center", ha="right", fontsize=8, color=FAINT)
    ax.set_xlim(0, 1.13 * most)
    ax.set_yticks(y)
    ax.set_yticklabels([label(r) for r in rows])
    ax.set_xlabel("share of the limit (figures: tokens per second)")
    ax.set_title("Decode", loc="left", fontsize=10, fontweight="bold")


def draw_prompt(ax, rows, y):
    # What was disturbed may be hundreds of times off: it does not make the scale.
    fair = [r["prompt_ratio"] for r in rows if not disturbed(r)]
    most = max([1.0] + (fair or [min(r["prompt_ratio"], 10) for r in rows]))
    for row, at in zip(rows, y):
        ax.barh(at, min(row["prompt_ratio"], 1.02 * most), 0.5, color=OURS, alpha=strength(row))
        ax.text(1.28 * most, at, "%.2f" % row["prompt_ratio"], va="center", ha="right", fontsize=8)
    ax.axvline(1, color=PEER, linewidth=2.5, zorder=3)
    ax.set_xlim(0, 1.28 * most)
    ax.set_yticks([])
    ax.set_xlabel("times llama.cpp's speed")
    ax.set_title("Prompt", loc="left", fontsize=10, fontweight="bold")


def draw(results):
    rows = results["rows"]
    y = positions(rows)
    head, foot, inches = 1.15, 0.85, 0.4 * (1.6 - y[-1])
    height = head + inches + foot
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, height),
                                      gridspec_kw={"width_ratios": [2.3, 1]})
    fig.subplots_adjust(left=0.15, right=0.98, top=1 - head / height, bottom=foot / height,
                        wspace=0.06)
    draw_decode(left, rows, y)
    draw_prompt(right, rows, y)
    for ax in (left, right):
        ax.set_ylim(y[-1] - 0.6, 1.0)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", color="#dddddd", linewidth=0.6)
        ax.set_axisbelow(True)

    settings = results["settings"]
    fig.text(0.012, 1 - 0.2 / height, "smallmind.h beside llama.cpp", fontsize=13,
             fontweight="bold", va="center")
    fig.text(0.012, 1 - 0.44 / height, "%s, %d processors · %s %s · commit %s · %s" % (
        results["cpu"], results["processors"], results["compiler"], results["options"],
        results["commit"], results["date"][:10]), color=FAINT, fontsize=8, va="center")
    fig.text(0.012, 1 - 0.62 / height,
             "%s · medians of %d alternating pair%s, prompt %d, decode %d" % (
                 results["peer"], settings["pairs"], "s"[settings["pairs"] == 1:],
                 settings["prompt"], settings["decode"]),
             color=FAINT, fontsize=8, va="center")
    mark = matplotlib.lines.Line2D([], [], color=DARK, linestyle="none", marker="|", markersize=11,
                                   markeredgewidth=2.5)
    handles = [matplotlib.patches.Patch(color=OURS), matplotlib.patches.Patch(color=PEER), mark]
    fig.legend(handles, ["smallmind.h", "llama.cpp", "limit: reading the weights alone"],
               loc="center right", bbox_to_anchor=(0.985, 1 - 0.2 / height), ncol=3, frameon=False,
               fontsize=8.5, borderaxespad=0)
    notes = []
    if any(disturbed(r) for r in rows):
        notes.append("* other programs were running: not a fair measurement")
    if not results["complete"]:
        notes.append("the run was stopped before its end")
    fig.text(0.012, 0.14 / height, "; ".join(notes), color=FAINT, fontsize=8, va="center")
    return fig


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    path = sys.argv[1]
    with open(path, encoding="utf-8") as f:
        results = json.load(f)
    if not results["rows"]:
        sys.exit("plot.py: %s has no rows" % path)
    base = path[:-5] if path.endswith(".json") else path
    png = os.path.join("build", os.path.basename(base) + ".png")
    os.makedirs("build", exist_ok=True)
    fig = draw(results)
    fig.savefig(base + ".svg", metadata={"Date": None})
    fig.savefig(png, dpi=130)
    print("%s.svg, %s" % (base, png))


main()

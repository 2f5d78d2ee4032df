"""The published network and the recommended one, side by side."""

from __future__ import annotations

from _style import BLUE, GRAY, GREEN, INK, ORANGE, PURPLE, arrow, bare, box, save
from matplotlib import pyplot as plt

FONT = 10.5  # read at the width of a page
PAPER = [
    ("112 × 112 pixels around each spot", GRAY),
    ("gradient enhancement (GEM)", PURPLE),
    ("ShuffleNetV2 ×0.5, learned", PURPLE),
    ("three levels, each through CBAM", PURPLE),
    ("position, then 4 transformer blocks a\nlevel: each spot attends to all spots", BLUE),
    ("hypergraph convolution\n(hyperedges chosen by the features)", ORANGE),
    ("LSTM over three levels\nand hypergraph", GREEN),
    ("expression of each gene;\nZINB of the counts", INK),
]
DEFAULT = [
    ("80, 160, 320 and 640 µm\naround each spot", GRAY),
    ("ShuffleNetV2 ×0.5, frozen\n(adapted to H&E)", PURPLE),
    ("feature maps of the tissue, averaged\nover fields of view and surroundings", PURPLE),
    ("centered and scaled\nwithin the section", PURPLE),
    ("hypergraph convolution\n(hyperedges of adjacent spots)", ORANGE),
    ("attention fusion of views\nand hypergraph", GREEN),
    ("a few gene programs,\ndecoded into all genes", INK),
]

fig, ax = plt.subplots(figsize=(7.6, 6.8), layout="constrained")
bare(ax).set(xlim=(-2.5, 8.75), ylim=(-7.9, 0.95))
for x, title, steps in ((0, "as published", PAPER), (5.2, "default preset", DEFAULT)):
    ax.text(x, 0.72, title, ha="center", fontsize=12, fontweight="bold")
    for row, (text, color) in enumerate(steps):
        box(
            ax, (x, -row), (4.7, 0.68), text, color=color, fill="white" if color == INK else color + "1c", fontsize=FONT
        )
        if row:
            arrow(ax, (x, -row + 0.67), (x, -row + 0.34))
# The closed form, which comes first
last = 1 - len(DEFAULT)
ax.plot([7.55, 8.1, 8.1], [-3, -3, last], color=INK, lw=1.6)
arrow(ax, (8.1, last), (7.57, last))
closed_form = "closed form: ridge from features to\nprograms; always there"
ax.text(8.25, (last - 3) / 2, closed_form, rotation=90, va="center", ha="left", fontsize=FONT)
ax.text(0, -7.62, "end to end, 116 million weights", ha="center", fontsize=FONT, color=GRAY)
ax.text(
    5.2,
    last - 0.62,
    "up to five networks averaged,\nwhere they earn a share",
    ha="center",
    va="center",
    fontsize=FONT,
    color=GRAY,
)
save(fig, __file__, "svg")

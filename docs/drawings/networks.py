"""The published network and the recommended one, side by side."""

from __future__ import annotations

from _style import BLUE, GRAY, GREEN, INK, ORANGE, PURPLE, arrow, bare, box, save
from matplotlib import pyplot as plt

PAPER = [
    ("112 × 112 pixels around each spot", GRAY),
    ("gradient enhancement (GEM)", PURPLE),
    ("ShuffleNetV2 ×0.5, learned", PURPLE),
    ("three levels, each through CBAM", PURPLE),
    ("position, then 4 transformer blocks a level:\neach spot attends to all spots of the section", BLUE),
    ("hypergraph convolution\n(hyperedges chosen by the features)", ORANGE),
    ("LSTM over three levels and hypergraph", GREEN),
    ("expression of each gene;  ZINB of the counts", INK),
]
DEFAULT = [
    ("80, 160, 320 and 640 µm around each spot", GRAY),
    ("ShuffleNetV2 ×0.5, frozen (adapted to H&E)", PURPLE),
    ("feature maps of the tissue, averaged over the\nfields of view and what is around them", PURPLE),
    ("centered and scaled within the section", PURPLE),
    ("hypergraph convolution\n(hyperedges of adjacent spots)", ORANGE),
    ("attention fusion of views and hypergraph", GREEN),
    ("a few gene programs, decoded into all genes", INK),
]

fig, ax = plt.subplots(figsize=(7.6, 6.4), layout="constrained")
bare(ax).set(xlim=(-2.6, 9.4), ylim=(-7.9, 0.95))
for x, title, steps in ((0, "as published", PAPER), (5.6, "default preset", DEFAULT)):
    ax.text(x, 0.72, title, ha="center", fontsize=11, fontweight="bold")
    for row, (text, color) in enumerate(steps):
        box(ax, (x, -row), (5.15, 0.7), text, color=color, fontsize=9.7, fill="white" if color == INK else color + "1c")
        if row:
            arrow(ax, (x, -row + 0.65), (x, -row + 0.36))
# The closed form, which comes first
last = 1 - len(DEFAULT)
ax.plot([8.18, 8.75, 8.75], [-3, -3, last], color=INK, lw=1.6)
arrow(ax, (8.75, last), (8.2, last))
closed_form = "closed form: ridge from features to\nprograms; always there"
ax.text(8.88, (last - 3) / 2, closed_form, rotation=90, va="center", ha="left", fontsize=9)
ax.text(0, -7.62, "end to end, 116 million weights", ha="center", fontsize=8.5, color=GRAY)
ax.text(5.6, last - 0.62, "up to five networks averaged, where they contribute", ha="center", fontsize=8.5, color=GRAY)
save(fig, __file__, "svg")

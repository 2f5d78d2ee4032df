"""The published network on one section held out, within a budget, beside the authors' figure for that section.

    python benchmarks/paper_preset.py --root $STHGGEP_DATA/her2st --panel panel_her2.txt --held-out C2 --epochs 30

No validation section and no choice of epoch: the last epoch is scored. The learning rate is raised (published: 1e-5 over 350
epochs of 31 sections), since a budget of minutes holds few steps.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import replace
from pathlib import Path

import sthggep
from sthggep._training._presets import PRESETS


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=None)
    parser.add_argument("--panel", type=Path, required=True)
    parser.add_argument("--sections", nargs="+", default=["B4", "C2", "C3", "C4", "C5"])
    parser.add_argument("--held-out", default="C2")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--weights", default=None)
    parser.add_argument("--precision", default=None, help="Lightning's name, such as bf16-mixed; else measured")
    parser.add_argument(
        "--no-distillation", action="store_true", help="leave out the five augmented copies: six times faster"
    )
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()

    read = {name: sthggep.datasets.her2st(name, root=options.root) for name in options.sections}
    train = [slide for name, slide in read.items() if name != options.held_out]
    preset = PRESETS["paper"]
    if options.no_distillation:
        preset = replace(preset, recipe=replace(preset.recipe, distillation=0.0))
    start = time.perf_counter()
    model = sthggep.tl.fit(
        train,
        genes=options.panel.read_text().split(),
        preset=preset,
        validation=None,
        max_epochs=options.epochs,
        learning_rate=options.learning_rate,
        weights=options.weights,
        trainer_kwargs={"precision": options.precision} if options.precision else None,
        show_progress_bar=False,
    )
    seconds = time.perf_counter() - start
    slide = read[options.held_out]
    sthggep.tl.predict(slide, model, show_progress_bar=False)
    scores = sthggep.tl.evaluate(slide)
    print(model)
    print(model.history.tail(3).to_string())
    print(
        f"{options.held_out}: PCC {scores['pearson'].mean():.3f} of a ceiling of {scores['ceiling'].mean():.3f}, "
        f"{options.epochs} epochs in {seconds:.0f} s ({seconds / options.epochs / len(train):.1f} s a step), "
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB"
    )
    if options.out is not None:
        scores.to_csv(options.out)


if __name__ == "__main__":
    main()

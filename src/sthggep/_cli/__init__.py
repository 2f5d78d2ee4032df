"""The shell commands: ``sthggep demo | fit | predict | evaluate | report | cross-validate``."""

from __future__ import annotations

import click

from sthggep._cli._cross_validate import cross_validate
from sthggep._cli._demo import demo
from sthggep._cli._evaluate import evaluate
from sthggep._cli._fit import fit
from sthggep._cli._predict import predict
from sthggep._cli._report import report

__all__ = ["main"]

INTERRUPTED = 130


class InOrder(click.Group):
    """A group that lists its commands in the order of the pipeline."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; an interrupt (Ctrl-C) ends with a message, and with the exit code of shells for it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            # The terminal shows ^C in the line
            click.echo("" if getattr(interrupt, "is_logged", False) else "\nInterrupted.", err=True)
            ctx.exit(INTERRUPTED)


@click.group(
    cls=InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
    epilog="`sthggep COMMAND --help` has examples. Exit codes: 0 done, 1 an error, 2 wrong usage, 130 interrupted.",
)
@click.version_option(package_name="sthggep")
def main() -> None:
    """Predict gene expression from H&E: train on your slides, predict new slides, score the predictions.

    Slides are AnnData (.h5ad or .zarr), SpatialData (.zarr) or folders of Space Ranger (Visium); predict also takes images.
    """


for command in (demo, fit, predict, evaluate, report, cross_validate):
    main.add_command(command)

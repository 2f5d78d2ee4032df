"""Parts that all commands share: grouped help with examples, log lines, errors as one message, exit codes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from sthggep._cli import _config
from sthggep._cli._advice import in_shell_words
from sthggep._cli._lines import lines
from sthggep._disk._run_folder import write_text
from sthggep._log import log

RECORD = "run.yaml"
RUN = "Run"
# What users of other programs type for a device
DEVICE_OPTIONS = {"--gpu": "gpu", "--gpus": "gpu", "--use-gpu": "gpu", "--cuda": "cuda", "--mps": "mps", "--cpu": "cpu"}


class Option(click.Option):
    """An option with its heading in the help."""

    def __init__(self, names: Sequence[str], heading: str = "Options", **settings: Any) -> None:
        super().__init__(names, **settings)
        self.heading = heading


@dataclass(frozen=True)
class Run:
    """Options of the current run as YAML, and whether it shows progress."""

    config: str
    show: bool

    def write_options(self, folder: Path) -> None:
        """Write the options of this run into its output folder, to repeat it with ``--config``."""
        write_text(folder / RECORD, self.config)


class Command(click.Command):
    """A command with grouped help, examples, and errors as one message.

    Parameters
    ----------
    examples
        Command lines shown at the end of the help.
    """

    def __init__(self, name: str | None, *, examples: str, **settings: Any) -> None:
        super().__init__(name, **settings)
        self.examples = examples.strip("\n").splitlines()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words of the shell; an unknown option for a device is answered by the right one."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            device = DEVICE_OPTIONS.get(error.option_name)
            if device is None:
                raise
            takes_one = any(param.name == "device" for param in self.params)
            advice = f"Pass --device {device}; without it" if takes_one else f"{ctx.command_path} takes none:"
            msg = f"No such option: {error.option_name}. {advice} a GPU is used if there is one."
            raise click.UsageError(msg, ctx) from error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                groups.setdefault(getattr(param, "heading", RUN), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        with formatter.section("Examples"):
            for line in self.examples:
                formatter.write(f"  {line}\n" if line else "\n")

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; an error becomes one message and exit code 1."""
        target, quiet = ctx.params.pop("write_config"), ctx.params.pop("quiet")
        verbose, debug = ctx.params.pop("verbose"), ctx.params.pop("debug")
        if quiet and verbose:
            msg = "--quiet shows fewer lines and --verbose more. Pass one of them."
            raise click.UsageError(msg, ctx)
        ctx.params.pop("config")
        ctx.obj = Run(_config.as_yaml(ctx), show=not quiet)
        group = ctx.parent.command if ctx.parent is not None else None
        commands = list(group.commands.values()) if isinstance(group, click.Group) else []
        with lines(partial(in_shell_words, command=self, commands=commands), quiet=quiet, verbose=verbose):
            try:
                if target is not None:
                    _write_config(target, ctx)
                    return None
                log.debug("Options of this run:\n%s", ctx.obj.config)
                return super().invoke(ctx)
            except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
                raise
            except Exception as error:
                if debug:
                    raise
                log.error("%s", error_text(error))
                ctx.exit(1)


def command(name: str, short: str, examples: str) -> Callable[[Callable[..., None]], Command]:
    """Turn a function into a command of that name; ``short`` is its line in the list of commands."""
    return click.command(name, cls=Command, short_help=short, examples=examples)


def _write_config(target: Path, ctx: click.Context) -> None:
    if os.path.lexists(target):
        msg = f"{target} exists already. Pass another file to --write-config."
        raise FileExistsError(msg)
    write_text(target, ctx.obj.config)
    log.info(
        "Options written to %s; the command did not run. Next: sthggep %s --config %s", target, ctx.info_name, target
    )


def error_text(error: Exception) -> str:
    """An error as one message for the user of a shell."""
    # The first argument of a system error is a number; a KeyError puts its message into quotes
    text = str(error) if getattr(error, "errno", None) or not error.args else str(error.args[0])
    if not _expected(error):
        text = (
            f"{type(error).__name__}: {text or 'no message'} (Run the command again with --debug to see the traceback.)"
        )
    return ": ".join([*getattr(error, "__notes__", []), text])


def _expected(error: Exception) -> bool:
    """Whether the message is for the user: sthggep raised the error, or a file or a package is missing."""
    if isinstance(error, OSError | ImportError):
        return True
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and str(frame.tb_frame.f_globals.get("__name__", "")).startswith("sthggep")

"""What all commands share: grouped help with examples, lines for the user, errors as one message, exit codes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from sthggep._cli import _config
from sthggep._cli._lines import lines
from sthggep._log import log

RECORD = "run.yaml"
RUN = "Run"


class Option(click.Option):
    """An option, and the heading that it stands under in the help."""

    def __init__(self, *names: Any, heading: str = "Options", **rest: Any) -> None:
        super().__init__(*names, **rest)
        self.heading = heading


@dataclass(frozen=True)
class Run:
    """What a command may ask about its own run."""

    config: str
    show: bool

    def keep(self, folder: Path) -> None:
        """Leave the options of this run in its output, so that it can be repeated."""
        (folder / RECORD).write_text(self.config, encoding="utf-8")


class Command(click.Command):
    """A command that says what it does and how it failed.

    Parameters
    ----------
    examples
        Command lines shown at the end of the help.
    """

    def __init__(self, *args: Any, examples: str, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.examples = examples.strip("\n").splitlines()

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

    def invoke(self, ctx: click.Context) -> Any:
        """Run; an error is one message and exit code 1."""
        target, quiet = ctx.params.pop("write_config"), ctx.params.pop("quiet")
        verbose, debug = ctx.params.pop("verbose"), ctx.params.pop("debug")
        ctx.params.pop("config")
        ctx.obj = Run(_config.as_yaml(ctx), show=not quiet)
        with lines(partial(in_shell_words, command=self), quiet=quiet, verbose=verbose):
            try:
                if target is not None:
                    return _write_config(target, ctx)
                log.debug("Options of this run:\n%s", ctx.obj.config)
                return super().invoke(ctx)
            except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
                raise
            except Exception as error:
                if debug:
                    raise
                log.error("%s", said(error))
                ctx.exit(1)


def command(name: str, short: str, examples: str) -> Callable[[Callable[..., None]], Command]:
    """Turn a function into a command of that name; ``short`` stands in the list of commands."""
    return click.command(name, cls=Command, short_help=short, examples=examples)


def _write_config(target: Path, ctx: click.Context) -> None:
    if target.exists():
        msg = f"{target} exists already and is left alone. Pass another file to --write-config."
        raise FileExistsError(msg)
    target.write_text(ctx.obj.config, encoding="utf-8")
    log.info("Options written to %s; nothing was run. Next: sthggep %s --config %s", target, ctx.info_name, target)


def said(error: Exception) -> str:
    """An error as one message for people who typed a command."""
    # The system's own errors carry a number first; a KeyError shows its message in quotes
    text = str(error) if getattr(error, "errno", None) or not error.args else str(error.args[0])
    if not _expected(error):
        text = f"{type(error).__name__}: {text or 'no message'} (Run again with --debug to see where it comes from.)"
    return ": ".join([*getattr(error, "__notes__", []), text])


def _expected(error: Exception) -> bool:
    """Whether somebody wrote the message for the user: we did, or the system about a file, or a package is missing."""
    if isinstance(error, OSError | ImportError):
        return True
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at is not None and str(at.tb_frame.f_globals.get("__name__", "")).startswith("sthggep")


def in_shell_words(text: str, command: click.Command) -> str:
    """The library's advice names arguments of its functions; those that are options here are named so."""
    flags = {param.name: max(param.opts, key=len) for param in command.params if isinstance(param, click.Option)}

    def flag(found: re.Match[str]) -> str:
        value = (found["value"] or "").strip("'").replace("True", "")
        return f"{flags[found['name']]} {value}".rstrip() if found["name"] in flags else found[0]

    text = re.sub(r"`sthggep\.tl\.(fit|predict|evaluate)(?:\([^`]*\))?`", r"`sthggep \1`", text)
    text = text.replace("`sthggep.tl.cross_validate`", "`sthggep cross-validate`")
    return re.sub(r"`(?P<name>\w+)(?:=(?P<value>True|'\w+'|[\d.]+)?(?:\[[^`]*\])?)?`", flag, text)

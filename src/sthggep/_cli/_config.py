"""Options from a YAML file, and the options of a run as one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from difflib import get_close_matches
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import click
import yaml

# About a single run rather than about its result
NOT_KEPT = ("config", "write_config", "quiet", "verbose", "debug", "overwrite")
NO_KEYS = ("config", "write_config")


def read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Take what stands in a file as defaults of this run: flags win over it."""
    if path is not None:
        ctx.default_map = _defaults(_mapping(path), path, ctx.command)
    return path


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as reason:
        msg = f"{path} cannot be read ({reason})."
        raise click.BadParameter(msg) from reason
    except yaml.YAMLError as reason:
        msg = f"{path} is not YAML: {reason}"
        raise click.BadParameter(msg) from reason
    if not isinstance(found, Mapping):
        msg = f"{path} must hold lines of `name: value`, found {type(found).__name__ if found else 'nothing'}."
        raise click.BadParameter(msg)
    return {str(name): value for name, value in found.items()}


def _defaults(found: Mapping[str, Any], path: Path, command: click.Command) -> dict[str, Any]:
    """Checked values under the names of the command's parameters."""
    params = {param.name: param for param in command.params if param.name and param.name not in NO_KEYS}
    names = {written: written.lstrip("-").replace("-", "_") for written in found}
    if unknown := [written for written, name in names.items() if name not in params]:
        raise click.BadParameter(f"{path}: " + " ".join(_unknown(written, list(params)) for written in unknown))
    if twice := [name for name in params if list(names.values()).count(name) > 1]:
        msg = f"{path}: {', '.join(twice)} stands there twice."
        raise click.BadParameter(msg)
    given = {names[written]: value for written, value in found.items() if value is not None}
    return {name: _checked(name, value, params[name], path) for name, value in given.items()}


def _unknown(written: str, known: list[str]) -> str:
    near = get_close_matches(written.replace("-", "_"), known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(known)}."
    return f"unknown option {written!r}; {hint}"


def _checked(name: str, value: Any, param: click.Parameter, path: Path) -> Any:
    """A value as it would be typed after the option: the option's own type reads it."""
    if isinstance(param, click.Option) and param.is_flag:
        if not isinstance(value, bool):
            msg = f"{path}: {name} must be true or false, found {value!r}."
            raise click.BadParameter(msg)
        return value
    many = param.multiple if isinstance(param, click.Option) else param.nargs == -1
    items = value if many and isinstance(value, list) else [value]
    for item in items:
        if isinstance(item, bool):
            msg = f"{path}: {name} holds {item!r}: YAML reads yes, no, on and off so. Put the word in quotes."
            raise click.BadParameter(msg)
        if isinstance(item, list | dict) or item is None:
            msg = f"{path}: {name} must be {'one value or a list of them' if many else 'one value'}, found {value!r}."
            raise click.BadParameter(msg)
    if not many:
        return str(value)
    texts = [str(item) for item in items]
    return _files(texts, name, path) if isinstance(param, click.Argument) else texts


def _files(patterns: list[str], name: str, path: Path) -> list[str]:
    """Files, where a shell would have replaced ``*`` by their names."""
    files = []
    for pattern in patterns:
        found = sorted(glob(pattern)) if has_magic(pattern) else [pattern]
        if not found:
            msg = f"{path}: {name}: nothing matches {pattern!r}."
            raise click.BadParameter(msg)
        files += found
    return files


def as_yaml(ctx: click.Context) -> str:
    """All options of a run, defaults too, as a file for ``--config``."""
    from sthggep._version import __version__

    when = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    head = (
        f"# sthggep {__version__}, {when}, in {Path.cwd()}\n"
        f"# Again: sthggep {ctx.info_name} --config THIS_FILE; options on the command line win over those here.\n"
    )
    names = [param.name for param in ctx.command.params if param.name in ctx.params and param.name not in NOT_KEPT]
    values = {name: _plain(ctx.params[name]) for name in names}
    kept = {name: value for name, value in values.items() if value not in (None, [])}
    return f"{head}{yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)}"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value

"""Options read from a YAML file, and the options of a run written to one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from difflib import get_close_matches
from glob import glob, has_magic
from pathlib import Path

import click
import yaml

# These options concern a single run, not its result
UNRECORDED = ("config", "write_config", "quiet", "verbose", "debug", "overwrite")
NO_KEYS = ("config", "write_config")


def read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Use the values of a file as defaults of this run; options on the command line override them."""
    if path is not None:
        ctx.default_map = _defaults(_mapping(path), path, ctx.command)
    return path


def _mapping(path: Path) -> Mapping[str, object]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as reason:
        msg = f"{path} cannot be read ({reason})."
        raise click.BadParameter(msg) from reason
    except yaml.YAMLError as reason:
        msg = f"{path} is not YAML: {reason}"
        raise click.BadParameter(msg) from reason
    if not isinstance(content, Mapping):
        msg = f"{path} must hold lines of `name: value`, found {type(content).__name__ if content else 'nothing'}."
        raise click.BadParameter(msg)
    return {str(name): value for name, value in content.items()}


def _defaults(content: Mapping[str, object], path: Path, command: click.Command) -> dict[str, object]:
    """Checked values under the names of the command's parameters."""
    params = {param.name: param for param in command.params if param.name and param.name not in NO_KEYS}
    names = {key: key.lstrip("-").replace("-", "_") for key in content}
    if unknown := [key for key, name in names.items() if name not in params]:
        raise click.BadParameter(f"{path}: " + " ".join(_unknown_option(key, list(params)) for key in unknown))
    if twice := [name for name in params if list(names.values()).count(name) > 1]:
        msg = f"{path}: each option may appear once, found twice: {', '.join(twice)}."
        raise click.BadParameter(msg)
    values = {names[key]: value for key, value in content.items() if value is not None}
    return {name: _check_value(name, value, params[name], path) for name, value in values.items()}


def _unknown_option(key: str, options: list[str]) -> str:
    near = get_close_matches(key.replace("-", "_"), options, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(options)}."
    return f"unknown option {key!r}; {hint}"


def _check_value(name: str, value: object, param: click.Parameter, path: Path) -> object:
    """A value as a user would type it after the option, for the option's type to read."""
    if isinstance(param, click.Option) and param.is_flag:
        if not isinstance(value, bool):
            msg = f"{path}: {name} must be true or false, found {value!r}."
            raise click.BadParameter(msg)
        return value
    many = param.multiple if isinstance(param, click.Option) else param.nargs == -1
    items = value if many and isinstance(value, list) else [value]
    for item in items:
        if isinstance(item, bool):
            msg = f"{path}: {name} holds {item!r}: YAML reads yes, no, on and off as true or false. Put the word in quotes."
            raise click.BadParameter(msg)
        if isinstance(item, list | dict) or item is None:
            msg = f"{path}: {name} must be {'one value or a list of them' if many else 'one value'}, found {value!r}."
            raise click.BadParameter(msg)
    if not many:
        return str(value)
    texts = [str(item) for item in items]
    return _files(texts, name, path) if isinstance(param, click.Argument) else texts


def _files(patterns: list[str], name: str, path: Path) -> list[str]:
    """Replace patterns with ``*`` by names of files, as a shell does."""
    files = []
    for pattern in patterns:
        matches = sorted(glob(pattern)) if has_magic(pattern) else [pattern]
        if not matches:
            msg = f"{path}: {name}: no file matches {pattern!r}."
            raise click.BadParameter(msg)
        files += matches
    return files


def as_yaml(ctx: click.Context) -> str:
    """All options of a run, defaults included, as text for a file for ``--config``."""
    from sthggep._version import __version__

    time = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    head = (
        f"# sthggep {__version__}, {time}, in {Path.cwd()}\n"
        f"# To repeat: sthggep {ctx.info_name} --config THIS_FILE; options on the command line override this file.\n"
    )
    names = [param.name for param in ctx.command.params if param.name in ctx.params and param.name not in UNRECORDED]
    values = {name: _plain(ctx.params[name]) for name in names}
    record = {name: value for name, value in values.items() if value not in (None, [])}
    return f"{head}{yaml.safe_dump(record, sort_keys=False, allow_unicode=True)}"


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value

"""Options read from a YAML file, and the options of a run written to one."""

from __future__ import annotations

import reprlib
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
FLAGS = dict.fromkeys(("true", "yes", "on"), True) | dict.fromkeys(("false", "no", "off"), False)
ROOTS = {yaml.ScalarNode: "str", yaml.SequenceNode: "list"}
MOST_BYTES = 1 << 20
MOST_LETTERS = 1000
MOST_NAMED = 5


def read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Use the values of a file as defaults of this run; options on the command line override them."""
    if path is not None:
        ctx.default_map = _defaults(_mapping(path), path, ctx.command)
    return path


def _mapping(path: Path) -> dict[str, yaml.Node]:
    """Names and values of a file: one value, or a list of values."""
    root = _parse(path)
    if not isinstance(root, yaml.MappingNode):
        msg = f"{path} must hold lines of `name: value`, found {ROOTS.get(type(root), 'nothing')}."
        raise click.BadParameter(msg)
    entries: dict[str, yaml.Node] = {}
    for key, value in root.value:
        if not isinstance(key, yaml.ScalarNode):
            msg = f"{path}: line {key.start_mark.line + 1}: a name was expected, found {_kind(key)}."
            raise click.BadParameter(msg)
        name = _text(key, path)
        if name in entries:
            msg = f"{path}: line {key.start_mark.line + 1}: each option may appear once, found {_short(name)} twice."
            raise click.BadParameter(msg)
        entries[name] = value
    return entries


def _parse(path: Path) -> yaml.Node | None:
    """Parse a file into nodes: text with its type, lists and mappings; nothing is built from them, and no alias unfolds."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            msg = f"{path} must have at most {MOST_BYTES:,} bytes: a file of options was expected."
            raise click.BadParameter(msg)
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as reason:
        msg = f"{path} cannot be read ({reason})."
        raise click.BadParameter(msg) from reason
    except (yaml.YAMLError, ValueError) as reason:
        hint = " Put a value with a * or & into quotes." if "alias" in str(reason) or "anchor" in str(reason) else ""
        msg = f"{path} is not YAML: {reason}{hint}"
        raise click.BadParameter(msg) from reason
    except RecursionError as reason:
        msg = f"{path} is nested too deeply: lines of `name: value` were expected."
        raise click.BadParameter(msg) from reason


def _kind(node: yaml.Node) -> str:
    """What a node holds, in a few words of a message, however large it is."""
    if isinstance(node, yaml.ScalarNode):
        return _short(node.value).strip("'") or "nothing"
    if isinstance(node, yaml.SequenceNode):
        return reprlib.repr([item.value if isinstance(item, yaml.ScalarNode) else "…" for item in node.value[:7]])
    return "lines of `name: value`"


def _short(text: str) -> str:
    return reprlib.repr(text)


def _text(node: yaml.ScalarNode, path: Path) -> str:
    """The text of a value, which can be a part of a file's name."""
    text = str(node.value)
    if len(text) > MOST_LETTERS:
        msg = f"{path}: line {node.start_mark.line + 1}: {_short(text)} has {len(text):,} letters, {MOST_LETTERS:,} at most."
        raise click.BadParameter(msg)
    if "\0" in text or text.encode(errors="replace").decode() != text:
        msg = f"{path}: line {node.start_mark.line + 1}: {_short(text)} holds characters that no text can hold."
        raise click.BadParameter(msg)
    return text


def _defaults(content: Mapping[str, yaml.Node], path: Path, command: click.Command) -> dict[str, object]:
    """Checked values under the names of the command's parameters."""
    params = {param.name: param for param in command.params if param.name and param.name not in NO_KEYS}
    names = {key: key.lstrip("-").replace("-", "_") for key in content}
    if unknown := [key for key, name in names.items() if name not in params]:
        more = f" ({len(unknown)} in all)" if len(unknown) > MOST_NAMED else ""
        named = " ".join(_unknown_option(key, list(params)) for key in unknown[:MOST_NAMED])
        msg = f"{path}: {named}{more}"
        raise click.BadParameter(msg)
    if twice := [name for name in params if list(names.values()).count(name) > 1]:
        msg = f"{path}: each option may appear once, found twice: {', '.join(twice)}."
        raise click.BadParameter(msg)
    values = {names[key]: node for key, node in content.items() if not _is(node, "null")}
    return {name: _check_value(name, node, params[name], path) for name, node in values.items()}


def _unknown_option(key: str, options: list[str]) -> str:
    near = get_close_matches(key.replace("-", "_"), options, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(options)}."
    return f"unknown option {_short(key)}; {hint}"


def _is(node: yaml.Node, kind: str) -> bool:
    """Whether YAML reads a value as this type, such as ``"bool"`` for yes and no."""
    return isinstance(node, yaml.ScalarNode) and node.tag == f"tag:yaml.org,2002:{kind}"


def _check_value(name: str, node: yaml.Node, param: click.Parameter, path: Path) -> object:
    """A value as a user would type it after the option, for the option's type to read."""
    if isinstance(param, click.Option) and param.is_flag:
        if not _is(node, "bool") or node.value.lower() not in FLAGS:
            msg = f"{path}: {name} must be true or false, found {_kind(node)}."
            raise click.BadParameter(msg)
        return FLAGS[node.value.lower()]
    many = param.multiple if isinstance(param, click.Option) else param.nargs == -1
    items = node.value if many and isinstance(node, yaml.SequenceNode) else [node]
    for item in items:
        if _is(item, "bool"):
            msg = f"{path}: {name} holds {item.value}: YAML reads yes, no, on and off as true or false. Put the word in quotes."
            raise click.BadParameter(msg)
        if not isinstance(item, yaml.ScalarNode) or _is(item, "null"):
            msg = (
                f"{path}: {name} must be {'one value or a list of them' if many else 'one value'}, found {_kind(item)}."
            )
            raise click.BadParameter(msg)
    texts = [_text(item, path) for item in items]
    if not many:
        return texts[0]
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

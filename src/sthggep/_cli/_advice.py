"""Advice of the library's messages, which names calls and arguments of Python, in the words of the shell."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterable

import click

# Calls that commands make, and options that stand for an argument of another name or form
COMMANDS = {
    "tl.fit": "fit",
    "tl.predict": "predict",
    "tl.predict_cohort": "predict --workers",
    "tl.evaluate": "evaluate",
    "tl.summary": "evaluate",
    "tl.attach": "evaluate SLIDES --predicted FOLDER",
    "tl.cross_validate": "cross-validate",
    "pl.report": "report",
    "model.save": "fit",
}
OTHER_NAMES = {"baselines": "baseline"}
ONLY_IN_A_CALL = {("predict", "out"): "--predictions-only"}
_CODE = re.compile(r"`([^`]+)`")
_CALL = re.compile(
    r"(?:sthggep\.)?(?P<name>(?:tl|pl|pp|io|model|datasets|HGGEP)\.\w+)(?:\((?P<arguments>.*)\))?", re.DOTALL
)
_ARGUMENT = re.compile(r"(?P<name>\w+)(?:=(?P<value>.*))?", re.DOTALL)
_KEYWORD = re.compile(r"(\w+)=")
_GRID = re.compile(r"\b(c|C)all `sthggep\.pp\.tissue_grid(?:\(data\))?`")


def in_shell_words(text: str, command: click.Command, commands: Iterable[click.Command] = ()) -> str:
    """Replace calls and arguments of the library in its advice by commands and options; others are marked as Python.

    Parameters
    ----------
    text
        A message of the library, with code in backticks.
    command
        The command that runs, whose options the message can name.
    commands
        All commands, whose options a call can have.
    """
    options = {each.name: each for each in commands} | {command.name: command}
    if _option("spacing_um", command) is not None:
        text = _GRID.sub(lambda call: f"{'P' if call[1] == 'C' else 'p'}ass --spacing-um", text)

    def translate(code: re.Match[str]) -> str:
        if call := _CALL.fullmatch(code[1]):
            name = COMMANDS.get(call["name"])
            if name is None:
                return f"{code[0]} in Python" if code[1].startswith("sthggep.") else code[0]
            target = options.get(name.split()[0])
            return f"`sthggep {' '.join([name, *_arguments(call['arguments'] or '', target)])}`"
        argument = _ARGUMENT.fullmatch(code[1])
        option = None if argument is None else _option(argument["name"], command)
        if argument is not None and option is not None and not (argument["value"] or "").startswith("sthggep."):
            return " ".join([_flag(option), *_value(argument["value"] or "", option)])
        return f"{code[0]} in Python" if "=sthggep." in code[1] else code[0]

    return _CODE.sub(translate, text)


def _option(name: str, command: click.Command) -> click.Option | None:
    name = OTHER_NAMES.get(name, name)
    options = (param for param in command.params if isinstance(param, click.Option))
    return next((option for option in options if option.name == name), None)


def _flag(option: click.Option) -> str:
    return max(option.opts, key=len)


def _arguments(text: str, command: click.Command | None) -> list[str]:
    """Options for the arguments of a call, those that change something."""
    if command is None:
        return []
    try:
        call = ast.parse(f"call({text})", mode="eval").body
        keywords = call.keywords if isinstance(call, ast.Call) else []
        values = {each.arg: ast.unparse(each.value) for each in keywords if each.arg is not None}
    except SyntaxError:  # such as `out=` without a value
        values = dict.fromkeys(_KEYWORD.findall(text), "")
    words = []
    for name, value in values.items():
        option = _option(name, command)
        if (str(command.name), name) in ONLY_IN_A_CALL:
            words.append(ONLY_IN_A_CALL[str(command.name), name])
        elif option is not None and _value(value, option) != [str(option.default)]:
            words += [_flag(option), *_value(value, option)]
    return words


def _value(text: str, option: click.Option) -> list[str]:
    """A value of Python as one would type it after the option; nothing where the text shows none."""
    if placeholder := re.fullmatch(r"<(\w+)>", text):
        return [placeholder[1].upper()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return []
    if value is None:
        return ["none"]
    if isinstance(value, list | tuple):
        names = [str(item) for item in value if item is not ...]
        text = ",".join(names)
        return [shlex.quote(f"obs:{text}" if option.name == "targets" else text)] if names else []
    return [] if value is ... or isinstance(value, bool) else [shlex.quote(str(value))]

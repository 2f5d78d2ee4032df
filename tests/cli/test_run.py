"""Behavior of all shell commands: configuration files, errors and exit codes, log lines, help."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import yaml

from sthggep import HGGEP, __version__
from sthggep._cli import main

COMMANDS = ("demo", "fit", "predict", "evaluate", "report", "cross-validate")


@pytest.fixture
def summary_keywords(monkeypatch):
    """Record the options of the call of `tl.summary`, which then fails."""
    keywords = {}

    def summary(data, key, **options):
        keywords.update(options, key=key)
        raise RuntimeError

    monkeypatch.setattr("sthggep.tl.summary", summary)
    return keywords


# ---------------------------------------------------------------- YAML


def test_a_run_is_repeated_from_its_own_record(shell, files):
    options = "--size-um 640 --weights random --n-members 1 --max-epochs 1 --device cpu --genes FAT1,STRO1"
    Path("sets.gmt").write_text("both\tof the panel\tFAT1\tSTRO1\n")
    result = shell("fit", "a.h5ad", "b.h5ad", "--out", "m", "--gene-sets", "sets.gmt", *options.split())
    assert result.exit_code == 0, result.stderr
    assert HGGEP.load("m").training.gene_sets == {"both": ["FAT1", "STRO1"]}
    text = Path("m/run.yaml").read_text()
    assert text.startswith(f"# sthggep {__version__}, ")
    record = yaml.safe_load(text)
    assert record["slides"] == ["a.h5ad", "b.h5ad"]
    assert (record["preset"], record["seed"], record["max_epochs"]) == ("default", 0, 1)
    assert not {"overwrite", "quiet", "config", "layer"} & set(record)
    repeat = shell("fit", "--config", "m/run.yaml", "--out", "n")
    assert repeat.exit_code == 0, repeat.stderr
    assert HGGEP.load("n").id == HGGEP.load("m").id
    other = shell("fit", "--config", "m/run.yaml", "--out", "o", "--seed", 1)
    assert other.exit_code == 0, other.stderr
    assert HGGEP.load("o").training.seed == 1


def test_options_override_the_file(shell, files, summary_keywords):
    Path("run.yaml").write_text(
        "slides: '*.h5ad'\nlibrary-key: which\nkey: mine\ngenes: [FAT1, STRO1]\nseed: 3\nlayer:\n"
    )
    shell("evaluate", "--config", "run.yaml")
    assert summary_keywords["library_key"] == "which"
    assert (summary_keywords["key"], summary_keywords["genes"], summary_keywords["seed"]) == (
        "mine",
        ["FAT1", "STRO1"],
        3,
    )
    assert summary_keywords["layer"] is None
    shell("evaluate", "b.h5ad", "--config", "run.yaml", "--key", "hggep", "--genes", "IMMU1")
    assert (summary_keywords["key"], summary_keywords["genes"], summary_keywords["seed"]) == ("hggep", ["IMMU1"], 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide: a.h5ad", "unknown option 'slide'; did you mean slides?"),
        ("n-member: 3", "unknown option 'n-member'; did you mean n_members?"),
        ("zzz: 3", "unknown option 'zzz'; there is slides, out,"),
        ("config: x.yaml", "unknown option 'config'"),
        ("seed: 1\n--seed: 2", "each option may appear once, found twice: seed"),
        ("seed: 1.5", "A whole number of 0 or more was expected, found '1.5'"),
        ("preset: papr", "'papr' is not one of 'default', 'paper'"),
        ("layer: [a, b]", "layer must be one value, found ['a', 'b']"),
        ("layer: no", "YAML reads yes, no, on and off as true or false"),
        ("genes: [{a: 1}]", "genes must be one value or a list of them"),
        ("overwrite: 1", "overwrite must be true or false, found 1"),
        ("slides: z*.h5ad", "no file matches 'z*.h5ad'"),
        ("slides: [a", "is not YAML"),
        ("just words", "must hold lines of `name: value`, found str"),
        ("", "found nothing"),
    ],
)
def test_mistakes_in_the_file(shell, files, monkeypatch, text, message):
    monkeypatch.setattr("sthggep.tl.fit", lambda *_, **__: pytest.fail("work began"))
    Path("run.yaml").write_text(text)
    result = shell("fit", "a.h5ad", "--out", "m", "--config", "run.yaml")
    if "slides" in text:
        result = shell("fit", "--out", "m", "--config", "run.yaml")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_a_configuration_is_written_and_nothing_run(shell, files, monkeypatch):
    monkeypatch.setattr("sthggep.tl.predict", lambda *_, **__: pytest.fail("work began"))
    words = ("predict", "a.h5ad", "--out", "p/", "--latent", "--mpp", 0.5, "--write-config", "run.yaml")
    result = shell(*words)
    assert result.exit_code == 0, result.stderr
    assert "the command did not run" in result.stderr
    record = yaml.safe_load(Path("run.yaml").read_text())
    assert (record["slides"], record["latent"], record["mpp"]) == (["a.h5ad"], True, 0.5)
    repeat = shell("predict", "--config", "run.yaml", "--write-config", "again.yaml")
    assert repeat.exit_code == 0, repeat.stderr
    assert yaml.safe_load(Path("again.yaml").read_text()) == record
    assert shell(*words).exit_code == 1  # the command does not replace a file of the user


# ---------------------------------------------------------------- errors and exit codes


def test_exit_code_is_2_for_wrong_usage_and_1_for_errors(shell, files):
    assert shell("fit", "a.h5ad").exit_code == 2
    assert "Missing option '--out'" in shell("fit", "a.h5ad").stderr
    assert "Missing argument 'SLIDES...'" in shell("fit", "--out", "m").stderr
    # older versions of click name it without quotes
    wrong = shell("predict", "a.h5ad", "--out", "p", "--latentt").stderr
    assert re.search("Did you mean .*'?--latent'?[,?]", wrong)
    assert shell("evaluate", "a.h5ad").exit_code == 1
    assert shell("--version").stdout == f"sthggep, version {__version__}\n"


def test_unexpected_errors_name_the_debug_option(shell, files, monkeypatch):
    monkeypatch.setattr("sthggep.tl.summary", lambda *_, **__: {}["column"])
    result = shell("evaluate", "a.h5ad")
    assert result.exit_code == 1
    assert "Error: a.h5ad: KeyError: column (Run the command again with --debug to see the traceback.)" in result.stderr
    assert "Traceback" not in result.stderr
    result = shell("evaluate", "a.h5ad", "--debug")
    assert isinstance(result.exception, KeyError)


# ---------------------------------------------------------------- lines


def test_quiet_and_verbose(shell, files, model, recwarn):
    model.save("m")
    words = ("predict", "c.h5ad", "--model", "m")
    assert shell(*words, "--out", "p.h5ad", "--quiet").stderr == ""
    usual = shell(*words, "--out", "q.h5ad").stderr
    assert "Options of this run" not in usual
    assert "Options of this run" in shell(*words, "--out", "r.h5ad", "-v").stderr


def test_each_warning_is_logged_once(shell, files, monkeypatch):
    import warnings

    def summary(*_, **__):
        for _ in range(2):
            warnings.warn("3 genes are constant.", UserWarning, stacklevel=1)
        warnings.warn("a.b is deprecated", FutureWarning, stacklevel=1)
        warnings.warn("this will go in the next release", UserWarning, stacklevel=1)
        raise ValueError

    monkeypatch.setattr("sthggep.tl.summary", summary)
    log = shell("evaluate", "a.h5ad").stderr
    assert log.count("Warning: 3 genes are constant.\n") == 1
    assert "deprecated" not in log
    assert "next release" not in log
    assert "next release" in shell("evaluate", "a.h5ad", "-v").stderr


def test_logging_is_as_before_after_a_command(shell, files):
    import logging

    logger = logging.getLogger("sthggep")
    before = logger.level, logger.propagate, list(logger.handlers)
    shell("evaluate", "a.h5ad", "-v")
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


# ---------------------------------------------------------------- help


def test_help_lists_the_commands(shell):
    result = shell("--help")
    assert result.exit_code == 0
    at = [result.stdout.index(f"\n  {command} ") for command in COMMANDS]
    assert at == sorted(at)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples_that_parse(shell, name):
    result = shell(name, "--help")
    assert result.exit_code == 0
    examples = [
        words for line in result.stdout.split("Examples:\n")[1].splitlines() if (words := line.split("  (")[0].split())
    ]
    assert len(examples) >= 2
    command = main.commands[name]
    for words in examples:
        assert words[:2] == ["sthggep", name]
        if "--config" not in words:
            command.make_context(name, words[2:])
    assert all(param.help for param in command.params if isinstance(param, click.Option))

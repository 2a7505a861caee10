from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jetscale.common.cli import parse, run
from jetscale.common.usage import UsageError
from jetscale.status.__main__ import main as status
from jetscale.tracking.dashboard import main as dashboard


@dataclass
class Inner:
    """Inner settings."""

    delta: float = 0.5


@dataclass
class Settings:
    """Settings of a test program.

    Attributes
    ----------
    path : a path
    """

    path: str = "here"
    n: int = 3
    dry_run: bool = False
    inner: Inner = field(default_factory=Inner)
    names: dict[str, str] = field(default_factory=dict)


def test_values_reach_their_fields_with_their_types():
    got = parse(Settings, ["n=0", "inner.delta=0.001", "path=a/b c.csv", "names.N=Model Size"], "prog")
    assert (got.n, got.inner.delta, got.path, got.names) == (0, 0.001, "a/b c.csv", {"N": "Model Size"})


def test_unknown_key_names_the_nearest():
    with pytest.raises(UsageError, match=r"unknown key 'inner.dleta'; did you mean inner.delta"):
        parse(Settings, ["inner.dleta=1"], "prog")


def test_flag_of_a_boolean():
    assert parse(Settings, ["n=1", "--dry-run"], "prog").dry_run
    assert not parse(Settings, ["n=1"], "prog").dry_run
    assert not parse(Settings, ["dry_run=false"], "prog").dry_run


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--dry-rum", r"unknown flag '--dry-rum'; did you mean --dry-run\?"),
        ("-x", "unknown flag '-x'; flags: --dry-run"),
        ("--n", "--n needs a value: n=VALUE"),
        ("--n=3", "unknown flag '--n=3'"),
    ],
)
def test_other_flags(flag, message):
    with pytest.raises(UsageError, match=message):
        parse(Settings, [flag], "prog")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("n=three", "n=three: must be a whole number"),
        ("n=1e2", "n=1e2: must be a whole number; write 100"),
        ("n=", "n='': must be a whole number"),
        ("n", "'n' is not key=value; see `prog --help`"),
        ("inner.delta=nan", "inner.delta=nan: must be a number"),
        ("inner=3", "inner is a group of keys: inner.delta"),
        ("names={a: b", "names={a: b: cannot be read (expected ',' or '}', but got '<stream end>'); quote"),
        ("names=3", "names=3: must be {NAME: VALUE, ...}, or names.NAME=VALUE"),
        ("dry_run=maybe", "dry_run=maybe: must be true or false"),
        ("--pth=3", "unknown flag '--pth=3'; did you mean path=3?"),
    ],
)
def test_bad_value_is_a_usage_error(argument, message):
    with pytest.raises(UsageError) as refused:
        parse(Settings, [argument], "prog")
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["`a b` > 3", "a == 'x' # y", "'a' == b", "{a", "x: y", "[1", "${oc.env:HOME}", "null", "*"]
)
def test_a_text_is_taken_as_it_stands(text):
    assert parse(Settings, [f"path={text}"], "prog").path == text


def test_a_text_in_quotes_loses_them_and_home_is_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert parse(Settings, ['path="a b"'], "prog").path == "a b"
    assert parse(Settings, ["path=~/jets"], "prog").path == "/home/ada/jets"


def test_a_mapping_replaces_the_default_and_an_entry_is_added_to_it():
    @dataclass
    class Shares:
        shares: dict[str, float] = field(default_factory=lambda: {"a": 1.0, "b": 1.0})

    def shares(*argv):
        return parse(Shares, argv, "prog").shares

    assert shares("shares={a:2}") == {"a": 2.0}
    assert shares("shares.a=2") == {"a": 2.0, "b": 1.0}
    assert shares("shares={c: 1}", "shares.d=3") == {"c": 1.0, "d": 3.0}
    assert shares() == {"a": 1.0, "b": 1.0}


def test_an_error_that_explains_itself_is_one_line(capsys, monkeypatch):
    def unwritable(argv):
        Path("/proc/nothing/x").write_text("x")

    assert run(unwritable, "prog") == 2
    assert capsys.readouterr().err == "prog: /proc/nothing/x: No such file or directory\n"

    def fault(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(fault, "prog")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (status, "watch=0: must be a number from 0.1 to 3600"),
        (dashboard, "unknown key 'watch'"),
    ],
)
def test_every_command_checks_its_keys(command, message):
    with pytest.raises(UsageError, match=message):
        command(["a/b", "watch=0"])


def test_an_argument_without_a_key_is_the_positional_one(capsys):
    for words in (["multirun/paper", "--dry-run"], ["--dry-run", "path=multirun/paper"]):
        assert parse(Settings, words, "prog", positional="path") == Settings(
            path="multirun/paper", dry_run=True
        )
    assert parse(Settings, ["s/dim=8/seed=0"], "prog", positional="path").path == "s/dim=8/seed=0"
    with pytest.raises(UsageError, match="multirun/paper"):
        parse(Settings, ["multirun/paper"], "prog")
    with pytest.raises(SystemExit):
        parse(Settings, ["--help"], "prog", positional="path")
    assert "usage: prog PATH [key=value ...]" in capsys.readouterr().out
    with pytest.raises(UsageError, match="unknown flag '--path2'"):
        parse(Settings, ["--path2"], "prog", positional="path")


def test_help_shows_documentation_and_defaults(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Settings, ["--help"], "prog")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "a path" in shown
    assert "inner.delta=0.5" in shown
    assert "usage: prog [key=value ...] [--dry-run] [--trust MODULE]\n" in shown
    assert "--trust MODULE imports a Python module of yours" in shown


@pytest.mark.parametrize(
    "text", ["off", "no", "1e3", "`a b` > 1", "'a' == b", "a: 1", '{"a": 1}', "~", "", "# x"]
)
def test_a_text_is_taken_as_it_is_typed(text):
    assert parse(Settings, [f"path={text}"], "prog").path == text


def test_a_text_may_be_quoted():
    assert parse(Settings, ["path='a b'"], "prog").path == "a b"


def test_a_number_that_yaml_cannot_read_is_one_line():
    with pytest.raises(UsageError) as error:
        parse(Settings, ["n=`3"], "prog")
    assert "\n" not in str(error.value)

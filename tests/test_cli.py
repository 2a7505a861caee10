from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from jetscale.cli import UsageError, parse


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


@pytest.mark.parametrize("argument", ["n=three", "n"])
def test_bad_value_is_a_usage_error(argument):
    with pytest.raises(UsageError):
        parse(Settings, [argument], "prog")


def test_help_shows_documentation_and_defaults(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Settings, ["--help"], "prog")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "a path" in shown
    assert "inner.delta=0.5" in shown
    assert "usage: prog [key=value ...] [--dry-run]\n" in shown


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

from __future__ import annotations

import os
import string
import threading
from dataclasses import asdict

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jetscale.common.masking import is_secret_name, masked, masked_tree, tree_without_folders, without_folders
from jetscale.training.settings import TrainSettings, public

HEX = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:pass@host/x", "https://***@host/x"),
        ("s3://AKIA:se@cret@bucket/key", "s3://***@bucket/key"),
        ("s3://KEY:SEC/RET+x=@bucket/key", "s3://***@bucket/key"),
        ("s3:/KEY:SEC/RET@bucket", "s3:/***@bucket"),  # as pathlib writes it
        ("https://me:p@ss/word@host/x", "https://***@host/x"),
        ("https://me%40x:p%2Fss@host/x", "https://***@host/x"),
        ("https%3A%2F%2Fme%3Apass%40host%2Fx", "https%3A%2F%2F***%40host%2Fx"),
        ("root://user:pass@eos.ch//eos/x", "root://***@eos.ch//eos/x"),
        ("postgresql+psycopg://me:pass@db/x", "postgresql+psycopg://***@db/x"),
        ("redis://:pass@db:6379/0", "redis://***@db:6379/0"),
        ("https://h:8080/x?u=https://me:pass@h", "https://h:8080/x?u=https://***@h"),
        ("proxy me:pass@proxy.org:3128", "proxy ***@proxy.org:3128"),
        ("https://ghp_abc@github.com/a.git and ftp://u:p@h", "https://***@github.com/a.git and ftp://***@h"),
        ("https://host/x?page=2&X-Amz-Signature=ab12#top", "https://host/x?page=2&X-Amz-Signature=***#top"),
        ("https://host/x?api_key=1&access_token=2&n=3", "https://host/x?api_key=***&access_token=***&n=3"),
        ("https://h/x?AWSAccessKeyId=AB&Expires=5", "https://h/x?AWSAccessKeyId=***&Expires=5"),
        ("https://h/x?sv=1&se=2027&sig=ab%3D", "https://h/x?sv=1&se=***&sig=***"),
        ("https://h/x?pass=a&pwd=b&auth=c&jwt=d&n=3", "https://h/x?pass=***&pwd=***&auth=***&jwt=***&n=3"),
        ("https://h/x#access_token=abc&state=1", "https://h/x#access_token=***&state=1"),
        ("https://h/x?a=1\\u0026token=abc", "https://h/x?a=1\\u0026token=***"),  # inside JSON
        ("https://h/x?X-Amz-Security-Token%3Dabc", "https://h/x?X-Amz-Security-Token%3D***"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ('-H "Authorization: Basic bWU6cGFzcw=="', '-H "Authorization: ***"'),
        ("Cookie: sid=abc; b=def", "Cookie: ***"),
        ("x-api-key: abc", "x-api-key: ***"),
        ("--password=abc --n=3", "--password=*** --n=3"),
        ("--api-key abc --n 3", "--api-key *** --n 3"),
        ("['--token', 'abc', '--n', '3']", "['--token', '***', '--n', '3']"),
        ("fs.authToken=abc", "fs.authToken=***"),
        ("token: abc, n: 3", "token: ***, n: 3"),
        ('{"password": "two words", "n": 3}', '{"password": "***", "n": 3}'),
        ('{\\"secret\\": \\"abc\\"}', '{\\"secret\\": \\"***\\"}'),
        (f"refused: {HEX}", "refused: ***"),
        (f"local-{HEX} is refused", "*** is refused"),
        ("a eyJhbGciOiJI.eyJzdWIiOiIx.c2ln b", "a *** b"),
    ],
)
def test_credentials_in_text(text, expected):
    assert masked(text) == expected
    assert masked(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "finetune.lr=1e-3", "pretrain.composition={QCD:1,Res2P:20}", "tokens=5", "n_tokens: 5", "key=value",
        "token@host", "me@host.org", "mailto:me@host.org", "author: me@host.org", "git@github.com:org/a.git",
        "/data/jets@2024/x=1", "https://host/a@b", "https://host:8080/a@b", "root://eos.ch:1094//eos/a@b",
        "file:///data/a:b/c@d", "s3://bucket/key@v2", "https://[::1]:8080/a@b", "C:/a/b@c", "12:30@room",
        "image:tag@sha256:abcdef", "https://h/x?page=2&author=me&sigma=3&compass=2", "passes=3", "the key: 5",
        f"commit {HEX}", f"/cache/snapshots/{HEX}/x", "entity/project/name:v2", "keyboard: us",
    ],
)  # fmt: skip
def test_ordinary_values_stay(text):
    assert masked(text) == text
    assert masked_tree({"a": [text]}) == {"a": [text]}


PRINTABLE = st.characters(codec="ascii", categories=["L", "N", "P", "S"], exclude_characters="\"'`\\")
SECRET = st.text(PRINTABLE, min_size=8, max_size=40).filter(lambda text: not text.startswith("-"))


@example("000000:/", "s3", "b")
@given(
    SECRET, st.sampled_from(["s3", "https", "root", "postgresql+psycopg"]), st.sampled_from(["b", "h:80/x"])
)
def test_no_password_of_an_address_shows(secret, scheme, rest):
    # what looks like a port is one; what looks like a second address is one
    while "://" in secret:
        secret = secret.replace("://", "")
    secret = "p" + secret
    assert masked(f"{scheme}://user:{secret}@{rest}") == f"{scheme}://***@{rest}"


@given(st.text(string.ascii_letters + string.digits + "+/=_.~-", min_size=1, max_size=60))
def test_no_named_secret_shows(secret):
    for before in (
        "x?token=",
        "x#a=1&client_secret=",
        "password=",
        "--api-key=",
        "secret: '",
        "Bearer-Token: ",
    ):
        assert masked(f"{before}Q{secret}Q") == f"{before}***"


def test_values_of_the_environment_are_hidden_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "/abc+DEF/ghi")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("MY_TOKEN", "disabled")  # no secret: the word would vanish from every configuration
    monkeypatch.setenv("SSH_AUTH_SOCK", "/tmp/agent")
    monkeypatch.setenv("PWD", "/home/me/run")
    text = f"/abc+DEF/ghi, %2Fabc%2BDEF%2Fghi, x{'k' * 40}x, disabled, /tmp/agent, /home/me/run"
    assert masked(text) == "***, ***, x***x, disabled, /tmp/agent, /home/me/run"
    assert masked_tree({"/abc+DEF/ghi": ["/abc+DEF/ghi"]}) == {"***": ["***"]}


def test_another_thread_may_change_the_environment_meanwhile(monkeypatch):
    """As W&B's client does when its service dies: the run that masks a summary then must go on."""
    monkeypatch.setenv("JETSCALE_LIVES_SHORTLY", "")
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            os.environ.pop("JETSCALE_LIVES_SHORTLY", None)
            os.environ["JETSCALE_LIVES_SHORTLY"] = ""

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(500):
            assert masked("plain words") == "plain words"
    finally:
        done.set()
        thread.join()


def test_a_path_in_an_environment_variable_is_no_secret(monkeypatch, tmp_path):
    monkeypatch.setenv("TLS_PRIVATE_KEY", str(tmp_path))
    assert masked(f"{tmp_path}/x") == f"{tmp_path}/x"


def test_names_of_secrets():
    secret = "AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID HF_TOKEN dbpassword apiKey clientSecret password2 A_JWT"
    ordinary = "key tokens token_count monkey PWD lr dim XAUTHORITY KEYBOARD secret_rate authors"
    assert [name for name in secret.split() if not is_secret_name(name)] == []
    assert [name for name in ordinary.split() if is_secret_name(name)] == []


def test_every_string_of_a_structure():
    content = {"data": {"dir": "http://u:p@h"}, "list": ["http://u:p@h", 3], "tuple": ("a", None), "n": 1.5}
    assert masked_tree(content) == {
        "data": {"dir": "http://***@h"}, "list": ["http://***@h", 3], "tuple": ["a", None], "n": 1.5,
    }  # fmt: skip
    assert masked_tree({"http://u:p@h": 1}) == {"http://***@h": 1}


def test_what_stands_under_a_secrets_name_in_a_structure():
    content = {"password": "x", "auth": {"user": "u", "pass": 5}, "api_key": None, "tokens": 5, "key": "v"}
    assert masked_tree(content) == {
        "password": "***", "auth": {"user": "***", "pass": "***"}, "api_key": None, "tokens": 5, "key": "v",
    }  # fmt: skip
    assert masked_tree({"commit": HEX}) == {"commit": HEX}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/jane/jets", "***/jets"),
        ("/home/jane doe/my jets", "***/my jets"),
        ("~/jets", "***/jets"),
        ("~jane/kept/store", "***/store"),
        ("file:///home/jane/jets", "***/jets"),
        (
            "OSError: '/home/jane/a.root' is gone, see /srv/jane/log.",
            "OSError: '***/a.root' is gone, see ***/log.",
        ),
        ("moved ~/a/b to ~jane/c", "moved ***/b to ***/c"),
        ("multirun/backbones", "multirun/backbones"),  # below the current folder, which is not named
        ("./data/jets and 3/4 or N/A", "./data/jets and 3/4 or N/A"),
        ("s3://bucket/jets", "s3://bucket/jets"),
        ("root://***@eos.ch//eos/x", "root://***@eos.ch//eos/x"),
        ("C = 6 N D /2", "C = 6 N D /2"),
    ],
)
def test_paths_of_this_machine_keep_their_last_name(text, expected):
    assert without_folders(text) == expected
    assert without_folders(expected) == expected
    assert tree_without_folders({"a": [text, 3], "b": (text, None)}) == {
        "a": [expected, 3],
        "b": [expected, None],
    }


def test_no_setting_of_ours_is_taken_for_a_secret():
    assert public(TrainSettings()) == asdict(TrainSettings())

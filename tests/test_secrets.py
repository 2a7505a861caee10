from __future__ import annotations

import pytest

from jetscale.secrets import masked, masked_tree


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:pass@host/x", "https://***@host/x"),
        ("s3://AKIA:se@cret@bucket/key", "s3://***@bucket/key"),
        ("token@host", "token@host"),
        ("https://ghp_abc@github.com/a.git and ftp://u:p@h", "https://***@github.com/a.git and ftp://***@h"),
        ("https://host/a@b", "https://host/a@b"),
        ("https://host/x?page=2&X-Amz-Signature=ab12#top", "https://host/x?page=2&X-Amz-Signature=***#top"),
        ("https://host/x?api_key=1&access_token=2&n=3", "https://host/x?api_key=***&access_token=***&n=3"),
        ("/data/jets@2024/x=1", "/data/jets@2024/x=1"),
        ("finetune.lr=1e-3", "finetune.lr=1e-3"),
    ],
)
def test_credentials_in_urls(text, expected):
    assert masked(text) == expected
    assert masked(expected) == expected


def test_every_string_of_a_structure():
    content = {"data": {"dir": "http://u:p@h"}, "list": ["http://u:p@h", 3], "tuple": ("a", None), "n": 1.5}
    assert masked_tree(content) == {
        "data": {"dir": "http://***@h"}, "list": ["http://***@h", 3], "tuple": ["a", None], "n": 1.5,
    }  # fmt: skip
    assert masked_tree({"http://u:p@h": 1}) == {"http://***@h": 1}

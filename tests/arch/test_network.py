"""Networks as users name them, and the first words of an error."""

import pytest

from cmtscale.arch.errors import first_line
from cmtscale.arch.network import split_side


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cmt-s", ("cmt-s", None)),
        ("cmt-s@288", ("cmt-s", 288)),
        ("timm:resnet50@64", ("timm:resnet50", 64)),
        ("at@home/x.toml", ("at@home/x.toml", None)),
        ("at@2/runs", ("at@2/runs", None)),
        ("a@1@2", ("a@1", 2)),
        ("@288", ("@288", None)),
    ],
)
def test_a_side_is_what_follows_the_last_at(text: str, expected: tuple[str, int | None]) -> None:
    assert split_side(text) == expected


def test_an_error_is_told_in_one_line_even_if_it_says_nothing() -> None:
    assert first_line(ValueError("\n  too wide\n  by far")) == "too wide"
    assert first_line(AssertionError()) == "AssertionError"
    assert first_line(ValueError(" \n")) == "ValueError"

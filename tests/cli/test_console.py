"""Tables on narrow terminals: what is left out, and what never is."""

import io

import pytest
from rich.console import Console

from cmtscale.cli.app import run
from cmtscale.cli.bars import make_bars
from cmtscale.cli.console import Column, print_table

COLUMNS = [Column("name"), Column("detail", 2), Column("loss"), Column("speed", 1)]
ROWS = [["first", "long text", "0.1234", "123"], ["second", "more", "0.2", "9"]]


def table(width: int) -> tuple[list[str], list[str]]:
    """The lines of the table, without spaces at their ends, and the columns left out."""
    console = Console(width=width, file=io.StringIO(), highlight=False)
    left_out = print_table(console, COLUMNS, ROWS)
    return [line.rstrip() for line in console.file.getvalue().splitlines()], left_out


def test_a_table_that_fits_is_whole() -> None:
    assert table(32) == (
        [
            "name       detail    loss  speed",
            "first   long text  0.1234    123",
            "second       more     0.2      9",
        ],
        [],
    )


def test_columns_are_left_out_from_the_highest_rank_on_and_named() -> None:
    lines, left_out = table(31)
    assert lines[:3] == [
        "name      loss  speed",
        "first   0.1234    123",
        "second     0.2      9",
    ]
    assert " ".join(lines[3:]) == "(a wider terminal also shows: detail)"
    assert left_out == ["detail"]
    assert table(20)[1] == ["detail", "speed"]


@pytest.mark.parametrize(("width", "line"), [(14, "first   0.1234"), (13, "first  0.1234")])
def test_columns_without_a_rank_move_together_before_a_cell_is_cut(width: int, line: str) -> None:
    assert table(width)[0][1] == line


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("variants", ["variant", "px", "dims", "depths", "params", "MACs"]),
        ("flops --variant cmt-b --no-measure", ["part", "params", "MACs", "%"]),
    ],
)
def test_on_a_narrow_terminal_what_decides_is_whole(
    monkeypatch: pytest.MonkeyPatch, command: str, kept: list[str], width: int
) -> None:
    console = Console(width=width, file=io.StringIO(), highlight=False, emoji=False)
    monkeypatch.setattr("cmtscale.cli.console.results", lambda: console)
    assert run(command.split()) == 0
    text = console.file.getvalue()
    assert "…" not in text
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    (header,) = [line for line in lines if line.split()[: len(kept)] == kept]
    # each word of the note belongs to a column that is shown
    assert ("paper M" in header) == ("paper M, G:" in text)


def test_what_libraries_print_while_bars_move_stays_out_of_the_results(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with make_bars():
        print("a node was lost")
    print("result")
    assert capsys.readouterr() == ("result\n", "a node was lost\n")

"""`forecast.csv`: what is written is read back, and damage is named."""

from pathlib import Path

import pytest

from cmtscale.arch.errors import ResultsError
from cmtscale.record.forecast import Expected, read_forecast, write_forecast


def test_a_forecast_is_read_back(tmp_path: Path) -> None:
    written = [
        Expected(candidate="d1.1.4.1-w22-r64", images=images, loss=0.25, low=0.2375, high=0.3)
        for images in (6_000, 162_000)
    ]
    assert read_forecast(tmp_path) == []
    write_forecast(tmp_path, written)
    assert read_forecast(tmp_path) == written


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is damaged"),
        ("a,b\n1,2\n", "its columns are not candidate"),
        ("candidate,images,loss,low,high\nx,1,2,3\n", "not enough values"),
        ("candidate,images,loss,low,high\nx,many,2,3,4\n", "invalid literal"),
    ],
)
def test_a_damaged_forecast_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "forecast.csv").write_text(content)
    with pytest.raises(ResultsError, match=f"forecast.csv is damaged: .*{message}|{message}"):
        read_forecast(tmp_path)

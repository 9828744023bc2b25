"""The figure of a check of twins: every network at every size, relative to the mean there."""

import numpy as np
import pytest

from cmtscale.arch.errors import ResultsError
from cmtscale.record.twin_check import SizeFound, Tau, TwinCheck, TwinLine, write_twin_check
from cmtscale.report.figures import save_figures
from cmtscale.report.twins import load_twins, twins

SIZES = (14_427_200, 29_569_075)
LOSSES = {"a": (0.44, 0.40), "b": (0.46, 0.43), "c": (0.60, 0.50), "d": (0.5, None)}


@pytest.fixture
def checked(run_folder):
    tau = Tau(networks=3, tau=1.0, low=0.3, high=1.0, alone=None, regret=0.0)
    sizes = tuple(
        SizeFound(
            macs=macs, base="b", base_macs=1, noise=0.01, degrees=3, spread=0.1, tau=tau,
            verdict="not refuted",
        )
        for macs, tau in zip(SIZES, (tau, None), strict=True)
    )  # fmt: skip
    check = TwinCheck(
        threshold=0.7, images_seen=6000, seeds=2, own_macs=SIZES[0], sizes=sizes,
        smallest_macs=SIZES[0], is_above=False, tour=False,
    )  # fmt: skip
    lines = [
        TwinLine(
            network=name, role="compound", depth=0.2, width=0.5, resolution=0.3, size_macs=macs,
            twin=f"{name}-{macs}", twin_macs=macs, distance=0.0, stray=0.0, seeds=2, loss=loss,
            error=0.01,
        )
        for name, losses in LOSSES.items()
        for macs, loss in zip(SIZES, losses, strict=True)
    ]  # fmt: skip
    write_twin_check(run_folder, check, lines)
    return run_folder


def test_each_network_is_drawn_at_each_size_that_it_has_runs_at(checked):
    (ax,) = twins(load_twins(checked)).axes
    drawn = {tuple(container.lines[0].get_xdata()) for container in ax.containers}
    assert drawn == {(0, 1), (0,)}
    small = np.log([losses[0] for losses in LOSSES.values()])
    expected = 100 * np.expm1(small - small.mean())
    heights = [container.lines[0].get_ydata()[0] for container in ax.containers]
    assert heights == pytest.approx(list(expected), rel=1e-4)
    ticks = [label.get_text() for label in ax.get_xticklabels()]
    assert ticks == ["14.4M\n1.00 (0.30 to 1.00)", "29.6M"]


def test_the_figure_is_saved_where_twins_were_checked_and_nowhere_else(checked, tmp_path):
    saved = save_figures(checked, tmp_path / "figures")
    assert "twins.svg" in {path.name for path in saved.files}
    (checked / "twins" / "check.json").unlink()
    saved = save_figures(checked, tmp_path / "without")
    assert "twins.svg" not in {path.name for path in saved.files}
    assert "twins" not in saved.skipped


def test_a_search_without_a_check_has_no_figure_of_twins(run_folder):
    with pytest.raises(ResultsError, match="cmtscale check FOLDER --twin"):
        twins(load_twins(run_folder))


def test_a_table_that_is_gone_is_named(checked):
    (checked / "twins" / "twins.csv").unlink()
    with pytest.raises(ResultsError, match=r"twins\.csv is missing or damaged"):
        load_twins(checked)

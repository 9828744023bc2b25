"""The figures: what is drawn is what was measured, labels stay apart, files are whole."""

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.text import Annotation, Text

from cmtscale.arch.errors import ResultsError
from cmtscale.report import figures
from cmtscale.report.frames import (
    load_candidates,
    load_curves,
    load_forecast,
    load_literature,
    load_standings,
    run_folders,
)
from cmtscale.report.labels import spread
from cmtscale.report.layout import BLUE, PALE


def curves_of(path):
    return pd.concat([load_curves(folder) for folder in run_folders(path)])


def line(ax, label):
    (drawn,) = [line for line in ax.lines if line.get_label() == label]
    return drawn


def in_the_plane(shares):
    """Where mpltern draws shares: corners on a triangle of height 1, its base about the origin."""
    corners = {"resolution": (0, 1), "depth": (-(3**-0.5), 0), "width": (3**-0.5, 0)}
    return shares[list(corners)].to_numpy() @ np.array(list(corners.values()))


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def assert_readable(figure, monkeypatch):
    """No text that is drawn is smaller than 7 pt, overlaps another, or leaves the page."""
    drawn = []
    draw = Text.draw

    def record(self, renderer, *args, **kwargs):
        drawn.extend([self] if self.get_visible() else [])
        draw(self, renderer, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Text, "draw", record)
        figure.draw_without_rendering()
    shown = {text for text in drawn if text.get_text().strip()}
    assert min(text.get_fontsize() for text in shown) >= 7
    boxes = [(Text.get_window_extent(text), text.get_text()) for text in shown]
    page = figure.bbox.padded(1)
    for box, text in boxes:
        assert page.containsx(box.x0), text
        assert page.containsx(box.x1), text
        assert page.containsy(box.y0), text
        assert page.containsy(box.y1), text
    for (one, first), (two, second) in itertools.combinations(boxes, 2):
        shared = (
            min(one.x1, two.x1) - max(one.x0, two.x0),
            min(one.y1, two.y1) - max(one.y0, two.y0),
        )
        assert min(shared) < 1, f"{first!r} overlaps {second!r}"


@pytest.fixture
def root(tmp_path, folders):
    """Three budgets on one data set, and a tour on another."""
    for number, scale in enumerate((1.0, 2.0, 4.0)):
        folders.write_run_folder(
            tmp_path / f"fashion-mnist-cmt-ti-{4 * scale:g}G-1a2{number}",
            twin_scale=scale,
            luck=number,
        )
    folders.write_run_folder(
        tmp_path / "digits-cmt-ti-4G-77aa", data="digits", tour=True, seeds=1, keep=9
    )
    return tmp_path


@pytest.fixture
def ladder(tmp_path, folders):
    first = folders.write_run_folder(tmp_path / "ladder")
    second = folders.write_run_folder(
        tmp_path / "more", epochs=12, seeds=3, keep=9, luck=3, broken=False
    )
    return folders.add_horizon(first, second)


def test_accuracy_stands_at_the_macs_that_were_trained(run_folder):
    table = load_candidates(run_folder)
    (ax,) = figures.accuracy_flops(table).axes
    drawn = {
        (x, y) for container in ax.containers for x, y in zip(*container[0].get_data(), strict=True)
    }
    assert drawn == set(zip(table["proxy_macs"], 100 * table["val_accuracy"], strict=True))
    assert ax.get_xlabel() == "MACs of the trained twins (for 4G)"
    front = line(ax, "Pareto front")
    best = table.loc[table["val_accuracy"].idxmax()]
    assert front.get_ydata()[-1] == 100 * best["val_accuracy"]
    assert (np.diff(front.get_xdata()) > 0).all()
    assert (np.diff(front.get_ydata()) > 0).all()


def test_what_diverged_with_a_seed_is_on_no_front_however_good_the_other(run_folder, folders):
    rows = folders.read_trials(run_folder)
    flattering = [
        replace(row, val_accuracy=0.999, val_loss=0.001)
        if row.candidate == folders.HALF_DIVERGED and row.status == "complete"
        else row
        for row in rows
    ]
    table = load_candidates(run_folder)
    before = line(figures.accuracy_flops(table).axes[0], "Pareto front").get_ydata().tolist()
    folders.write_trials(run_folder, flattering)
    table = load_candidates(run_folder)
    after = line(figures.accuracy_flops(table).axes[0], "Pareto front").get_ydata().tolist()
    assert after == before
    label = next(
        drawn for drawn in figures.ablation(table).axes[0].lines
        if str(drawn.get_label()).startswith("compound, best loss")
    )  # fmt: skip
    assert label.get_ydata().max() < 99


@pytest.mark.parametrize("status", ["diverged", "infeasible"])
def test_what_was_not_sound_at_a_shorter_length_is_chosen_nowhere(ladder, folders, status):
    bad = folders.ARCHITECTURES[6][0]
    rows = folders.read_trials(ladder)
    shorter = min(row.images_seen for row in rows)
    changed = [
        row
        if row.candidate != bad
        else folders.without_metrics(row, status, "as made up")
        if row.images_seen == shorter and row.seed == 1
        else replace(row, val_accuracy=0.999, val_loss=0.001)
        for row in rows
    ]
    folders.write_trials(ladder, changed)
    table = load_candidates(ladder)
    assert set(table.loc[~table["is_sound"], "candidate"]) == {bad, folders.HALF_DIVERGED}
    longer = table[(table["candidate"] == bad) & (table["rung"] == 2)]
    assert longer[["diverged", "infeasible", "may_win"]].to_numpy().tolist() == [[0, 0, False]]
    front = line(figures.accuracy_flops(table).axes[0], "Pareto front")
    assert front.get_ydata().max() < 99
    pure = table[table["role"].isin(["base", "depth"])].assign(rung=2, epochs=12)
    ablation = figures.ablation(pd.concat([table, pure])).axes[0]
    assert "12 epochs" in ablation.get_title(loc="left")
    (best,) = [x for x in ablation.lines if str(x.get_label()).startswith("compound, best loss")]
    assert best.get_ydata().max() < 99
    ranked = figures.ranking(load_standings(ladder), table).axes[0].get_yticklabels()
    assert {text.get_text() for text in ranked[:2]} == {bad, folders.HALF_DIVERGED}


def test_error_bars_are_one_seed_sd_and_absent_for_one_seed(run_folder, folders):
    table = load_candidates(run_folder).set_index("candidate")
    (ax,) = figures.accuracy_flops(table.reset_index()).axes
    bars = {
        round(segment[:, 1].mean(), 6): np.ptp(segment[:, 1]) / 2
        for container in ax.containers
        for segment in container[2][0].get_segments()
        if len(segment)
    }
    chosen = table.loc[folders.BEST]
    assert bars[round(100 * chosen["val_accuracy"], 6)] == pytest.approx(
        100 * chosen["val_accuracy_sd"]
    )
    assert np.isnan(
        bars.get(round(100 * table.loc[folders.HALF_DIVERGED, "val_accuracy"], 6), np.nan)
    )


def test_accuracy_axes_end_at_a_hundred_percent(run_folder, folders):
    rows = folders.read_trials(run_folder)
    best = max(row.val_accuracy for row in rows if row.val_accuracy)
    moved = [
        replace(row, val_accuracy=row.val_accuracy and row.val_accuracy + 1 - best) for row in rows
    ]
    folders.write_trials(run_folder, moved)
    for draw in (figures.accuracy_flops, figures.ablation):
        (ax,) = draw(load_candidates(run_folder)).axes
        low, high = ax.get_ylim()
        assert low < 99 < 100 < high < 101
        assert max(ax.get_yticks()[ax.get_yticks() <= high]) <= 100


def test_real_networks_are_not_called_twins(run_folder):
    table = load_candidates(run_folder)
    (ax,) = figures.accuracy_flops(table.assign(proxy_macs=table["macs"])).axes
    assert ax.get_xlabel() == "MACs"


def test_literature_appears_on_imagenet_only(tmp_path, run_folder, folders):
    imagenet = folders.write_run_folder(tmp_path / "inet", num_classes=1000)
    literature = load_literature()
    (ax,) = figures.accuracy_flops(load_candidates(imagenet), literature).axes
    published = line(ax, "published CMT")
    assert published.get_ydata().tolist() == [79.0, 81.8, 83.5, 84.5]
    assert published.get_xdata().tolist() == pytest.approx([0.64e9, 1.54e9, 4.04e9, 9.33e9])
    (ax,) = figures.accuracy_flops(load_candidates(run_folder), literature).axes
    assert not [drawn for drawn in ax.lines if str(drawn.get_label()).startswith("published")]


def test_the_front_is_of_the_last_rung(ladder):
    table = load_candidates(ladder)
    (ax,) = figures.accuracy_flops(table).axes
    last = 100 * table.loc[table["rung"] == 2, "val_accuracy"]
    assert set(line(ax, "Pareto front").get_ydata()) <= set(last)
    assert "earlier rung, fewer images" in texts(ax.figure)


def test_the_choice_is_ringed_once_at_its_longest_rung(ladder):
    table = load_candidates(ladder)
    (ax,) = figures.accuracy_flops(table).axes
    *_, chosen = table.index[table["chosen"]]
    assert table.loc[chosen, "rung"] == table["rung"].max() == 2
    (ring,) = [drawn for drawn in ax.lines if drawn.get_markersize() == 9]
    assert ring.get_xdata().tolist() == [table.loc[chosen, "proxy_macs"]]
    assert ring.get_ydata().tolist() == [100 * table.loc[chosen, "val_accuracy"]]
    assert "choice" in texts(ax.figure)


def test_without_a_choice_no_figure_marks_one(tmp_path, folders):
    folder = folders.write_run_folder(tmp_path / "run", verdict="nothing learned yet")
    table = load_candidates(folder)
    for figure in (
        figures.accuracy_flops(table),
        figures.triangle(table),
        figures.learning_curves(curves_of(folder), table),
    ):
        assert not any("choice" in text for text in texts(figure))


def test_the_ablation_is_of_the_last_rung_that_has_the_base(ladder):
    table = load_candidates(ladder)
    longer = table[table["rung"] == 1].assign(rung=2, epochs=12)
    corners = longer[longer["role"].isin(["depth", "width", "resolution"])]
    base = longer[longer["role"] == "base"]
    for more, epochs in ((corners, 4), (pd.concat([corners, base]), 12)):
        (ax,) = figures.ablation(pd.concat([table, more])).axes
        assert f"{epochs} epochs" in ax.get_title(loc="left")
        assert len(line(ax, "width only").get_xdata()) == 2  # from the base


def test_runs_of_one_base_join_to_curves(root, folders):
    table = load_candidates(root)
    (ax,) = figures.ablation(table).axes
    for role in ("depth", "width", "resolution"):
        rows = table[table["role"] == role].sort_values("proxy_macs")
        drawn = line(ax, f"{role} only")
        assert drawn.get_xdata()[0] == folders.BASE_MACS
        assert drawn.get_xdata()[1:].tolist() == rows["proxy_macs"].tolist()
        assert drawn.get_ydata()[1:] == pytest.approx(100 * rows["val_accuracy"].to_numpy())
    compound = table[table["role"].isin(["compound", "paper"]) & (table["data"] == "fashion-mnist")]
    best = compound.loc[compound.groupby("run")["val_loss"].idxmin()].sort_values("proxy_macs")
    drawn = line(ax, "compound, best loss of 13")
    assert drawn.get_ydata()[1:] == pytest.approx(100 * best["val_accuracy"].to_numpy())


def test_the_base_is_named_above_the_bases_of_all_runs(root):
    (ax,) = figures.ablation(load_candidates(root)).axes
    ax.figure.draw_without_rendering()
    (label,) = [note for note in ax.texts if note.get_text() == "base"]
    (bases,) = [container[0] for container in ax.containers if container[0].get_marker() == "X"]
    heights = ax.transData.transform(bases.get_xydata())[:, 1]
    assert len(heights) == 3
    assert label.get_window_extent().y0 > max(heights)


@pytest.mark.parametrize("other", [(12, 6000), (4, 12_000), (2, 12_000)])
def test_other_horizons_are_not_joined(tmp_path, folders, other):
    for number, (epochs, train_images) in enumerate([(4, 6000), other]):
        folders.write_run_folder(
            tmp_path / f"run-{number}", epochs=epochs, train_images=train_images
        )
    axes = figures.ablation(load_candidates(tmp_path)).axes
    titles = {ax.get_title(loc="left").replace("\n", " ") for ax in axes}
    horizons = {f"{epochs} epochs of {images:,} images" for epochs, images in [(4, 6000), other]}
    assert len(axes) == 2
    assert all(any(horizon in title for title in titles) for horizon in horizons)


def test_the_triangle_holds_the_on_budget_candidates_coloured_by_loss(run_folder, folders):
    table = load_candidates(run_folder)
    shown = table[table["on_budget"]]
    ax = figures.triangle(table).axes[0]
    (points,) = ax.collections
    assert points.get_array().tolist() == shown["val_loss"].tolist()
    np.testing.assert_allclose(points.get_offsets(), in_the_plane(shown), atol=1e-12)
    written = texts(ax.figure)
    assert "depth only\nα = 2.5" in written
    assert "width only\nβ = 1.84" in written
    assert "resolution only\nγ = 1.58" in written
    assert f"choice {folders.BEST}" in written


def test_the_papers_constants_lie_where_their_shares_say(run_folder):
    ax = figures.triangle(load_candidates(run_folder)).axes[0]
    (diamond,) = [drawn for drawn in ax.lines if drawn.get_marker() == "D"]
    published = pd.DataFrame({"depth": [0.199], "width": [0.429], "resolution": [0.305]}) / 0.933
    np.testing.assert_allclose(diamond.get_xydata(), in_the_plane(published), atol=1e-3)


def test_labels_cover_no_candidate_in_a_crowd(run_folder):
    shares = np.random.default_rng(0).dirichlet((6, 9, 6), 60)
    table = load_candidates(run_folder)
    table = table[table["on_budget"]].sample(60, replace=True, random_state=0)
    depth, width, resolution = shares.T
    names = [f"d2.2.{number}.2-w18-r96" for number in range(60)]
    table = table.assign(depth=depth, width=width, resolution=resolution, candidate=names)
    middle = np.argmin(np.linalg.norm(shares - shares.mean(axis=0), axis=1))
    figure = figures.triangle(table.assign(chosen=np.arange(60) == middle))
    figure.draw_without_rendering()
    ax = figure.axes[0]
    boxes = [Text.get_window_extent(label) for label in ax.texts]
    assert len(boxes) == 2
    for point in ax.transData.transform(ax.collections[0].get_offsets()):
        assert not any(box.contains(*point) for box in boxes)


def test_each_run_and_rung_has_its_own_triangle(ladder):
    figure = figures.triangle(load_candidates(ladder))
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]
    assert [title.splitlines()[0] for title in titles] == ["ladder, rung 1", "ladder, rung 2"]


def test_where_a_run_has_one_horizon_no_rung_is_named(root):
    table = load_candidates(root)
    for figure in (figures.triangle(table), figures.learning_curves(curves_of(root), table)):
        titles = [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]
        assert [title.splitlines()[0] for title in titles] == sorted(set(table["run"]))


def test_every_figure_names_the_budget(run_folder):
    table = load_candidates(run_folder)
    for figure in (
        figures.accuracy_flops(table),
        figures.ablation(table),
        figures.triangle(table),
        figures.learning_curves(curves_of(run_folder), table),
    ):
        assert any("for 4G" in text for text in texts(figure))


def test_resolution_above_the_images_is_called_tokens(run_folder):
    note = "images of 28 px: resolution adds tokens, not detail"
    table = load_candidates(run_folder)
    assert any(note in text for text in texts(figures.triangle(table)))
    large = figures.triangle(table.assign(native_px=256.0))
    assert not any("tokens" in text for text in texts(large))


def test_learning_curves_are_means_over_complete_seeds_with_the_best_labelled(run_folder, folders):
    table, curves = load_candidates(run_folder), curves_of(run_folder)
    (ax,) = figures.learning_curves(curves, table).axes
    assert len(ax.lines) == len(table)
    chosen = curves[(curves["candidate"] == folders.BEST) & curves["val_accuracy"].notna()]
    expected = 100 * chosen.groupby("images")["val_accuracy"].mean()
    drawn = line(ax, folders.BEST)
    assert drawn.get_xdata().tolist() == expected.index.tolist()
    assert drawn.get_ydata() == pytest.approx(expected.to_numpy())
    assert to_hex(drawn.get_color()) == BLUE.lower()
    labels = [note.get_text() for note in ax.texts if isinstance(note, Annotation)]
    assert "0/56/44 choice" in labels
    best = table[table["on_budget"]].nsmallest(3, "val_loss")
    labelled = {text.split()[0] for text in labels}
    shares = 100 * best[["depth", "width", "resolution"]].to_numpy()
    assert {"/".join(f"{share:.0f}" for share in row) for row in shares} <= labelled
    colours = {drawn.get_label(): to_hex(drawn.get_color()) for drawn in ax.lines}
    assert PALE.lower() not in {colours[name] for name in best["candidate"]}
    grey = [name for name, colour in colours.items() if colour == PALE.lower()]
    assert len(grey) == len(table) - len(labelled)


def test_training_loss_stands_in_where_nothing_was_evaluated_on_the_way(run_folder, folders):
    curves = curves_of(run_folder)
    ends = curves["images"] == curves["images"].max()
    curves = curves[curves["train_loss"].notna() | ends]
    (ax,) = figures.learning_curves(curves, load_candidates(run_folder)).axes
    assert ax.get_ylabel() == "training loss"
    assert len(line(ax, folders.BEST).get_xdata()) == 10


def test_a_tour_says_that_it_recommends_nothing(tmp_path, folders):
    tour = folders.write_run_folder(tmp_path / "tour", data="digits", tour=True, keep=9)
    table = load_candidates(tour)
    for figure in (
        figures.accuracy_flops(table),
        figures.triangle(table),
        figures.learning_curves(curves_of(tour), table),
    ):
        assert any("tour: recommends nothing" in text for text in texts(figure))


def titles_of(path):
    table = load_candidates(path)
    for figure in (
        figures.accuracy_flops(table),
        figures.ablation(table),
        figures.triangle(table),
        figures.learning_curves(curves_of(path), table),
    ):
        yield "\n".join(ax.get_title(loc="left") for ax in figure.axes)


def test_a_search_without_a_choice_is_called_unfinished(run_folder):
    assert not any("finished" in title for title in titles_of(run_folder))
    (run_folder / "choice.json").unlink()
    assert all("the search is not finished" in title for title in titles_of(run_folder))


def test_a_choice_for_another_target_does_not_finish_a_search(tmp_path, folders):
    folder = folders.write_run_folder(tmp_path / "run", keep=17)
    asked = (folder / "request.toml").read_text().replace("images = 24000", "images = 72000")
    assert "72000" in asked
    (folder / "request.toml").write_text(asked)
    assert all("the search is not finished" in title for title in titles_of(folder))


def test_searches_without_a_choice_are_counted(root):
    next(root.glob("fashion-mnist-*-8G-*/choice.json")).unlink()
    table = load_candidates(root)
    title = figures.ablation(table).axes[0].get_title(loc="left")
    assert title.splitlines()[-1] == "1 of 3 searches not finished"


def test_a_search_that_could_choose_nothing_is_finished(tmp_path, folders):
    folder = folders.write_run_folder(tmp_path / "run", verdict="nothing learned yet")
    assert not any("finished" in title for title in titles_of(folder))


def test_titles_say_data_seeds_epochs_and_failures(run_folder):
    (ax,) = figures.accuracy_flops(load_candidates(run_folder)).axes
    title = ax.get_title(loc="left").replace("\n", " ")
    assert (
        title == "fashion-mnist, 1–2 seeds, 4 epochs of 6,000 images, 1 run diverged, 1 run failed"
    )


@pytest.mark.parametrize("results", ["run_folder", "root", "ladder"])
def test_every_text_is_readable_and_overlaps_no_other(results, request, monkeypatch):
    path = request.getfixturevalue(results)
    table = load_candidates(path)
    literature = load_literature()
    for figure in (
        figures.accuracy_flops(table, literature),
        figures.accuracy_flops(table.assign(num_classes=1000), literature),
        figures.ablation(table),
        figures.triangle(table),
        figures.learning_curves(curves_of(path), table),
    ):
        assert figure.get_figwidth() in (3.5, 7.0)
        assert_readable(figure, monkeypatch)


@pytest.mark.parametrize("shares", [(0, 1, 0), (0, 0, 1), (1, 0, 0), (0, 0.56, 0.44)])
def test_a_long_name_of_the_choice_is_readable_wherever_it_lies(run_folder, shares, monkeypatch):
    table = load_candidates(run_folder)
    table_shares = table[["depth", "width", "resolution"]]
    chosen = table["on_budget"] & np.isclose(table_shares, shares, atol=1e-9).all(axis=1)
    assert chosen.sum() == 1
    names = table["candidate"].mask(chosen, "d12.12.64.12-w128-r224")
    figure = figures.triangle(table.assign(chosen=chosen, candidate=names))
    assert "choice d12.12.64.12-w128-r224" in texts(figure)
    assert_readable(figure, monkeypatch)


@given(st.lists(st.floats(0, 100), max_size=8).map(sorted))
def test_labels_are_moved_apart_and_stay_in_the_frame(targets):
    heights = spread(targets, 10.0, 0.0, 100.0)
    assert (np.diff(heights) >= 10.0 - 1e-9).all()
    assert all(-1e-9 <= height <= 100 + 1e-9 for height in heights)
    if (np.diff(targets) >= 10.0).all():
        assert heights == pytest.approx(targets)


# --- the forecast, and the ranking at the target


@pytest.fixture
def forecasted(ladder, folders):
    """A search of two rungs with its forecast to 216,000 images."""
    folders.write_expected(ladder, 216_000)
    return ladder


def test_a_forecast_is_drawn_through_its_table_with_the_means_of_the_runs(forecasted, monkeypatch):
    expected, standings = load_forecast(forecasted), load_standings(forecasted)
    table = load_candidates(forecasted)
    figure = figures.forecast(expected, standings, table)
    (ax,) = figure.axes
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    curves = {tuple(line.get_ydata()) for line in ax.lines if len(line.get_xdata()) == 3}
    longest = table[table["rung"] == 2]["candidate"]
    nearest = standings[standings["candidate"].isin(longest)].nlargest(4, "near")["candidate"]
    assert curves == {tuple(rows["loss"]) for name, rows in expected.groupby("candidate")
                      if name in set(nearest)}  # fmt: skip
    for name in nearest:
        means = table[table["candidate"] == name]["val_loss"].tolist()
        assert means in [list(line.get_ydata()) for line in ax.lines]
    target = standings["target_images"].iloc[0]
    assert [target, target] in [list(line.get_xdata()) for line in ax.lines]
    assert_readable(figure, monkeypatch)


def test_the_ranking_shows_what_is_expected_at_the_target(forecasted, folders, monkeypatch):
    standings = load_standings(forecasted)
    figure = figures.ranking(standings, load_candidates(forecasted))
    ax = figure.axes[0]
    names = [text.get_text() for text in ax.get_yticklabels()]
    by_loss = standings.sort_values("loss", ascending=False)
    best_last = [
        *by_loss[~by_loss["is_sound"]]["candidate"],  # another seed's loss would flatter it
        *by_loss[by_loss["is_sound"]]["candidate"],
    ]
    assert best_last[0] == folders.HALF_DIVERGED
    assert [name.removeprefix("▸ ") for name in names] == best_last
    assert [name for name in names if name.startswith("▸")] == [f"▸ {best_last[-1]}"]
    intervals = [line.get_xdata().tolist() for line in ax.lines if len(line.get_xdata()) == 2]
    best = standings.nsmallest(1, "loss").iloc[0]
    assert intervals[-1] == [best["low"], best["high"]]
    assert f"{best['target_images']:,} images" in ax.get_xlabel()
    assert_readable(figure, monkeypatch)


def test_certainty_colours_who_may_be_chosen_by_how_probable_it_is(forecasted, monkeypatch):
    standings = load_standings(forecasted)
    figure = figures.certainty(standings, load_candidates(forecasted))
    ax = figure.axes[0]
    on_budget = standings[standings["may_win"]]
    (points,) = [drawn for drawn in ax.collections if len(drawn.get_offsets()) == len(on_budget)]
    assert points.get_array().tolist() == on_budget["near"].tolist()
    assert points.get_clim() == (0, 1)
    np.testing.assert_allclose(points.get_offsets(), in_the_plane(on_budget), atol=1e-9)
    assert_readable(figure, monkeypatch)


def test_a_search_without_a_forecast_says_why_nothing_is_drawn(ladder):
    table = load_candidates(ladder)
    nothing = load_forecast(ladder)
    assert nothing.empty
    with pytest.raises(ResultsError, match="several seeds, and runs of several lengths"):
        figures.forecast(nothing, load_standings(ladder), table)
    (ladder / "choice.json").unlink()
    for draw in (figures.ranking, figures.certainty):
        with pytest.raises(ResultsError, match="made a forecast"):
            draw(load_standings(ladder), table)


ALL = {
    "accuracy-flops",
    "ablation",
    "triangle",
    "learning-curves",
    "forecast",
    "ranking",
    "certainty",
}


def test_saving_writes_png_and_svg_of_all(forecasted):
    saved = figures.save_figures(forecasted)
    assert {path.name for path in saved.files} == {
        f"{name}.{kind}" for name in ALL for kind in ("png", "svg")
    }
    assert saved.skipped == {}
    assert sorted(saved.files) == sorted((forecasted / "figures").iterdir())
    for path in saved.files:
        start = b"\x89PNG" if path.suffix == ".png" else b"<?xml"
        assert path.read_bytes().startswith(start)


def test_the_same_results_give_the_same_svg_bytes(run_folder, tmp_path):
    once = figures.save_figures(run_folder)
    again = figures.save_figures(run_folder, tmp_path / "again")
    for first, second in zip(once.files, again.files, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def test_a_figure_without_data_is_left_out_with_its_reason(tmp_path, folders):
    folder = folders.write_run_folder(tmp_path / "run", keep=9)
    (folder / "runs").rename(tmp_path / "elsewhere")
    saved = figures.save_figures(folder)
    drawn = {"accuracy-flops", "triangle", "ranking", "certainty"}
    assert {path.stem for path in saved.files} == drawn
    assert "made a forecast" in saved.skipped["forecast"]
    assert "no one-dimensional candidate" in saved.skipped["ablation"]
    assert "metrics.jsonl" in saved.skipped["learning-curves"]


def test_a_search_that_has_only_begun_does_not_hide_the_others(root, folders):
    folders.write_trials(folders.write_run_folder(root / "begun", keep=1, winner=None), [])
    assert figures.save_figures(root).skipped.keys() == {"forecast"}  # runs of one length each


def test_when_every_run_failed_nothing_is_drawn(run_folder, folders):
    rows = folders.read_trials(run_folder)
    folders.write_trials(run_folder, [replace(row, status="failed") for row in rows])
    (run_folder / "choice.json").unlink()
    saved = figures.save_figures(run_folder)
    assert saved.files == ()
    assert saved.skipped.keys() == ALL


def test_a_failed_save_leaves_nothing_half_written(run_folder, monkeypatch):
    out = run_folder / "figures"
    figures.save_figures(run_folder)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full_disk(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(ResultsError, match="No space left on device"):
        figures.save_figures(run_folder)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_an_out_that_is_a_file_is_refused(run_folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match="cannot be written to"):
        figures.save_figures(run_folder, tmp_path / "file")


def test_drawing_loads_no_torch_and_no_pyplot():
    code = (
        "import sys, cmtscale.report.figures; "
        "print([m for m in ('torch', 'torchvision', 'matplotlib.pyplot') if m in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"

"""Run folders to frames: what is read, what is averaged, what is refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchvision.models import get_weight

from cmtscale.arch import paper
from cmtscale.arch.errors import ResultsError
from cmtscale.record.metrics import CURVE_COLUMNS, export_curves
from cmtscale.record.row import COLUMNS
from cmtscale.report.frames import (
    load_candidates,
    load_curves,
    load_literature,
    load_results,
    pareto_front,
)


def refusal(path):
    with pytest.raises(ResultsError) as caught:
        load_results(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_run_is_a_row_with_its_folder(run_folder, folders):
    frame = load_results(run_folder)
    assert len(frame) == 2 * len(folders.ARCHITECTURES)
    assert set(frame["run"]) == {run_folder.name}
    assert set(frame["budget_macs"]) == {4e9}
    assert set(frame["data"]) == {"fashion-mnist"}
    assert not frame["tour"].any()
    assert (frame["num_classes"] == 10).all()
    assert (frame["native_px"] == 28).all()
    assert set(frame.loc[frame["chosen"], "candidate"]) == {folders.BEST}
    assert frame["on_budget"].dtype == bool
    assert (frame["rung"] == 1).all()
    assert (frame["rungs"] == 1).all()
    assert frame["finished"].all()
    assert set(COLUMNS) <= set(frame.columns)
    assert sorted(frame["status"].unique()) == ["complete", "diverged", "failed"]
    assert frame.loc[frame["status"] != "complete", "val_loss"].isna().all()


def test_a_root_gathers_the_run_folders_in_it(tmp_path, folders):
    for name in ("a", "b"):
        folders.write_run_folder(tmp_path / name, keep=3)
    (tmp_path / "notes").mkdir()
    assert set(load_results(tmp_path)["run"]) == {"a", "b"}


def test_a_search_that_has_only_begun_does_not_hide_the_others(tmp_path, folders):
    folders.write_run_folder(tmp_path / "a", keep=3)
    folders.write_trials(folders.write_run_folder(tmp_path / "b", keep=3), [])
    assert set(load_results(tmp_path)["run"]) == {"a"}
    assert "no finished run" in refusal(tmp_path / "b")


def test_what_is_no_run_folder_is_refused_in_one_line(tmp_path):
    assert "does not exist" in refusal(tmp_path / "nowhere")
    assert "no trials.csv" in refusal(tmp_path)
    file = tmp_path / "file"
    file.touch()
    assert "is not a folder" in refusal(file)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("trials.csv", b"", "is damaged: it lacks the columns run_id, candidate, alpha"),
        ("trials.csv", b"run_id,rung\nr1-c00-s0,1\n", "is damaged: it lacks the columns candidate"),
        (
            "trials.csv",
            b"a,b\n1,2\n1,2,3,4\n",
            "is damaged: it lacks the columns run_id, candidate",
        ),
        ("trials.csv", b"\xff\xfe\x00", "is damaged: 'utf-8' codec can't decode"),
        ("request.toml", b"budget_macs = ", "is damaged: Invalid value"),
        ("request.toml", b"\xff\xfe\x00", "is damaged: 'utf-8' codec can't decode"),
        ("request.toml", b"data = 'digits'\n", "is damaged: it lacks 'target_images'"),
        ("request.toml", b"target_images = 9\n", "is damaged: it lacks 'budget_macs'"),
        (
            "request.toml",
            b"target_images = 9\nbudget_macs = '4G'\n",
            "is damaged: budget_macs is '4G'",
        ),
        ("environment.json", b"{", "is damaged: Expecting property name"),
        ("environment.json", b"\xff\xfe\x00", "is damaged: 'utf-8' codec can't decode"),
        ("environment.json", b"[]", "is damaged: it holds no object"),
        ("environment.json", b"{}", "is damaged: it lacks 'data'"),
        ("environment.json", b'{"data": []}', "is damaged: data is []"),
        ("environment.json", b'{"data": {}}', "is damaged: it lacks 'num_classes'"),
        ("choice.json", b"{", "is damaged: Expecting property name"),
        ("choice.json", b"[]", "is damaged: it holds no object"),
        ("choice.json", b"{}", "is damaged: it lacks 'taken'"),
        ("choice.json", b'{"taken": "a", "verdict": null}', "is damaged: verdict is None"),
    ],
)
def test_a_broken_file_is_named(run_folder, name, content, message):
    (run_folder / name).write_bytes(content)
    text = refusal(run_folder)
    assert text.startswith(f"{run_folder / name} {message}")


def test_a_word_where_a_number_belongs_is_named(run_folder, folders):
    rows = folders.read_trials(run_folder)
    rows[3] = replace(rows[3], val_loss="low")
    folders.write_trials(run_folder, rows)
    assert refusal(run_folder) == (
        f"{run_folder / 'trials.csv'} is damaged: line 5: could not convert string to float: 'low'"
    )


def test_a_table_of_0_1_0_is_refused_and_not_called_damaged(run_folder):
    path = run_folder / "trials.csv"
    path.write_text("run_id,rung,candidate,alpha\nr1-c00-s0,1,c00,1.2\n")
    assert refusal(run_folder) == (
        f"{path} was written by cmtscale 0.1.0, whose runs were scored in another way; "
        "search again with another --out"
    )


def test_a_missing_request_is_named(run_folder):
    (run_folder / "request.toml").unlink()
    assert f"{run_folder / 'request.toml'} is missing" in refusal(run_folder)


def test_without_a_choice_nothing_is_chosen(tmp_path, folders):
    assert not load_results(folders.write_run_folder(tmp_path, winner=None))["chosen"].any()


@pytest.mark.parametrize("verdict", ["nothing learned yet", "undecided"])
def test_a_winner_that_the_search_calls_no_choice_is_not_chosen(tmp_path, folders, verdict):
    folder = folders.write_run_folder(tmp_path, verdict=verdict)
    assert not load_results(folder)["chosen"].any()
    assert not load_candidates(folder)["chosen"].any()


def test_who_may_win_is_what_the_search_concluded_not_the_rows_alone(tmp_path, folders):
    folder = folders.write_run_folder(tmp_path)
    choice = json.loads((folder / "choice.json").read_text())
    before = load_candidates(folder).set_index("candidate")["may_win"]
    excluded = next(s for s in choice["standings"] if s["may_win"])  # as by a limit
    excluded["may_win"] = False
    (folder / "choice.json").write_text(json.dumps(choice))
    after = load_candidates(folder).set_index("candidate")["may_win"]
    assert list(before[before != after].index) == [excluded["candidate"]]


def test_horizons_of_one_folder_are_rungs_by_images_seen(tmp_path, folders):
    # by epochs and by run ids the longer one would come first
    folder = folders.write_run_folder(tmp_path / "a", epochs=3, train_images=12_000, keep=3)
    shorter = folders.write_run_folder(tmp_path / "b", epochs=5, train_images=2000, keep=3)
    folders.add_horizon(folder, shorter)
    for frame in (load_results(folder), load_candidates(folder)):
        horizons = frame[["rung", "epochs", "train_images"]].drop_duplicates()
        assert sorted(map(tuple, horizons.to_numpy())) == [(1, 5, 2000), (2, 3, 12_000)]
        assert (frame["rungs"] == 2).all()
    curves = load_curves(folder)
    assert curves.groupby("rung")["images"].max().to_dict() == {1: 10_000, 2: 36_000}


def test_a_mean_is_of_one_horizon_and_a_choice_is_one_at_all_of_them(tmp_path, folders):
    folder = folders.write_run_folder(tmp_path / "a", epochs=4)
    folders.add_horizon(folder, folders.write_run_folder(tmp_path / "b", epochs=12))
    rows = [row for row in folders.read_trials(folder) if row.candidate == folders.BEST]
    table = load_candidates(folder)
    best = table[table["candidate"] == folders.BEST].set_index("rung")
    for rung, epochs in ((1, 4), (2, 12)):
        losses = [row.val_loss for row in rows if row.epochs == epochs]
        assert best.loc[rung, "val_loss"] == pytest.approx(np.mean(losses))
        assert best.loc[rung, "seeds"] == 2
    assert best["chosen"].to_dict() == {1: True, 2: True}
    assert set(table[table["chosen"]]["candidate"]) == {folders.BEST}


def test_runs_of_an_older_scoring_are_rows_but_in_no_mean_and_no_curve(run_folder, folders):
    rows = folders.read_trials(run_folder)
    before = load_candidates(run_folder)
    older = [
        replace(row, run_id=f"{row.run_id}-old", scoring=row.scoring - 1, val_loss=9.0)
        for row in rows
    ]
    for row in older:
        path = run_folder / "runs" / row.run_id.removesuffix("-old")
        if path.exists():
            (run_folder / "runs" / row.run_id).symlink_to(path)
    curves = load_curves(run_folder)
    folders.write_trials(run_folder, rows + older)
    assert len(load_results(run_folder)) == 2 * len(rows)
    assert load_candidates(run_folder).equals(before)
    assert load_curves(run_folder).equals(curves)
    folders.write_trials(run_folder, older)
    with pytest.raises(ResultsError, match="no finished run yet that this version scored"):
        load_candidates(run_folder)
    assert load_curves(run_folder).empty


def test_a_candidate_is_the_mean_and_spread_of_its_complete_runs(run_folder, folders):
    rows = folders.read_trials(run_folder)
    table = load_candidates(run_folder).set_index("candidate")
    losses = [row.val_loss for row in rows if row.candidate == folders.BEST]
    best = table.loc[folders.BEST]
    assert best["val_loss"] == pytest.approx(np.mean(losses))
    assert best["val_loss_sd"] == pytest.approx(np.std(losses, ddof=1))
    assert (best["seeds"], best["failed"]) == (2, 0)
    # one seed diverged: the other alone counts, without a spread
    name = folders.HALF_DIVERGED
    (survivor,) = [row for row in rows if row.candidate == name and row.status == "complete"]
    assert table.loc[name, "val_accuracy"] == pytest.approx(survivor.val_accuracy)
    assert math.isnan(table.loc[name, "val_accuracy_sd"])
    assert table.loc[name, ["seeds", "diverged", "failed"]].tolist() == [1, 1, 0]


def test_a_candidate_that_never_finished_keeps_its_row(run_folder, folders):
    rows = folders.read_trials(run_folder)
    rows[0] = folders.without_metrics(rows[0], "infeasible", "memory: one image does not fit")
    rows[1] = folders.without_metrics(rows[1], "diverged", "loss is nan at step 2")
    folders.write_trials(run_folder, rows)
    table = load_candidates(run_folder)
    first = table.iloc[0]
    assert len(table) == len(folders.ARCHITECTURES)
    assert first["candidate"] == rows[0].candidate
    how = ("seeds", "diverged", "infeasible", "failed")
    assert tuple(first[name] for name in how) == (0, 1, 1, 0)
    assert math.isnan(first["val_loss"])


def test_metrics_are_numbers_where_every_run_failed(run_folder, folders):
    failed = [
        folders.without_metrics(row, "failed", "exit code -9")
        for row in folders.read_trials(run_folder)
    ]
    folders.write_trials(run_folder, failed)
    for frame in (load_results(run_folder), load_candidates(run_folder)):
        assert frame["val_loss"].dtype == float
        assert frame["val_loss"].isna().all()


def test_shares_are_the_log_shares_of_the_constants(run_folder, folders):
    table = load_candidates(run_folder)
    for row, architecture in zip(table.itertuples(), folders.ARCHITECTURES, strict=True):
        assert (row.depth, row.width, row.resolution) == pytest.approx(architecture[4:7], abs=1e-9)


values = st.integers(0, 6).map(float)  # few values: ties are what a front gets wrong


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(*[arrays(float, n, elements=values)] * 2)))
def test_the_front_is_what_no_other_point_beats(points):
    macs, accuracy = points
    expected = [
        not any(
            m <= macs[i] and a >= accuracy[i] and (m < macs[i] or a > accuracy[i])
            for m, a in zip(macs, accuracy, strict=True)
        )
        for i in range(len(macs))
    ]
    assert pareto_front(macs, accuracy).tolist() == expected


def log_of_one_run(run_folder, folders):
    return run_folder / "runs" / f"{folders.BEST}-4x6000-s1" / "metrics.jsonl"


def test_curves_carry_candidate_and_seed(run_folder, folders):
    curves = load_curves(run_folder)
    one = curves[curves["run_id"] == f"{folders.BEST}-4x6000-s1"]
    assert set(one["candidate"]) == {folders.BEST}
    assert set(one["seed"]) == {1}
    logged = log_of_one_run(run_folder, folders).read_text().splitlines()
    losses = [json.loads(line)["train_loss"] for line in logged if "train_loss" in line]
    assert one["train_loss"].dropna().tolist() == losses


def test_a_torn_last_line_costs_that_line_only(run_folder, folders):
    path = log_of_one_run(run_folder, folders)
    before = load_curves(run_folder)
    path.write_text(path.read_text() + '{"step": 220, "ima')
    assert load_curves(run_folder).equals(before)


def test_steps_logged_again_after_a_resume_count_once(run_folder, folders):
    path = log_of_one_run(run_folder, folders)
    before = load_curves(run_folder)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:8] + lines[4:]))
    assert load_curves(run_folder).equals(before)


def test_exported_curves_stand_in_for_runs_that_were_not_kept(run_folder, tmp_path, folders):
    logged = load_curves(run_folder)
    columns = list(CURVE_COLUMNS)
    export_curves(run_folder, folders.read_trials(run_folder))
    (run_folder / "runs").rename(tmp_path / "elsewhere")
    exported = load_curves(run_folder)
    assert exported[columns[:3]].equals(logged[columns[:3]])
    assert exported[["run", "rung", "candidate", "seed", "status"]].equals(
        logged[["run", "rung", "candidate", "seed", "status"]]
    )
    np.testing.assert_allclose(exported[columns[3:]], logged[columns[3:]], rtol=1e-12)


def test_runs_that_ended_after_the_export_have_their_own_curves(run_folder, folders):
    logged = load_curves(run_folder)
    export_curves(run_folder, folders.read_trials(run_folder)[:9])
    assert load_curves(run_folder).equals(logged)


def test_no_kept_curve_gives_an_empty_frame(run_folder, tmp_path):
    (run_folder / "runs").rename(tmp_path / "elsewhere")
    assert load_curves(run_folder).empty


def test_a_search_that_has_only_begun_has_no_curves(run_folder, folders):
    folders.write_trials(run_folder, [])
    assert load_curves(run_folder).empty


def test_a_word_in_the_exported_curves_is_named(run_folder, folders):
    (row, *_) = folders.read_trials(run_folder)
    (run_folder / "runs" / row.run_id / "metrics.jsonl").unlink()
    line = f"{row.run_id},20,2400,low,,"
    (run_folder / "curves.csv").write_text(f"{','.join(CURVE_COLUMNS)}\n{line}\n")
    with pytest.raises(ResultsError, match=r"curves\.csv is damaged: .*low"):
        load_curves(run_folder)


def test_literature_is_what_torchvision_reports():
    table = load_literature()
    others = table[table["source"].str.startswith("torchvision ")]
    assert len(others) >= 10
    for row in others.itertuples():
        meta = get_weight(row.source.removeprefix("torchvision ")).meta
        assert row.params_m == meta["num_params"] / 1e6, row.model
        assert row.gflops == meta["_ops"], row.model
        assert row.top1 == meta["_metrics"]["ImageNet-1K"]["acc@1"], row.model
    cmt = table[table["family"] == "CMT"].set_index("model")
    assert cmt["top1"].to_dict() == {name: row.top1 for name, row in paper.VARIANTS.items()}

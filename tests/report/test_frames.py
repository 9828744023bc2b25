"""Run folders to frames: what is read, what is averaged, what is refused."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchvision.models import get_weight

from cmtscale.report.frames import (
    candidates,
    load_curves,
    load_literature,
    load_results,
    pareto_front,
)
from cmtscale.spec import paper
from cmtscale.spec.errors import ResultsError


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
    assert set(frame.loc[frame["chosen"], "candidate"]) == {folders.CHOICE}
    assert frame["on_budget"].dtype == bool
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
        ("trials.csv", b"", "cannot be read as a table"),
        ("trials.csv", b"run_id,rung\nr1-c00-s0,1\n", "lacks candidate"),
        ("trials.csv", b"a,b\n1,2\n1,2,3,4\n", "cannot be read as a table"),
        ("trials.csv", b"\xff\xfe\x00", "cannot be read as a table"),
        ("request.toml", b"budget_macs = ", "request.toml cannot be read"),
        ("request.toml", b"data = 'digits'\n", "lacks 'budget_macs'"),
        ("environment.json", b"{", "environment.json cannot be read"),
        ("environment.json", b"[]", "holds no object"),
        ("environment.json", b"{}", "lacks 'data'"),
        ("choice.json", b"{}", "lacks 'winner'"),
    ],
)
def test_a_broken_file_is_named(run_folder, name, content, message):
    (run_folder / name).write_bytes(content)
    text = refusal(run_folder)
    assert message in text
    assert str(run_folder) in text


def test_a_word_where_a_number_belongs_is_named(run_folder, folders):
    rows = folders.read_trials(run_folder)
    rows[3]["val_loss"] = "low"
    folders.write_trials(run_folder, rows)
    assert "val_loss is not a number" in refusal(run_folder)


def test_a_missing_request_is_named(run_folder):
    (run_folder / "request.toml").unlink()
    assert "request.toml cannot be read: No such file" in refusal(run_folder)


def test_without_a_choice_nothing_is_chosen(tmp_path, folders):
    assert not load_results(folders.write_run_folder(tmp_path, choice=None))["chosen"].any()


def test_a_candidate_is_the_mean_and_spread_of_its_complete_runs(run_folder, folders):
    rows = folders.read_trials(run_folder)
    table = candidates(load_results(run_folder)).set_index("candidate")
    losses = [float(row["val_loss"]) for row in rows if row["candidate"] == "c07"]
    assert table.loc["c07", "val_loss"] == pytest.approx(np.mean(losses))
    assert table.loc["c07", "val_loss_sd"] == pytest.approx(np.std(losses, ddof=1))
    assert (table.loc["c07", "seeds"], table.loc["c07", "failed"]) == (2, 0)
    # one seed of c04 diverged: the other alone counts, without a spread
    (survivor,) = [row for row in rows if row["candidate"] == "c04" and row["status"] == "complete"]
    assert table.loc["c04", "val_accuracy"] == pytest.approx(float(survivor["val_accuracy"]))
    assert math.isnan(table.loc["c04", "val_accuracy_sd"])
    assert (table.loc["c04", "seeds"], table.loc["c04", "failed"]) == (1, 1)


def test_a_candidate_that_never_finished_keeps_its_row(run_folder, folders):
    rows = folders.read_trials(run_folder)
    for row in rows[:2]:
        row |= {"status": "failed", "val_loss": "", "val_accuracy": ""}
    folders.write_trials(run_folder, rows)
    first = candidates(load_results(run_folder)).iloc[0]
    assert (first["seeds"], first["failed"]) == (0, 2)
    assert math.isnan(first["val_loss"])


def test_shares_are_the_log_shares_of_the_constants(run_folder, folders):
    table = candidates(load_results(run_folder))
    for row, architecture in zip(table.itertuples(), folders.ARCHITECTURES, strict=True):
        assert (row.depth, row.width, row.resolution) == pytest.approx(architecture[3:6], abs=1e-9)


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


def test_curves_carry_candidate_and_seed(run_folder):
    curves = load_curves(run_folder)
    one = curves[curves["run_id"] == "r1-c07-s1"]
    assert set(one["candidate"]) == {"c07"}
    assert set(one["seed"]) == {1}
    logged = (run_folder / "runs/r1-c07-s1/metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["train_loss"] for line in logged if "train_loss" in line]
    assert one["train_loss"].dropna().tolist() == losses


def test_a_torn_last_line_costs_that_line_only(run_folder):
    path = run_folder / "runs/r1-c07-s1/metrics.jsonl"
    before = load_curves(run_folder)
    path.write_text(path.read_text() + '{"step": 220, "ima')
    assert load_curves(run_folder).equals(before)


def test_steps_logged_again_after_a_resume_count_once(run_folder):
    path = run_folder / "runs/r1-c07-s1/metrics.jsonl"
    before = load_curves(run_folder)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:8] + lines[4:]))
    assert load_curves(run_folder).equals(before)


def test_exported_curves_stand_in_for_runs_that_were_not_kept(run_folder, tmp_path):
    logged = load_curves(run_folder)
    columns = ["run_id", "step", "images", "train_loss", "val_loss_raw", "val_accuracy"]
    logged[[*columns, "candidate", "seed"]].to_csv(run_folder / "curves.csv", index=False)
    (run_folder / "runs").rename(tmp_path / "elsewhere")
    exported = load_curves(run_folder)
    assert exported[columns[:3]].equals(logged[columns[:3]])
    assert exported[["run", "rung", "candidate", "seed", "status"]].equals(
        logged[["run", "rung", "candidate", "seed", "status"]]
    )
    np.testing.assert_allclose(exported[columns[3:]], logged[columns[3:]], rtol=1e-12)


def test_no_kept_curve_gives_an_empty_frame(run_folder, tmp_path):
    (run_folder / "runs").rename(tmp_path / "elsewhere")
    assert load_curves(run_folder).empty


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

"""The GPU benchmark, reduced and on a CPU: every cell becomes a row with numbers or a cause."""

import csv
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import torch

from cmtscale.record.row import to_csv

pytestmark = pytest.mark.usefixtures("single_threaded")
COMMAND = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


class InProcessWorker:
    """A worker in this process, so that a test can patch what it calls."""

    def ask(self, work, *arguments):
        self.outcome, _ = import_module("card.worker").attempt(work, *arguments)

    def answer(self, seconds):
        assert seconds > 0
        return self.outcome

    def stop(self):
        pass


@pytest.fixture(scope="module", autouse=True)
def _importable():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(COMMAND.parent)
        yield


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.fixture
def gpu():
    return import_module("gpu")


@pytest.fixture
def cells():
    return import_module("card.cells")


@pytest.fixture
def criteria():
    return import_module("card.criteria")


@pytest.fixture
def search_returning(gpu, monkeypatch):
    """Replace the search by one that ends at once with the given rows."""

    def end_with(*rows):
        code = (
            "import pathlib, sys; folder = pathlib.Path(sys.argv[sys.argv.index('--out') + 1]); "
            f"folder.mkdir(); (folder / 'trials.csv').write_text({to_csv(rows)!r})"
        )
        monkeypatch.setattr(gpu, "SEARCH", code)

    return end_with


@pytest.fixture
def run_reduced(gpu, cells, monkeypatch, tmp_path, search_returning, make_row):
    """Run the reduced benchmark in this process, without a real search."""
    search_returning(make_row())
    monkeypatch.setattr(gpu, "Worker", InProcessWorker)

    def run(minutes=9.0):
        return gpu.run(
            cells.reduced_plan(), "cpu", out=tmp_path / "out", minutes=minutes, commit="abc"
        )

    return run


def table(tmp_path):
    with (tmp_path / "out" / "gpu.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def readme(tmp_path):
    return (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_the_reduced_form_measures_all_that_a_cpu_can(run_reduced, cells, criteria, tmp_path):
    results = run_reduced()
    planned = [cell for section in cells.settings(results.plan).values() for cell in section]
    assert list(results.outcomes) == planned
    causes = {cell: outcome.cause for cell, outcome in results.outcomes.items() if outcome.cause}
    assert causes == {cell: "needs CUDA" for cell in planned if cell.needs_cuda}
    for cell, outcome in results.outcomes.items():
        if cell.section == "parity":
            assert 0 < outcome.error < outcome.tolerance, cell
        elif not outcome.cause:
            assert outcome.images_per_second > 0, cell
    rows = table(tmp_path)
    assert [row["section"] for row in rows] == [cell.section for cell in planned]
    assert [row["cause"] for row in rows] == [o.cause for o in results.outcomes.values()]
    assert {row["status"] for row in rows if not row["cause"]} == {"measured"}
    for criterion in criteria.CRITERIA:
        (line,) = [
            line for line in readme(tmp_path).splitlines() if line.startswith(f"| {criterion.name}")
        ]
        _, _, limit, value, verdict, _ = (part.strip() for part in line.split("|"))
        assert limit == f"{criterion.bound} {criterion.limit:,g}"
        assert float(value.replace(",", "")) > 0 if value else verdict.startswith("not measured: ")
    assert "| CUDA graphs pay | at least 1.33 |  | not measured: needs CUDA |" in readme(tmp_path)
    assert "commit abc" in readme(tmp_path)


def test_what_no_time_is_left_for_is_listed(run_reduced, gpu, tmp_path):
    results = run_reduced(minutes=0)
    causes = [(cell.needs_cuda, outcome.cause) for cell, outcome in results.outcomes.items()]
    assert set(causes) == {(False, gpu.NO_TIME), (True, "needs CUDA")}
    assert len(table(tmp_path)) == len(causes)
    listed = readme(tmp_path).split("## Cells without a number")[1]
    assert f"- {gpu.NO_TIME}: logits of cmt-ti x 2, fp32, explicit; " in listed
    assert "search with 2 workers" in listed


def test_a_step_that_runs_out_of_memory_is_a_row_with_its_cause(run_reduced, monkeypatch, tmp_path):
    steps = import_module("card.steps")
    real = steps.training_step

    def refuse(setting, device):
        if setting.precision == "fp32":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0")
        return real(setting, device)

    monkeypatch.setattr(steps, "training_step", refuse)
    results = run_reduced()
    cause = "out of memory: CUDA out of memory. Tried to allocate 2.00 GiB."
    for cell, outcome in results.outcomes.items():
        if cell.section == "steps" and not cell.needs_cuda:
            assert outcome.cause == (cause if cell.precision == "fp32" else "")
    rows = [row for row in table(tmp_path) if row["cause"] == cause]
    assert {(row["section"], row["precision"], row["status"]) for row in rows} == {
        ("steps", "fp32", "not measured")
    }
    assert f"not measured: {cause}" in readme(tmp_path)  # in the criterion of bf16 over fp32


def test_a_loss_that_is_not_finite_is_no_speed(cells, monkeypatch):
    steps = import_module("card.steps")
    monkeypatch.setattr(steps, "training_step", lambda *_: lambda: torch.tensor(float("nan")))
    setting = cells.steps_of((cells.reduced_plan().twin, 4))
    assert steps.measure_steps(setting, "cpu", 0.0).cause == "the loss became nan"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_another_network_is_not_within_the_tolerance(cells, monkeypatch, precision):
    parity = import_module("card.parity")
    real = parity.build

    def without_position_bias(*arguments, **options):
        network = real(*arguments, **options)
        network.register_forward_pre_hook(
            lambda model, _: [stage.position_bias.data.zero_() for stage in model.stages] and None
        )
        return network

    setting = next(
        cell
        for cell in cells.settings(cells.reduced_plan())["parity"]
        if cell.quantity == "logits" and cell.precision == precision
    )
    monkeypatch.setattr(parity, "build", without_position_bias)
    outcome = parity.measure_parity(setting, "cpu")
    assert outcome.error > outcome.tolerance


# --- criteria


def invented_outcome(cells, cell):
    """Invented numbers in which every option changes the speed by a different factor."""
    rate = 1000.0
    for is_so, factor in (
        (cell.cuda_graph, 2.0),
        (cell.compiled, 1.5),
        (cell.autotuned, 1.25),
        (cell.precision == "fp32", 0.5),
        (cell.attention == "sdpa", 0.8),
    ):
        rate *= factor if is_so else 1.0
    rate *= {1: 1.0, 2: 1.5, 4: 1.75, 8: 1.25}[cell.processes]
    return cells.Outcome(
        error=1e-6,
        tolerance=1e-5 if cell.precision == "fp32" else 2e-6,
        images_per_second=rate,
        prepare_seconds=25.6,
        peak_share=rate / 20_000,
        seconds=50.0 * cell.processes,
    )


@pytest.fixture
def card_results(cells, criteria):
    plan = cells.full_plan()
    every = [cell for section in cells.settings(plan).values() for cell in section]
    outcomes = {cell: invented_outcome(cells, cell) for cell in every}
    return criteria.Results(plan=plan, outcomes=outcomes, seconds=500.0)


def test_the_criteria_are_the_ratios_that_they_say(criteria, card_results):
    values = {c.name: c.value(card_results) for c in criteria.CRITERIA}
    assert values == pytest.approx(
        {
            "fp32 agrees with the CPU": 0.1,
            "bf16 agrees with the CPU": 0.5,
            "CMT-S uses the card": 0.15,  # compiled, as a CUDA graph: 3000 / 20,000
            "twins train fast": 2000,
            "bf16 is the faster precision": 2.0,
            "auto takes the faster attention": 1.0,
            "CUDA graphs pay": 2.0,
            "compiling pays in a long training": 1.5,
            "compiling pays in a search": 25.6 / (25.6 + 25.6 / 1.5),
            "cuDNN autotuning pays": 1.25,
            "several runs at a time pay": 1.75,
            "a small search is short": 50,
            "the benchmark is short": 500,
        }
    )
    held = {c.name for c in criteria.CRITERIA if c.holds(values[c.name])}
    assert set(values) - held == {"twins train fast", "compiling pays in a search"}


def test_a_criterion_without_its_cells_says_why(cells, criteria, card_results):
    lost = {
        cell: cells.Outcome(cause="out of memory")
        for cell in card_results.outcomes
        if cell.autotuned or cell.section == "search"
    }
    card_results.outcomes.update(lost)
    unmeasured = {}
    for criterion in criteria.CRITERIA:
        try:
            criterion.value(card_results)
        except criteria.UnmeasuredError as error:
            unmeasured[criterion.name] = str(error)
    assert unmeasured == {
        "cuDNN autotuning pays": "out of memory",
        "a small search is short": "out of memory",
    }


def test_criteria_names_and_cells_are_unique(cells, criteria):
    names = [criterion.name for criterion in criteria.CRITERIA]
    assert len(set(names)) == len(names)
    for plan in (cells.full_plan(), cells.reduced_plan()):
        every = [cell for section in cells.settings(plan).values() for cell in section]
        assert len(set(every)) == len(every)


@pytest.mark.parametrize(
    ("card", "bf16", "fp32"),
    [
        ("NVIDIA H100 80GB HBM3", 989, 67),
        ("NVIDIA H100 PCIe", 756, 51),
        ("NVIDIA H200", 989, 67),
        ("NVIDIA A100-SXM4-40GB", 312, 19.5),
        ("NVIDIA A100 80GB PCIe", 312, 19.5),
        ("NVIDIA L4", 121, 30.3),
        ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
        ("Tesla T4", None, 8.1),
        ("Tesla V100-SXM2-16GB", None, 15.7),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None, None),
        ("NVIDIA Z1", None, None),
        ("CPU", None, None),
    ],
)
def test_the_peak_of_an_unknown_card_is_not_known(card, bf16, fp32):
    peak = import_module("card.steps").peak_tflops
    assert (peak(card, "bf16"), peak(card, "fp32")) == (bf16, fp32)


# --- workers and searches that go wrong


def test_a_worker_that_hangs_or_dies_costs_one_cell(cells):
    worker = import_module("card.worker").Worker()
    try:
        worker.ask(time.sleep, 1000)
        assert worker.answer(0.1).cause == "stopped after 0 s"
        worker.ask(os._exit, 3)
        assert worker.answer(200).cause == "the process ended with code 3"
        worker.ask(int, "ten")
        assert worker.answer(200).cause.startswith("ValueError: invalid literal for int()")
        worker.ask(cells.Outcome)
        assert worker.answer(200) == cells.Outcome()
    finally:
        worker.stop()


@pytest.mark.parametrize(
    ("code", "seconds", "cause"),
    [
        ("raise SystemExit('cmtscale: no')", 200, "the search ended with code 1: cmtscale: no"),
        ("import time; time.sleep(1000)", 0.1, "stopped after 0 s"),
    ],
    ids=["it fails", "it hangs"],
)
def test_a_search_that_does_not_end_well_says_why(
    gpu, cells, monkeypatch, tmp_path, code, seconds, cause
):
    monkeypatch.setattr(gpu, "SEARCH", code)
    plan = cells.reduced_plan()
    cell = cells.search_of(plan, 2)
    assert gpu.search(cell, plan, "cpu", tmp_path, seconds).cause == cause


def test_a_search_counts_the_images_of_all_its_runs(
    gpu, cells, search_returning, make_row, tmp_path
):
    search_returning(make_row(seed=0), make_row(seed=1))  # 2 epochs of 1,000 images each
    plan = cells.reduced_plan()
    outcome = gpu.search(cells.search_of(plan, 2), plan, "cpu", tmp_path, 200)
    assert outcome.images_per_second * outcome.seconds == pytest.approx(4000)


def test_a_search_with_a_failed_run_has_no_speed(gpu, cells, search_returning, make_row, tmp_path):
    search_returning(make_row(), make_row(seed=1, status="failed", cause="the worker died"))
    plan = cells.reduced_plan()
    outcome = gpu.search(cells.search_of(plan, 2), plan, "cpu", tmp_path, 200)
    assert outcome == cells.Outcome(cause="1 of 2 runs failed: the worker died")


def test_without_optuna_the_searches_are_not_measured(gpu, cells, monkeypatch):
    monkeypatch.setattr(gpu, "SEARCH_NEEDS", ("json", "no_such_package"))
    plan = cells.reduced_plan()
    searches = cells.settings(plan)["search"]
    outcomes = gpu.measure_searches(searches, time.monotonic() + 200, "cpu", plan)
    assert {outcome.cause for outcome in outcomes.values()} == {"no_such_package is not installed"}


def test_parity_and_steps_need_none_of_the_packages_of_a_search():
    code = (
        "import sys\n"
        "for name in ('fvcore', 'optuna', 'pebble', 'scipy', 'sklearn', 'pandas', 'torchvision'):\n"
        "    sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(COMMAND.parent)!r})\n"
        "import gpu\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)


# --- the command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "there is no CUDA device; use --device cpu --reduced --out DIR"),
        (["--device", "cpu"], "a CPU runs the reduced form only"),
        (["--device", "cpu", "--reduced"], "add --reduced --out DIR"),
    ],
)
def test_without_a_card_the_command_says_what_to_do(gpu, monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
    with pytest.raises(SystemExit) as caught:
        gpu.main()
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_the_folder_is_named_after_the_card(gpu):
    assert gpu.slug("NVIDIA H100 80GB HBM3") == "h100-80gb-hbm3"
    assert gpu.slug("Tesla T4") == "tesla-t4"


@pytest.mark.slow
def test_the_command_measures_all_that_a_cpu_can(tmp_path):
    command = [sys.executable, str(COMMAND), "--device", "cpu", "--reduced"]
    subprocess.run([*command, "--out", str(tmp_path / "out")], check=True, timeout=280)
    causes = {row["cause"] for row in table(tmp_path)}
    assert causes == {"", "needs CUDA"}


@pytest.mark.gpu
def test_the_command_measures_all_on_a_card(tmp_path):
    command = [sys.executable, str(COMMAND), "--reduced", "--out", str(tmp_path / "out")]
    subprocess.run(command, check=True, timeout=280)
    assert {row["cause"] for row in table(tmp_path)} == {""}

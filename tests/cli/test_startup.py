"""What starting loads: nothing heavy before it is needed."""

import json
import resource
import subprocess
import sys

import pytest

HEAVY = {
    "torch", "torchvision", "timm", "optuna", "pandas", "matplotlib", "scipy", "sklearn", "fvcore",
}  # fmt: skip


def loaded(program: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `program`."""
    report = "import json, sys; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    ended = subprocess.run(
        [sys.executable, "-c", f"{program}\n{report}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(json.loads(ended.stdout.splitlines()[-1]))


def test_the_command_line_loads_nothing_heavy() -> None:
    assert not loaded("import cmtscale.cli.app") & HEAVY


def test_the_help_of_a_command_loads_nothing_heavy() -> None:
    assert not loaded("from cmtscale.cli.app import run; run(['search', '--help'])") & HEAVY


@pytest.mark.parametrize(
    "command",
    [
        ["flops", "--no-measure"],
        ["flops", "--no-measure", "--json"],
        ["variants"],
        ["variants", "--json"],
        ["scale", "--budget", "8G"],
        ["scale", "--budget", "8G", "--json"],
        ["search", "--budget", "lots"],
        ["search", "--budget", "4G", "--data", "nonsense"],
        ["train", "--variant", "cmt-ti", "--data", "nonsense", "--out", "x"],
        ["eval", "x", "--data", "nonsense"],
    ],
    ids=" ".join,
)
def test_arithmetic_and_its_mistakes_need_nothing_heavy(command: list[str]) -> None:
    assert not loaded(f"from cmtscale.cli.app import run; run({command!r})") & HEAVY


def test_importing_cmtscale_loads_no_torch_and_counting_needs_none() -> None:
    counting = "cmtscale.cost(cmtscale.solve(cmtscale.variant('cmt-s'), budget_macs=8e9).variant)"
    assert not loaded(f"import cmtscale; {counting}") & HEAVY


def test_drawing_needs_no_torch() -> None:
    modules = loaded("import cmtscale.report.figures")
    assert "matplotlib" in modules
    assert not modules & {"torch", "torchvision", "optuna"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "limit_seconds"),
    [(["--help"], 0.3), (["flops", "--no-measure"], 0.6)],
    ids=["help", "flops"],
)
def test_starting_takes_little_processor_time(arguments: list[str], limit_seconds: float) -> None:
    program = f"from cmtscale.cli.app import main; main({arguments!r})"
    seconds = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < limit_seconds

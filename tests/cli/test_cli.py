"""The command line: what it prints where, and errors as one line with exit code 2."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import cmtscale
from cmtscale.arch.cost import cost
from cmtscale.arch.variant import Variant, variant
from cmtscale.cli.app import app, main, run
from cmtscale.search.ladder import PRESETS, Ladder
from cmtscale.search.outcome import Outcome
from cmtscale.search.request import SearchRequest

COMMANDS = (
    "variants", "flops", "scale", "search", "show", "check", "plot", "train", "eval", "predict",
    "export", "bench", "cache",
)  # fmt: skip
Capture = pytest.CaptureFixture[str]


# --- errors


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("fly", "No such command 'fly' (see cmtscale --help)"),
        ("searh", "No such command 'searh'. Did you mean 'search'? (see cmtscale --help)"),
        ("flops --colour red", "No such option: --colour"),
        ("flops --variant cmt-xl", "variant 'cmt-xl' is not one of cmt-ti, cmt-xs, cmt-s, cmt-b"),
        ("flops --variant nowhere.toml", "nowhere.toml cannot be read: No such file"),
        ("flops --resolution 300", "300 px is not a positive multiple of 32; use 288"),
        ("flops --resolution 320x250", "250"),
        ("flops --resolution big", "'big' is not a size in px; write 320 or 320x256"),
        ("flops --resolution 0", "resolution_px 0 is not a positive whole number"),
        ("flops --phi 1 --alpha 2 --beta 2 --gamma 2", "nearest legal"),
        ("flops --phi nan", "not finite"),
        ("flops --phi one", "--phi 'one' is not a number; use one such as 0.5"),
        ("flops --alpha 1.3", "do nothing without phi"),
        ("flops -v cmt-s@300", "300 px is not a positive multiple of 32; use 288"),
        ("flops -v cmt-s@288 --resolution 320", "has a side; leave @288 or --resolution away"),
        ("flops -v timm:resnet51", "timm has no network 'resnet51'; use timm:resnet51q"),
        ("flops -v timm:rexnt9999", "timm has no network 'rexnt9999'; use timm:rex"),
        ("flops -v timm:resnet50 --phi 1", "timm:resnet50 is no CMT; leave phi, alpha"),
        ("flops -v timm:resnet50 --no-measure", "can only be measured; leave --no-measure away"),
        ("flops -v timm:resnet50 --resolution 224x192", "is counted at square sizes; use 224"),
        ("flops -v timm:resnet50@0", "resolution_px 0 is not a whole number from 1 on"),
        ("scale", "give either --phi or --budget"),
        ("scale --phi 1 --budget 4G", "give either --phi or --budget"),
        ("scale --budget 4GFLOPs", "write 4.0G, 600M or 4e9"),
        ("scale --budget 1k", "1k is 1/638905 of the base cmt-ti (639M)"),
        ("scale --budget 1.5", "did you mean 1.5G?"),
        ("scale --budget 1000G --base cmt-s", "use 129G or less, or a larger --base"),
        ("scale --budget 4G --multiple 0", "multiples of 0; use 2 or 8"),
        ("scale --phi 1 --multiple 8", "--multiple does nothing with --phi"),
        ("scale --phi 1 --save /proc/no/x.toml", ""),
        ("search", "a search needs a budget; use --budget 4.0G, or --from a run folder"),
        ("search --from /nowhere", "/nowhere holds no search; give --from a folder"),
        ("search --from /nowhere --out x", "leave --out away, or leave --from away"),
        ("search --budget lots", "write 4.0G, 600M or 4e9"),
        ("search --budget 4G --data mnist", "is not one of digits"),
        ("search --budget 4G --data /tmp/images", "use folder:/tmp/images"),
        ("search --budget 4G --data folder:/nowhere --dry-run", "/nowhere does not exist"),
        ("search --budget 4G --base cmt-s", "too near to the budget"),
        ("search --budget 4G --sampler cmaes", "--sampler 'cmaes' is not one of 'grid', 'tpe'"),
        ("search --budget 4G --seeds 0", "seeds 0 is not a whole number from 1 on"),
        ("search --budget 4G --seeds 1.5", "--seeds '1.5' is not a whole number; use one"),
        ("search --budget 4G --train-images few", "neither a number nor 'all'"),
        ("search --budget 5M", "scaling reaches a factor of 32"),
        ("search --budget 1.5", "did you mean 1.5G?"),
        ("search --budget 4G --dry-run --json", "a dry run makes none"),
        ("search --budget 4G --ladder steep", "is neither one of flat, quick, standard, thorough"),
        ("search --budget 4G --ladder .", "cannot be read"),
        ("search --budget 4G --spend -1", "spend -1 is out of range; use 0 to 100"),
        ("search --budget 4G --spend nan", "spend nan is out of range"),
        ("search --budget 4G --spend 101", "spend 101 is out of range; use 0 to 100"),
        ("search --budget 4G --spend much", "--spend 'much' is not a number; use one such as"),
        ("search --budget 4G --target-images 0", "target_images 0 is not a whole number from 1"),
        ("search --budget 4G --target-images 1e6", "--target-images '1e6' is not a whole number"),
        (
            "search --budget 4G --ladder quick --target-images 9999999",
            "use 33,939 or fewer, or a ladder with",
        ),
        (
            "search --budget 4G --ladder quick --target-images 9",
            "below the 3,771 that the shortest runs see",
        ),
        ("search --budget 4G --target-epochs 0", "target_epochs 0 is not a whole number from 1"),
        (
            "search --budget 4G --target-epochs 10",
            "runs of one length say nothing of a target of 12,570",
        ),
        ("search --budget 4G --target-epochs 3 --target-images 4000", "drop one of them"),
        ("search --budget 4G --tolerance 0", "tolerance 0.0 is out of range; use a part such as"),
        ("search --budget 4G --tolerance 2", "tolerance 2.0 is out of range"),
        ("search --budget 4G --tolerance nan", "tolerance nan is out of range"),
        ("search --budget 4G --tolerance 1%", "--tolerance '1%' is not a number"),
        ("search --budget 4G --prefer speed", "--prefer 'speed' is not one of 'latency', 'params'"),
        ("search --budget 4G --seeds 101", "seeds 101 is out of range; use 1 to 100"),
        ("train -v cmt-ti --data digits --out x --epochs 0", "epochs 0 is not a whole number"),
        ("train -v cmt-ti --data digits --out x --train-images 0", "train_images 0 is not"),
        ("search --budget 4G --device tpu", "device 'tpu' is not one of"),
        ("search --budget 4G --lr -1", "lr -1.0 is out of range"),
        ("search --budget 4G --batch-size 0", "batch_size 0"),
        ("search --budget 4G --epochs x", "--epochs 'x' is not a whole number; use one such as 3"),
        ("search --budget 4G --epochs 0", "epochs 0 is not a whole number from 1 on"),
        ("search --budget 4G --epochs -1", "epochs -1 is not a whole number from 1 on"),
        ("search --budget 4G --trials 0", "trials 0 is not a whole number from 1 on"),
        ("search --budget 4G --workers 0", "workers 0 is not a whole number from 1 on"),
        ("search --budgt 4G", "No such option: --budgt; did you mean --budget? (see"),
        ("search 4G", "extra argument(s) (4G) (see cmtscale search --help)"),
        ("search --budget 4G --split-seed -1", "split_seed -1"),
        ("search --budget 4G --proxy-macs 9M --no-proxy", "contradict each other"),
        ("search --budget 4G --proxy-macs 1M", "no room to scale"),
        ("search --budget 4G --proxy-macs 4G", "activations an image; use less --proxy-macs"),
        ("show", "FOLDER is missing: The run folder of a search (see cmtscale show"),
        ("show /nowhere", "/nowhere holds no search; name a folder with a request.toml"),
        ("plot", "PATH is missing: A run folder, or a folder of run folders (see cmtscale plot"),
        ("plot /nowhere", "/nowhere does not exist"),
        ("train --variant cmt-ti --data digits", "--out is missing: Folder for the checkpoint"),
        ("train --variant cmt-ti --data digits --out /tmp/x --epochs 0", "epochs 0"),
        ("train --variant cmt-ti --data nothing --out /tmp/x", "is not one of digits"),
        ("train --variant cmt-ti --data digits --out /tmp/x --split-seed -1", "split_seed -1"),
        ("bench", "NETWORKS is missing: Published variants, TOML files, timm:NAME, folders"),
        ("bench cmt-xl", "variant 'cmt-xl' is not one of cmt-ti, cmt-xs, cmt-s, cmt-b"),
        ("bench /tmp", "/tmp holds neither a trained model (model.toml) nor a search's answer"),
        ("bench cmt-ti --batch 1,x", "batch '1,x' is not a list of whole numbers from 1 on; write"),
        ("bench cmt-ti --batch 0", "batch '0' is not a list of whole numbers"),
        ("bench cmt-ti --resolution 320x256", "resolution '320x256' is not a side in px; write"),
        ("bench cmt-ti --resolution 300", "300 px is not a positive multiple of 32; use 288"),
        ("bench cmt-ti@192 --resolution 192", "has a side; leave @192 or --resolution away"),
        ("bench cmt-ti --dtype fp16 --device cpu", "fp16 is measured on GPUs only; use bf16"),
        ("bench cmt-ti --dtype int8", "--dtype 'int8' is not one of 'fp32', 'bf16', 'fp16'"),
        ("bench cmt-ti --backend onnxruntime --dtype bf16", "has neither dtype nor compile"),
        ("bench cmt-ti --backend onnxruntime --device cuda", "measured on the CPU, not on 'cuda'"),
        ("bench cmt-ti --threads 0", "threads 0 is not a whole number from 1 on"),
        ("bench cmt-ti --device tpu", "device 'tpu' is not one of"),
        ("bench cmt-ti --figure x.jpg", "figure x.jpg is of no kind known here; use .png, .svg"),
        ("eval --data digits", "MODEL is missing: Folder of a trained model, or of its training"),
        ("eval /nowhere --data digits", "/nowhere does not exist; give the folder of a trained"),
        ("eval . --data digits", "holds no model.toml; give the folder of a trained model"),
        ("eval /nowhere --data digits --tta rotate", "--tta 'rotate' is not one of"),
        ("cache --cache-dir", "requires an argument (see cmtscale cache --help)"),
    ],
)
def test_a_mistake_is_one_line_on_stderr(
    refusal: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    cache_dir: Path,
    command: str,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CMTSCALE_CACHE", str(cache_dir))
    assert words in refusal(*command.split())
    assert list(tmp_path.iterdir()) == []  # nothing was written


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rungs = ", "ladder.toml is damaged"),
        ("steps = 3", "ladder.toml has steps, which no ladder has; use some of rungs, noise"),
        ("rungs = 9", "rungs 9 is out of range; use 1 to 6"),
        ("rungs = 'two'", "rungs 'two' is not a whole number"),
        ("[ladder]\nrungs = 2", "ladder.toml has ladder, which no ladder has"),
    ],
    ids=["torn", "unknown", "too many", "text", "nested"],
)
def test_a_ladder_file_that_is_none_is_one_line(
    refusal: Callable[..., str], tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "ladder.toml"
    path.write_text(text)
    assert words in refusal("search", "--budget", "4G", "--ladder", str(path))


def test_scale_does_not_overwrite_a_file(
    refusal: Callable[..., str], printed: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    printed("scale", "--phi", "1", "--save", str(path))
    before = path.read_bytes()
    assert f"{path} exists already" in refusal("scale", "--phi", "2", "--save", str(path))
    assert path.read_bytes() == before


def test_version_is_the_package_s(printed: Callable[..., str]) -> None:
    assert printed("--version") == f"cmtscale {cmtscale.__version__}\n"


def test_what_a_search_is_told_of_its_recipe_reaches_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests: list[SearchRequest] = []
    monkeypatch.setattr(
        import_module("cmtscale.search.driver"),  # by attributes, `search` is the function
        "search",
        lambda request, **_: requests.append(request),
    )
    options = ["--epochs", "9", "--train-images", "all", "--batch-size", "8", "--lr", "0.1"]
    options += ["--attention", "explicit"]
    for more in ([], ["--augment"], ["--no-augment"], options):
        assert run(["search", "--budget", "4G", *more]) == 0
    plain = SearchRequest(budget_macs=4_000_000_000)
    assert requests == [
        plain,
        replace(plain, augment=True),
        replace(plain, augment=False),
        replace(plain, epochs=9, train_images="all", batch_size=8, lr=0.1, attention="explicit"),
    ]


def test_a_search_is_repeated_and_extended_from_its_folder(
    monkeypatch: pytest.MonkeyPatch, finished: Outcome, tiny_request: SearchRequest
) -> None:
    requests: list[SearchRequest] = []
    monkeypatch.setattr(
        import_module("cmtscale.search.driver"),
        "search",
        lambda request, **_: requests.append(request),
    )
    folder = str(finished.folder)
    for more in ([], ["--seeds", "3"], ["--sampler", "tpe", "--trials", "30"], ["--epochs", "9"]):
        assert run(["search", "--from", folder, *more]) == 0
    same = requests[0]
    assert same.out == finished.folder
    assert same.recipe == finished.settings.recipe
    assert (same.budget_macs, same.seeds) == (tiny_request.budget_macs, tiny_request.seeds)
    assert run(["search", "--from", folder, "--no-proxy"]) == 0
    no_proxy = requests.pop()
    assert (no_proxy.proxy, no_proxy.proxy_base, no_proxy.proxy_macs) == (False, None, None)
    assert requests[1:] == [
        replace(same, seeds=3),
        replace(same, sampler="tpe", trials=30),
        replace(same, epochs=9),
    ]


def test_what_a_search_is_told_of_its_ladder_and_answer_reaches_the_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, finished: Outcome
) -> None:
    requests: list[SearchRequest] = []
    monkeypatch.setattr(
        import_module("cmtscale.search.driver"),
        "search",
        lambda request, **_: requests.append(request),
    )
    (tmp_path / "mine.toml").write_text("rungs = 4\nspend = 0.2\n")
    mine = Ladder(rungs=4, spend=0.2)
    plain = SearchRequest(budget_macs=4_000_000_000)
    for options, changes in (
        ("--ladder quick", {"ladder": PRESETS["quick"]}),
        (f"--ladder {tmp_path}/mine.toml", {"ladder": mine}),
        (f"--ladder {tmp_path}/mine.toml --spend 0.5", {"ladder": replace(mine, spend=0.5)}),
        ("--spend 0.5", {"ladder": replace(PRESETS["flat"], spend=0.5)}),  # of the tour
        (
            "--data fashion-mnist --spend 0.5",
            {"data": "fashion-mnist", "ladder": replace(PRESETS["standard"], spend=0.5)},
        ),
        ("--target-images 50000", {"target_images": 50_000}),
        ("--target-epochs 2", {"target_epochs": 2}),
        ("--tolerance 0.02 --prefer macs", {"tolerance": 0.02, "prefer": "macs"}),
    ):
        assert run(["search", "--budget", "4G", *options.split()]) == 0
        assert requests.pop() == replace(plain, **changes)
    assert run(["search", "--from", str(finished.folder), "--spend", "0.5"]) == 0
    assert requests.pop().ladder == replace(finished.settings.ladder, spend=0.5)
    assert run(["search", "--from", str(finished.folder), "--ladder", "quick"]) == 0
    assert requests.pop().ladder == PRESETS["quick"]


def test_a_second_ctrl_c_does_not_disturb_the_end() -> None:
    program = """
import atexit, os, signal
from cmtscale.cli import app

def interrupted(*_, **__):
    raise KeyboardInterrupt

atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
app.app = interrupted
app.main(["search"])
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 130
    assert ended.stderr == "cmtscale: stopped; the same command goes on\n"


def test_usage_errors_say_where_help_is(refusal: Callable[..., str]) -> None:
    assert refusal("flops", "--colour", "red").endswith("(see cmtscale flops --help)")


@pytest.mark.parametrize("text", ["", "stages = 3", "name = [", "\x00"], ids=["0", "1", "2", "3"])
def test_a_variant_file_that_is_none_is_named(
    refusal: Callable[..., str], tmp_path: Path, text: str
) -> None:
    (tmp_path / "odd.toml").write_text(text)
    assert str(tmp_path / "odd.toml") in refusal("flops", "-v", str(tmp_path / "odd.toml"))


def test_plotting_a_folder_without_results_says_what_to_run(
    refusal: Callable[..., str], tmp_path: Path
) -> None:
    assert "run `cmtscale search` first" in refusal("plot", str(tmp_path))
    (tmp_path / "trials.csv").write_text("nonsense\n1\n")
    assert "the same search makes it again from runs/" in refusal("plot", str(tmp_path))


@pytest.mark.parametrize(
    ("interrupted", "command", "words"),
    [
        ("cmtscale.arch.variant.published_variants", "variants", "stopped"),
        ("cmtscale.deploy.bench.bench", "bench cmt-ti", "stopped"),
        (
            "cmtscale.model.networks.read_network",
            "train -v cmt-ti --data digits --out nowhere",
            "stopped; the same command goes on",
        ),
    ],
)
def test_ctrl_c_is_exit_code_130_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, interrupted: str, command: str, words: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(interrupted, interrupt)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # this process goes on
    with pytest.raises(SystemExit) as caught:
        main(command.split())
    assert caught.value.code == 130
    assert capsys.readouterr() == ("", f"cmtscale: {words}\n")


@pytest.mark.parametrize("command", ["flops --no-measure --json", "cache --clear"])
def test_a_reader_that_goes_away_gets_no_traceback(tmp_path: Path, command: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", f"from cmtscale.cli.app import main; main({command.split()})"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "CMTSCALE_CACHE": str(tmp_path)},
    )
    assert process.stdout is not None
    process.stdout.close()  # as `| head` does
    process.stdout = None
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 1


# --- help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_for_all_its_options(
    printed: Callable[..., str], command: str
) -> None:
    text = printed(command, "--help")
    assert text.startswith(f"Usage: cmtscale {command}")
    for line in text.splitlines():
        if line.strip().startswith("--"):
            assert len(line.split(maxsplit=1)) == 2


def test_help_lists_every_command_and_is_what_no_argument_prints(
    printed: Callable[..., str],
) -> None:
    assert printed() == printed("--help")
    assert [command.name for command in app.registered_commands] == list(COMMANDS)
    for command in COMMANDS:
        assert f"\n  {command} " in printed("--help")


# --- variants, flops, scale


def counted(printed: Callable[..., str], *arguments: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(printed("flops", "--json", *arguments))
    return content


def test_the_json_of_flops_is_as_others_rely_on(printed: Callable[..., str]) -> None:
    content = counted(printed, "--variant", "cmt-s", "--no-measure")
    assert list(content) == ["name", "resolution_px", "totals", "parts"]
    assert (content["name"], content["resolution_px"]) == ("cmt-s", 224)
    expected = cost(variant("cmt-s"))
    relied_on = {
        "params": 26_256_160,
        "macs": 4_031_742_464,
        "fvcore_flops": expected.fvcore_flops,
        "activations": expected.activations,
        "paper_formula_macs": expected.paper_formula_macs,
        "measured_macs": None,
        "measured_fvcore_flops": None,
    }
    assert list(content["totals"])[: len(relied_on)] == list(relied_on)
    assert {name: content["totals"][name] for name in relied_on} == relied_on
    for name in ("params", "macs", "fvcore_flops", "activations"):
        assert sum(part[name] for part in content["parts"]) == content["totals"][name]
    assert all(list(part)[:3] == ["name", "params", "macs"] for part in content["parts"])


def test_measured_counts_equal_the_computed_ones(
    printed: Callable[..., str], tmp_path: Path, tiny_base: Variant
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny_base.to_toml())
    totals = counted(printed, "--variant", str(tmp_path / "tiny.toml"))["totals"]
    assert totals["measured_macs"] == totals["macs"] == cost(tiny_base).macs
    assert totals["measured_fvcore_flops"] == totals["fvcore_flops"]


def test_flops_takes_another_resolution_square_or_not(printed: Callable[..., str]) -> None:
    square = counted(printed, "--resolution", "320", "--no-measure")
    assert square["resolution_px"] == 320
    wide = counted(printed, "--resolution", "320x256", "--no-measure")
    assert wide["resolution_px"] == [320, 256]
    macs = [content["totals"]["macs"] for content in (square, wide)]
    built = counted(printed, "--no-measure")["totals"]["macs"]
    assert macs[0] > macs[1] > built
    # the position bias is laid out for the square input, and for the built one otherwise
    assert square["totals"]["params"] > wide["totals"]["params"]


def test_a_side_may_be_written_behind_the_variant(printed: Callable[..., str]) -> None:
    written = printed("flops", "-v", "cmt-ti@192", "--json", "--no-measure")
    asked = printed("flops", "-v", "cmt-ti", "--resolution", "192", "--json", "--no-measure")
    assert written == asked


def test_a_timm_network_is_counted_by_operator(printed: Callable[..., str]) -> None:
    content = counted(printed, "--variant", "timm:resnet18", "--resolution", "128")
    assert content["name"] == "timm:resnet18"
    assert content["resolution_px"] == 128
    totals = content["totals"]
    assert totals["params"] == 11_689_512
    assert totals["conv"] + totals["linear"] + totals["matmul"] == totals["macs"]
    assert sum(content["operators"].values()) == totals["macs"]
    assert content["uncounted"] == []
    text = printed("flops", "--variant", "timm:resnet18@128")
    assert f"{totals['macs']:,}" in text
    assert "max_pool2d_with_indices" in text


def test_a_product_that_torch_does_not_count_is_pointed_out(
    printed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cmtscale.model import networks
    from cmtscale.model.operators import OperatorCounts

    counts = OperatorCounts(macs={"addmm": 10}, negligible={}, uncounted=("_cdist_forward",))
    monkeypatch.setattr(networks, "count_operators", lambda *_: counts)
    text = printed("flops", "--variant", "timm:resnet18@32")
    assert "Not counted, and perhaps not small: _cdist_forward. The total may be too low." in text


def test_the_table_of_flops_has_the_totals(printed: Callable[..., str]) -> None:
    text = printed("flops", "--no-measure")
    assert "4,031,742,464" in text
    assert "26,256,160" in text
    assert "The paper prints 25.14 M params, 4.04 G FLOPs." in text


def test_one_compound_step_is_scaled_before_it_is_counted(printed: Callable[..., str]) -> None:
    content = counted(printed, "--variant", "cmt-s", "--phi", "1", "--no-measure")
    assert content["name"] == "cmt-s-phi+1"
    assert 2.3 < content["totals"]["macs"] / 4_031_742_464 < 2.8


def test_a_scaled_variant_is_saved_and_counted_again(
    printed: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    text = printed("scale", "--base", "cmt-ti", "--budget", "2.0G", "--save", str(path))
    content = counted(printed, "--variant", str(path), "--no-measure")
    assert content["name"] == "mine"
    assert abs(content["totals"]["macs"] / 2e9 - 1) <= 0.02
    assert f"{content['totals']['macs']:,} MACs" in text


def test_scaling_by_no_steps_gives_the_base_back(
    printed: Callable[..., str], tmp_path: Path
) -> None:
    printed("scale", "--base", "cmt-b", "--phi", "0", "--save", str(tmp_path / "b.toml"))
    assert variant(tmp_path / "b.toml").same_network(variant("cmt-b"))


# --- search, plot, train, cache


@pytest.mark.usefixtures("single_threaded")
def test_a_dry_run_shows_the_plan_on_stderr_and_writes_nothing(
    capsys: Capture, tmp_path: Path, tiny_base: Variant, cache_dir: Path
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny_base.to_toml())
    arguments = ["--budget", "1.22M", "--base", str(tmp_path / "tiny.toml"), "--no-proxy"]
    arguments += ["--cache-dir", str(cache_dir), "--out", str(tmp_path / "out"), "--dry-run"]
    assert run(["search", *arguments]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert "A tour" in output.err
    assert "G = 10⁹" in output.err
    assert "from now" in output.err
    for name in ("d1.1.1.1-w4-r64", "d4.3.3.3-w4-r64", "d1.1.1.1-w6-r64", "d1.1.1.1-w4-r96"):
        assert f"\n{name} " in output.err
    assert "warning" not in output.err
    assert not (tmp_path / "out").exists()


def test_plot_prints_the_files_it_wrote(
    finished: Outcome, printed: Callable[..., str], tmp_path: Path
) -> None:
    text = printed("plot", str(finished.folder), "--out", str(tmp_path / "figures"))
    files = [Path(line) for line in text.splitlines()]
    assert {file.suffix for file in files} == {".png", ".svg"}
    assert {"ablation", "triangle", "learning-curves"} <= {file.stem for file in files}
    assert sorted(files) == sorted((tmp_path / "figures").iterdir())


@pytest.mark.usefixtures("single_threaded")
def test_train_ends_with_a_result_and_the_same_command_finds_it_again(
    printed: Callable[..., str],
    refusal: Callable[..., str],
    capsys: Capture,
    tmp_path: Path,
    tiny_base: Variant,
    cache_dir: Path,
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny_base.to_toml())
    command = ["train", "-v", str(tmp_path / "tiny.toml"), "--data", "digits", "--epochs", "1"]
    command += ["--train-images", "64", "--batch-size", "32", "--device", "cpu"]
    command += ["--out", str(tmp_path / "out"), "--cache-dir", str(cache_dir)]
    assert run(command) == 0
    first, log = capsys.readouterr()
    assert first.startswith("validation accuracy ")
    assert "test accuracy" not in first
    assert "digits: 1,257 train, 270 val, 270 test images of 8 px" in log
    assert re.search(r"1 epoch of 64 images in batches of 32; about \d+ s from now", log)
    assert re.search(r"step 2 .*validation loss \S+ .*accuracy", log)
    assert f"longer: cmtscale train --variant {tmp_path}/tiny.toml --data digits" in first
    metrics = (tmp_path / "out" / "metrics.jsonl").read_bytes()
    assert printed(*command) == first
    assert (tmp_path / "out" / "metrics.jsonl").read_bytes() == metrics
    assert "holds another training" in refusal(*command, "--seed", "1")
    assert "holds another training (its data differs)" in refusal(*command, "--split-seed", "1")
    tested = printed(*command, "--test")
    assert re.search(r"test accuracy \d+\.\d\d %;", tested)
    assert len((tmp_path / "out" / "test_reads.csv").read_text().splitlines()) == 2
    image = tmp_path / "image.png"
    Image.new("L", (8, 8)).save(image)
    model = str(tmp_path / "out" / "model")
    assert re.fullmatch(
        rf"{image}: (\d \d+\.\d %(, )?){{3}}\n",
        printed("predict", model, str(image), "--top", "3", "--device", "cpu"),
    )
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert run(["predict", model, str(tmp_path), "--json", "--top", "10"]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert first["image"] == str(broken)
    assert "is no image" in first["error"]
    assert sum(second["classes"].values()) == pytest.approx(1)


def test_the_cache_is_shown_and_cleared(printed: Callable[..., str], tmp_path: Path) -> None:
    from cmtscale.data.sources import open_source

    command = ["cache", "--cache-dir", str(tmp_path / "cache")]
    assert printed(*command).split()[-2:] == ["total", "0.0"]
    open_source("digits", cache_dir=tmp_path / "cache").pack(32)
    assert "digits" in printed(*command)
    assert printed(*command, "--clear").startswith("freed 0.1 MB in")
    assert printed(*command).split()[-2:] == ["total", "0.0"]

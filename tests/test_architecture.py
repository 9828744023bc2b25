"""Imports point one way, and public names are pinned."""

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cmtscale

PACKAGE = Path(cmtscale.__file__).parent
# cli → {search, report, deploy} → train → {model, data} → arch; all above may import record → arch
MAY_IMPORT = {
    "arch": set(),
    "record": {"arch"},
    "model": {"record", "arch"},
    "data": {"record", "arch"},
    "train": {"model", "data", "record", "arch"},
    "deploy": {"train", "model", "data", "record", "arch"},
    "search": {"train", "model", "data", "record", "arch"},
    "report": {"record", "arch"},
    "cli": {"search", "report", "deploy", "train", "model", "data", "record", "arch"},
}
PUBLIC = [
    "CmtscaleError", "Cost", "Ladder", "Scaling", "SearchRequest", "Shares", "Solution", "Stage",
    "Variant", "build", "cost", "load_model", "load_published", "load_results", "scale", "search",
    "solve", "train_winner", "variant",
]  # fmt: skip


def folders() -> list[str]:
    return sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())


def imports(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """Dotted names that a file imports; `from a import b` gives both `a` and `a.b`."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def folder_imports(folder: str) -> Iterator[tuple[Path, str]]:
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        yield from ((path, name) for name in imports(path))


def test_every_folder_has_its_place() -> None:
    assert set(folders()) == set(MAY_IMPORT)


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_imports_point_one_way(folder: str) -> None:
    for path, name in folder_imports(folder):
        package, *rest = name.split(".")
        if package != "cmtscale":
            continue
        allowed = {*MAY_IMPORT[folder], folder}
        assert rest, f"{path.relative_to(PACKAGE)} imports the whole package"
        assert rest[0] in allowed, f"{path.relative_to(PACKAGE)} imports {name}"


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("arch", {"numpy", "tomli_w"}),
        ("record", {"numpy", "filelock", "safetensors", "tomli_w"}),
        ("model", {"torch", "fvcore", "numpy", "safetensors", "timm"}),
        (
            "data",
            {"torch", "torchvision", "timm", "numpy", "PIL", "sklearn", "filelock", "platformdirs"},
        ),
        ("train", {"torch", "timm", "numpy", "scipy", "joblib", "PIL", "tomli_w"}),
        ("deploy", {"torch", "numpy", "PIL", "onnx", "onnxruntime", "onnxscript"}),
        ("report", {"numpy", "pandas", "matplotlib", "mpltern", "scipy"}),
        ("cli", {"typer", "rich", "pydantic"}),
    ],
)
def test_a_folder_uses_only_its_own_libraries(folder: str, allowed: set[str]) -> None:
    used = {name.split(".")[0] for _, name in folder_imports(folder)}
    assert used - sys.stdlib_module_names - {"cmtscale"} <= allowed


def test_the_timm_models_need_timm_and_the_network_alone() -> None:
    used = {tuple(name.split(".")) for name in imports(PACKAGE / "timm.py")}
    assert {name[0] for name in used} - sys.stdlib_module_names == {"timm", "torch", "cmtscale"}
    assert {name[1] for name in used if name[0] == "cmtscale"} == {"arch", "model"}


def test_commands_import_nothing_heavy_at_module_level() -> None:
    # views and the text they share are imported only when their command is called
    for path in sorted((PACKAGE / "cli").glob("*.py")):
        if path.stem.endswith(("_view", "_words", "_short", "_full")):
            continue
        for name in imports(path, top_level=True):
            top = name.split(".")
            light = top[0] in sys.stdlib_module_names or top[0] in ("typer", "rich", "pydantic")
            assert light or top[:2] in (["cmtscale", "cli"], ["cmtscale", "arch"]), (path, name)


def test_public_names_are_pinned_and_exist() -> None:
    assert cmtscale.__all__ == PUBLIC
    assert set(dir(cmtscale)) == {*PUBLIC, "__version__"}
    for name in PUBLIC:
        assert getattr(cmtscale, name) is not None


def test_the_search_function_keeps_its_name_beside_the_folder_of_the_same_name() -> None:
    import cmtscale.search.driver

    assert callable(cmtscale.search)


def test_every_module_says_what_it_is_for() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_scripts_beside_the_package_import_what_there_is() -> None:
    root = PACKAGE.parent
    scripts = [*sorted(root.glob("results/*/*.py")), *sorted(root.glob("benchmarks/*.py"))]
    assert scripts
    missing = [
        (path.relative_to(root), name)
        for path in scripts
        for name in imports(path)
        if name.startswith("cmtscale") and not resolves(name)
    ]
    assert missing == []


def resolves(name: str) -> bool:
    """Whether there is a module of this name, or something of this name in a module."""
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return bool(module) and hasattr(importlib.import_module(module), attribute)
    return True

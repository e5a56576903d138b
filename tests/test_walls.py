"""The house's rules that a reader relies on: who may import whom, short files, everything public explained."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {"train", "re-train", "test"}
PACKAGES = ("utils", "models", "dataloaders", "envs")
MAY_IMPORT = {
    "utils": {"utils"},
    "models": {"models", "utils"},
    "dataloaders": {"dataloaders", "utils"},
    "envs": {"envs", "models", "dataloaders", "utils"},
}
MAX_LINES = 450

FunctionDef = ast.FunctionDef | ast.AsyncFunctionDef


def python_files() -> list[Path]:
    """The scripts, and every Python file of the packages, the tests and whatever else stands beside them."""
    visible = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
    ours = [folder for folder in visible if folder.name != "runs" and not (folder / "pyvenv.cfg").exists()]
    return sorted([*ROOT.glob("*.py"), *(path for folder in ours for path in folder.rglob("*.py"))])


def module_name(path: Path) -> str:
    """`envs/run.py` -> `envs.run`, `utils/__init__.py` -> `utils`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(path): path for path in python_files()}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
PUBLIC = sorted(name for name in FILES if not name.startswith("tests"))


def imports(name: str) -> set[str]:
    """The modules, absolute names, that a module imports anywhere in its file."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= imported_from(name, node)
    return found


def imported_from(name: str, node: ast.ImportFrom) -> set[str]:
    """`from a.b import c` is an import of `a.b`, or of `a.b.c` where that is a module of ours."""
    source = node.module or ""
    if node.level:
        package = name.split(".") if FILES[name].name == "__init__.py" else name.split(".")[:-1]
        source = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
    return {f"{source}.{alias.name}" if f"{source}.{alias.name}" in FILES else source for alias in node.names}


def test_the_files_are_found() -> None:
    assert {"train", "re-train", "test", "tests.test_walls", *PACKAGES} <= FILES.keys()
    assert {"envs.evaluation", "utils.errors"} <= imports("test")
    assert "models.policy" in imports("models.multitask")


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_down_only(package: str) -> None:
    ours = {*PACKAGES, *SCRIPTS, "tests"}
    for name in FILES:
        if name.split(".")[0] == package:
            imported = {module.split(".")[0] for module in imports(name)} & ours
            assert imported <= MAY_IMPORT[package], name


def test_nobody_imports_the_scripts() -> None:
    importing = {name: imports(name) & SCRIPTS for name in FILES}
    assert not {name: scripts for name, scripts in importing.items() if scripts}


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {name: imports(name) & FILES.keys() for name in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("name", FILES)
def test_files_are_short(name: str) -> None:
    num_lines = len(FILES[name].read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_LINES, f"{name} has {num_lines} lines"


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_is_explained(name: str) -> None:
    assert not list(unexplained(name))


def unexplained(name: str) -> Iterator[str]:
    """What lacks a docstring: the module, its public classes and functions, and the methods of such classes.

    A method explained where a base class introduces it needs no second explanation.
    """
    tree = TREES[name]
    if not ast.get_docstring(tree):
        yield name
    for node in public(tree):
        if not ast.get_docstring(node):
            yield f"{name}.{node.name}"
        if isinstance(node, ast.ClassDef):
            inherited = explained_by_bases(name, node)
            for method in public(node):
                if not ast.get_docstring(method) and method.name not in inherited:
                    yield f"{name}.{node.name}.{method.name}"


def public(node: ast.Module | ast.ClassDef) -> Iterator[ast.ClassDef | FunctionDef]:
    """The classes and functions that stand directly in a module or class and are not for its own use."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | FunctionDef) and not child.name.startswith("_"):
            yield child


def explained_by_bases(name: str, class_node: ast.ClassDef) -> set[str]:
    """Names of methods with a docstring in the base classes of the same module, directly or further up."""
    classes = {node.name: node for node in TREES[name].body if isinstance(node, ast.ClassDef)}
    explained = set()
    for base in class_node.bases:
        base_node = classes.get(ast.unparse(base))
        if base_node:
            explained |= {method.name for method in public(base_node) if ast.get_docstring(method)}
            explained |= explained_by_bases(name, base_node)
    return explained

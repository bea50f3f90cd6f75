"""Rules that a reader of the source can rely on."""

import ast
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import modified_lisa

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(REPOSITORY / "src").rglob("*.py"), *(REPOSITORY / "scripts").rglob("*.py")])
LONGEST = 350


def nodes() -> Iterator[tuple[str, ast.AST]]:
    """(file:line, node) of all sources."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield f"{path.relative_to(REPOSITORY)}:{getattr(node, 'lineno', 0)}", node


def calls() -> Iterator[tuple[str, str, dict[str | None, str]]]:
    """(file:line, name as written, keyword arguments as written) of all calls."""
    for place, node in nodes():
        if isinstance(node, ast.Call):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            yield place, ast.unparse(node.func), given


def test_no_device_is_hard_wired():
    found = [place for place, name, _ in calls() if name.endswith(".cuda")]
    assert not found, f"use .to(device): {found}"


def test_nothing_unsafe_is_unpickled():
    """A checkpoint from elsewhere must not be able to run code."""
    found = [
        f"{place}: {name}"
        for place, name, given in calls()
        if name in ("pickle.load", "pickle.loads", "joblib.load")
        or given.get("allow_pickle", "False") != "False"
        or given.get("weights_only", "True") != "True"
        or (name == "torch.load" and "weights_only" not in given)
    ]
    assert not found, "\n".join(found)


def test_no_error_is_swallowed():
    """No bare except, and nothing that catches everything and does nothing."""
    found = []
    for place, node in nodes():
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            idle = all(isinstance(inner, ast.Pass) for inner in node.body)
            if caught == "everything" or (idle and caught in ("Exception", "BaseException")):
                found.append(f"{place}: except {caught}")
    assert not found, "\n".join(found)


def test_no_assert_checks_what_a_user_gives():
    """``python -O`` drops asserts, and their message helps nobody: raise an error of the package.

    ``assert x is not None`` tells the type checker what the code before made sure of; it may stay.
    """
    found = [
        f"{place}: {ast.unparse(node)}"
        for place, node in nodes()
        if isinstance(node, ast.Assert) and not ast.unparse(node.test).endswith(" is not None")
    ]
    assert not found, "\n".join(found)


def test_files_are_short():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    found = [f"{path}: {lines} lines" for path, lines in lengths.items() if lines > LONGEST]
    assert not found, "\n".join(found)


def test_modules_and_public_names_say_what_they_are():
    """A function of a single statement may speak for itself."""
    found = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            found.append(f"{path}: the module")
        public: set[str] = set()
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                public |= set(ast.literal_eval(node.value))
        for node in tree.body:
            named = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in public
            plain = isinstance(node, ast.FunctionDef) and len(node.body) == 1
            if named and not plain and not ast.get_docstring(node):
                found.append(f"{path}:{node.lineno}: {node.name}")
    assert not found, "without a docstring:\n" + "\n".join(found)


def tracked_files() -> list[Path]:
    """What git would commit."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [REPOSITORY / name for name in listed.stdout.split("\0") if name]


def test_no_committed_file_names_a_path_of_one_machine():
    # Put together here, so that this file does not match itself.
    folders = "|".join("/" + name for name in ("work", "root", "home", "Users"))
    pattern = re.compile(rf"(?<![\w.)\]}}/:-])(?:{folders})/[\w.-]+")
    assert pattern.search("see " + folders.split("|")[0] + "/here")
    found = []
    for path in tracked_files():
        if not path.is_file() or path.stat().st_size > 2**20:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if match := pattern.search(line):
                found.append(f"{path.relative_to(REPOSITORY)}:{number}: {match.group()}")
    assert not found, "\n".join(found)


def test_the_version_is_one():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert project["version"] == modified_lisa.__version__
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == modified_lisa.__version__
    assert f"## {modified_lisa.__version__}" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_works_it_is_built_on_are_cited():
    citation = (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    for number in ("2308.00692", "2304.08485", "2310.03744", "2304.02643"):  # LISA, LLaVA, LLaVA-1.5, SAM
        assert f"10.48550/arXiv.{number}" in citation


def test_continuous_integration_runs_make_test():
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8")

"""Imports point down, heavy libraries stay where they belong, and importing the package stays cheap."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import modified_lisa

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "src" / "modified_lisa"

# From the ground up. A module may import its own unit and the units of lower rows, nothing else.
LAYERS = [
    ["errors"],
    ["files"],
    ["prompts"],
    ["templates"],
    ["config"],
    ["images"],
    ["devices", "resize_kernels"],
    ["resize"],
    ["geometry"],
    ["losses", "metrics", "tokens"],
    ["scoring"],
    ["model"],
    ["data"],
    ["inference", "benchmark.measure"],
    ["pictures"],
    ["reports"],
    ["protocols"],
    ["company"],
    ["evaluation"],
    ["calibrating"],
    ["training"],
    ["benchmark"],
    ["apps"],
]
# Where a library may be imported. Those not named here may be used anywhere above the rows without libraries.
HOMES = {
    "transformers": ["model", "tokens"],
    "peft": ["model"],
    "bitsandbytes": ["model"],
    "triton": ["model", "resize_kernels"],
    "safetensors": ["model"],
    "accelerate": ["training", "evaluation", "company"],
    "matplotlib": ["pictures", "reports", "training", "benchmark"],
    "cv2": ["data", "inference"],
    "pycocotools": ["data", "inference"],
    "jinja2": ["reports"],
    "gradio": ["apps"],
    "fastapi": ["apps"],
    # Their wheels do not go with every build of torch, and what they do would depend on their being there.
    "torchvision": [],
    "timm": [],
}
ONLY = {
    "errors": [],
    "files": [],
    "config": [],
    "prompts": [],
    "templates": [],
    "training.arguments": [],
    "benchmark.arguments": [],
    "apps.chat_arguments": [],
    "apps.evaluate_arguments": [],
    "apps.cli": [],
    "images": ["numpy", "PIL"],
    "resize": ["torch", "numpy"],
    "geometry": ["torch", "numpy"],
    "losses": ["torch", "numpy"],
    "metrics": ["torch", "numpy"],
    "scoring": ["numpy"],
    "benchmark.measure": ["torch", "psutil"],
    "benchmark": ["torch", "numpy", "psutil", "matplotlib", "tqdm"],
}
# Imported here, but declared by what brings them; and declared here, but imported by another library.
INDIRECT = {
    "psutil": "accelerate",
    "tokenizers": "transformers",
    "triton": "torch",  # where it is built for CUDA
}
ON_DEMAND = {"tensorboard": "accelerate, for --log_with", "bitsandbytes": "transformers, for 4 bit"}
LIGHT = [
    "modified_lisa",
    "modified_lisa.config",
    "modified_lisa.errors",
    "modified_lisa.training.arguments",
    "modified_lisa.benchmark.arguments",
    "modified_lisa.training.distillation.settings",
]
HEAVY = ["torch", "transformers", "accelerate", "numpy", "cv2", "PIL", "matplotlib", "peft", "bitsandbytes"]


def unit(module: str) -> str:
    """The top name; but what everything measures with lies below what measures everything."""
    measure = "benchmark.measure"
    return measure if module == measure or module.startswith(f"{measure}.") else module.split(".")[0]


def modules() -> Iterator[tuple[str, Path]]:
    """(name below modified_lisa, file); the package itself is left out."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:
            yield name, path


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of each import, lazy ones too; not those for type checkers alone."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno
        pending.extend(ast.iter_child_nodes(node))


def libraries(path: Path) -> set[str]:
    """Top names of what a file imports from outside the standard library and the package."""
    known = {*sys.stdlib_module_names, "modified_lisa"}
    return {name.split(".")[0] for name, _ in imports(path)} - known


def test_every_unit_has_a_place():
    assert {unit(name) for name, _ in modules()} == {name for row in LAYERS for name in row}


def test_imports_point_down():
    rank = {unit: row for row, units in enumerate(LAYERS) for unit in units}
    wrong = []
    for name, path in modules():
        for imported, line in imports(path):
            head, _, rest = imported.partition(".")
            target = unit(rest)
            if head != "modified_lisa" or target == unit(name) or target not in rank:
                continue  # not ours, its own unit, or a public name of the package (see the next test)
            if rank[target] >= rank[unit(name)]:
                wrong.append(f"{path}:{line}: {name} may not import {imported}")
    assert not wrong, "\n".join(wrong)


def test_modules_do_not_import_the_public_names():
    """They are for users; inside the package a name comes from where it lives."""
    public = {f"modified_lisa.{name}" for name in modified_lisa.__all__ if name != "__version__"}
    wrong = [
        f"{path}:{line}: {imported}"
        for _, path in modules()
        for imported, line in imports(path)
        if imported in public
    ]
    assert not wrong, "\n".join(wrong)


def test_libraries_stay_where_they_belong():
    wrong = []
    for name, path in modules():
        used = libraries(path)
        wrong += [
            f"{path}: {library} belongs into {HOMES[library] or 'no module'}"
            for library in sorted(used & HOMES.keys())
            if unit(name) not in HOMES[library]
        ]
        for module, allowed in ONLY.items():
            if name == module or name.startswith(f"{module}."):
                wrong += [f"{path}: {extra}; only {allowed} here" for extra in sorted(used - set(allowed))]
    assert not wrong, "\n".join(wrong)


def test_every_library_is_declared_and_every_declared_one_is_used():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    top = {"opencv-python-headless": "cv2", "pillow": "PIL", "pytest-xdist": "xdist"}

    def names(requirements: list[str]) -> set[str]:
        plain = {requirement.split(">")[0].split("=")[0].strip() for requirement in requirements}
        return {top.get(name, name) for name in plain}

    ours = [*PACKAGE.rglob("*.py"), *(REPOSITORY / "scripts").glob("*.py")]
    scripts = {
        path.stem for path in (REPOSITORY / "scripts").rglob("*.py")
    }  # they import one another by name
    used = set().union(*map(libraries, ours)) - scripts
    required = names(project["dependencies"])
    extras = {name: names(entries) for name, entries in project.get("optional-dependencies", {}).items()}
    optional = set().union(*(extras[name] for name in extras if name != "dev"))
    brought = {library for library, by in INDIRECT.items() if by in required}
    assert used - required - optional - brought == set(), "imported, but not declared"
    assert required - used - ON_DEMAND.keys() == set(), "declared, but not imported"

    tested = set().union(*(libraries(path) for path in (REPOSITORY / "tests").rglob("*.py")))
    tools = {"ruff", "mypy", "xdist"}  # run, not imported
    assert extras["dev"] - tools <= tested


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", LIGHT)
def test_importing_it_loads_nothing_heavy(module):
    loaded = run(f"import sys, {module}; print(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["segment"],
        ["chat"],
        ["evaluate"],
        ["merge-results"],
        ["scenes"],
        ["train"],
        ["import-lisa"],
        ["benchmark"],
    ],
    ids=" ".join,
)
def test_help_loads_nothing_heavy(command):
    output = run(
        "import sys\n"
        "from modified_lisa.apps.cli import main\n"
        "try:\n"
        f"    main({[*command, '--help']!r})\n"
        "finally:\n"
        "    print('LOADED', *sys.modules)\n"
    )
    usage, _, loaded = output.partition("LOADED")
    assert usage.startswith("usage: modified-lisa")
    assert not set(HEAVY) & set(loaded.split())


def test_public_names():
    assert {"ModifiedLISA", "Segmenter", "Segmentation", "ModelConfig"} <= set(modified_lisa.__all__)
    assert set(modified_lisa.__all__) <= set(dir(modified_lisa))
    for name in modified_lisa.__all__:
        value = getattr(modified_lisa, name)
        assert name == "__version__" or value.__name__ == name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = modified_lisa.no_such_name


def test_type_checkers_see_the_public_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    guarded = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name
        for node in guarded
        for inner in node.body
        if isinstance(inner, ast.ImportFrom)
        for alias in inner.names
    }
    assert seen | {"__version__"} == set(modified_lisa.__all__)

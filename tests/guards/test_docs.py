"""The documentation cannot go stale unnoticed: tables, commands, links, paths, names and code in it are checked.

``python tests/guards/test_docs.py`` rewrites the tables of docs/arguments.md from the parsers.
"""

import argparse
import functools
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modified_lisa.apps.cli import build_parser
from modified_lisa.training.arguments import build_parser as build_training_parser

REPOSITORY = Path(__file__).resolve().parents[2]
ARGUMENTS = REPOSITORY / "docs" / "arguments.md"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
COMMANDS = (
    "train",
    "evaluate",
    "calibrate",
    "merge-results",
    "segment",
    "chat",
    "scenes",
    "import-lisa",
    "benchmark",
    "distill",
)
TABLE = re.compile(r"(<!-- table: ([\w-]+), ([\w -]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """(page:line, text) of the fenced blocks in a language."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match[2] == language:
                indent = len(match[1])
                lines = (line[indent:] for line in match[3].splitlines())
                yield f"{page.name}:{text.count(chr(10), 0, match.start()) + 1}", "\n".join(lines)


# ------------------------------------------------------------------------------------------- arguments


def command_parser(command: str) -> argparse.ArgumentParser:
    """The parser of one subcommand of ``modified-lisa``."""
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return commands.choices[command]


def row(action: argparse.Action) -> str:
    """One line of a table, as the parser has it."""
    takes = getattr(action.type, "__name__", "str").lstrip("_")
    kind = {"bridge_layers": "int,int,...", "json_path": "path", "names": "str,str,..."}.get(takes, takes)
    if action.nargs == 0:
        kind, default = "flag", "off"
    else:
        if action.choices:
            kind = " ".join(f"`{choice}`" for choice in action.choices)
        if action.nargs == "?":
            kind = "path, or nothing"
        # What a parser leaves to the command, its help says.
        said = re.search(r" \(default: ([^)]*)\)", str(action.help))
        default = (said[1] if said else "none") if action.default is None else f"`{action.default}`"
    name = ", ".join(f"`{flag}`" for flag in action.option_strings) or f"`{action.metavar}`"
    if not action.option_strings:
        default = "has to be given"
    meaning = re.sub(r" \(default: [^)]*\)", "", str(action.help))
    return f"| {name} | {kind} | {default} | {meaning[0].upper()}{meaning[1:]} |"


def tables() -> dict[tuple[str, str], str]:
    """(command, group) -> its table."""
    found = {}
    for command in COMMANDS:
        for group in command_parser(command)._action_groups:
            rows = [row(action) for action in group._group_actions if action.dest != "help"]
            if rows:
                head = ["| argument | type | default | meaning |", "| --- | --- | --- | --- |"]
                found[command, str(group.title)] = "\n".join([*head, *rows]) + "\n"
    return found


def with_tables(text: str) -> str:
    """The page with its tables as they should be."""
    made = tables()
    return TABLE.sub(lambda m: m[1] + made.get((m[2], m[3]), "no such group\n") + m[5], text)


def test_tables_of_arguments_are_those_of_the_parsers() -> None:
    text = ARGUMENTS.read_text(encoding="utf-8")
    shown = {(match[2], match[3]) for match in TABLE.finditer(text)}
    assert shown == set(tables())
    assert text == with_tables(text), "docs/arguments.md is stale: run python tests/guards/test_docs.py"


def test_both_training_programs_have_the_same_arguments() -> None:
    def flags(parser: argparse.ArgumentParser) -> list[tuple[Any, ...]]:
        return [(a.option_strings, a.default, a.type, a.nargs, a.help) for a in parser._actions]

    assert flags(build_training_parser()) == flags(command_parser("train"))


# -------------------------------------------------------------------------------------------- commands


def commands() -> Iterator[tuple[str, list[str]]]:
    """(place, words) of every command in a bash block that starts one of our programs."""
    for place, text in blocks("bash"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "..." not in words and any(
                Path(word).name in ("train_new2.py", "modified-lisa") for word in words
            ):
                yield place, words


@pytest.mark.parametrize(("place", "words"), list(commands()))
def test_commands_parse(place: str, words: list[str]) -> None:
    names = [Path(word).name for word in words]
    training = "train_new2.py" in names
    parser = build_training_parser() if training else build_parser()
    given = words[names.index("train_new2.py" if training else "modified-lisa") + 1 :]
    try:
        parser.parse_args(given)
    except SystemExit as end:
        if end.code:
            pytest.fail(f"{place}: {shlex.join(words)}")


def test_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"`make (?:\w+=\S+ )*([a-z]+)`", page.read_text(encoding="utf-8")):
            assert target in targets, f"{page.name}: make {target}"


def test_python_compiles() -> None:
    for place, text in blocks("python"):
        try:
            compile(text, place, "exec")
        except SyntaxError as error:
            pytest.fail(f"{place}: {error}")


# ------------------------------------------------------------------------------------- links and names


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def test_links_lead_somewhere() -> None:
    wrong = []
    for page in PAGES:
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"", text):
            link, _, anchor = (target[0] or target[1]).partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            file = page.parent / link if link else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                wrong.append(f"{page.name}: {link}#{anchor}")
    assert not wrong, "\n".join(wrong)


def test_every_page_is_on_the_map() -> None:
    index = (REPOSITORY / "docs" / "index.md").read_text(encoding="utf-8")
    missing = [page.name for page in PAGES[1:] if page.name != "index.md" and f"({page.name})" not in index]
    assert not missing


@functools.cache
def names_of_files() -> str:
    """All source files of the repository, each behind a slash, one a line."""
    folders = ("src", "scripts", "tests", "docs", "benchmarks")
    files = (file for folder in folders for file in (REPOSITORY / folder).rglob("*") if file.is_file())
    return "\n".join("/" + file.relative_to(REPOSITORY).as_posix() for file in files) + "\n"


def test_paths_exist() -> None:
    wrong = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        paths = re.findall(r"(?<![\w/.-])(?:src|scripts|tests|docs|benchmarks|\.ci)/[\w./-]*\w", text)
        wrong += [f"{page.name}: {path}" for path in paths if not (REPOSITORY / path).exists()]
        scripts = re.findall(r"(?<![\w*./-])[\w/]+\.py\b", text)  # such as losses.py, model/lisa.py
        wrong += [f"{page.name}: {path}" for path in scripts if f"/{path}\n" not in names_of_files()]
    assert not wrong, "\n".join(wrong)


def names_in(text: str) -> set[str]:
    """Dotted names of the package, in prose and in imports."""
    names = set(re.findall(r"\bmodified_lisa(?:\.[A-Za-z_]\w*)+", text))
    for module, imported in re.findall(r"^from (modified_lisa[\w.]*) import (.+)$", text, re.MULTILINE):
        names |= {f"{module}.{name.strip()}" for name in imported.split(",")}
    return names


def test_names_of_the_package_exist() -> None:
    wrong = []
    for page in PAGES:
        for name in sorted(names_in(page.read_text(encoding="utf-8"))):
            try:
                functools.reduce(_look_up, name.split("."), None)
            except (ImportError, AttributeError) as error:
                wrong.append(f"{page.name}: {name}: {error}")
    assert not wrong, "\n".join(wrong)


def _look_up(parent: Any, name: str) -> Any:
    if parent is None or (hasattr(parent, "__path__") and not hasattr(parent, name)):
        return importlib.import_module(name if parent is None else f"{parent.__name__}.{name}")
    return getattr(parent, name)


if __name__ == "__main__":
    ARGUMENTS.write_text(with_tables(ARGUMENTS.read_text(encoding="utf-8")), encoding="utf-8")

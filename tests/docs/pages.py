"""The pages of the documentation: their code blocks, commands, links and prose."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
]
SHELL = ("sh", "bash", "shell", "console")
INLINE = re.compile(r"`((?:scripts/up|(?:\.venv/bin/)?bybit-pipeline|python scripts/) ?[^`]*)`")
PLACEHOLDER = re.compile(
    r"…|\b(FILE|DIR|NAME|SYMBOL|COMMAND|X|N|HOST)\b|CATEGORY:|/path/to|\.\.\.|RECORDING"
)
"""Words that a reader replaces: such a command in running text is a form, not an example."""
LINK = re.compile(r"\]\(([^)#\s]+)?(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced code block: where it begins, its language and its text."""

    page: str
    line: int
    language: str
    text: str


def read(page: str) -> str:
    """The text of a page."""
    return (ROOT / page).read_text("utf-8")


def blocks(page: str) -> Iterator[Block]:
    """The fenced code blocks of a page, those inside list items included."""
    start, language, indent, lines = 0, "", 0, list[str]()
    for number, line in enumerate(read(page).splitlines(), 1):
        if not line.lstrip().startswith("```"):
            lines.append(line[indent:])
        elif start:
            yield Block(page, start, language, "\n".join(lines))
            start = 0
        else:
            start, language = number + 1, line.strip()[3:]
            indent, lines = len(line) - len(line.lstrip()), []
    assert not start, f"{page}:{start}: the block does not end"


def all_blocks(*languages: str) -> list[Block]:
    """The blocks of all pages in one of the given languages."""
    found = itertools.chain.from_iterable(map(blocks, PAGES))
    return [block for block in found if block.language in languages]


def prose(page: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", read(page), flags=re.DOTALL | re.MULTILINE)


def commands(block: Block) -> Iterator[str]:
    """The commands of a block: comments removed, continued lines joined."""
    for line in block.text.replace("\\\n", " ").splitlines():
        command = re.sub(r"(^|\s+)#.*", "", line).strip().removeprefix("$ ")
        if command:
            yield command


def all_commands() -> list[tuple[str, str]]:
    """Every command of every page, each once, with the place where it stands."""
    found: dict[str, str] = {}
    for block in all_blocks(*SHELL):
        for command in commands(block):
            found.setdefault(command, f"{block.page}:{block.line}")
    for page in PAGES:
        for command in INLINE.findall(re.sub(r"\s+", " ", prose(page))):
            if " " in command and not PLACEHOLDER.search(command):
                found.setdefault(command, page)
    return [(place, command) for command, place in found.items()]


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as hosting services make them."""
    headings = HEADING.findall(page.read_text("utf-8"))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def tables(page: str) -> Iterator[tuple[str, ...]]:
    """The rows of all tables of a page, without their heads."""
    rows = [line for line in read(page).splitlines() if line.startswith("|")]
    for row, following in itertools.pairwise([*rows, ""]):
        if not re.fullmatch(r"[|\- ]+", row) and not re.fullmatch(r"[|\- ]+", following or "x"):
            yield tuple(cell.strip() for cell in row.strip("|").split("|"))

"""The shell blocks of a page, as a person would copy them.

A block that opens with ```` ```bash ```` can be run as it is, from the repository's root, while the platform runs and
the demo's main job is done; later blocks of a page use the variables of earlier ones. ```` ```bash no-test ````
marks those that cannot: they change the checkout, need another machine, or wait for a person.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(`{3,})(.*)$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        path: The page.
        line: Line of its first line of code.
        info: What stands behind the opening fence, such as ``bash no-test``.
        text: The code.
    """

    path: Path
    line: int
    info: str
    text: str

    @property
    def place(self) -> str:
        """Where it is, as compilers write it."""
        path = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{path}:{self.line}"

    @property
    def language(self) -> str:
        """The first word of its info string."""
        return self.info.partition(" ")[0]


def blocks(path: Path) -> list[Block]:
    """All fenced blocks of a page.

    Args:
        path: A Markdown file.
    """
    found: list[Block] = []
    fence, info, first, code = "", "", 0, []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        mark = FENCE.match(line)
        if not fence and mark:
            fence, info, first, code = mark[1], mark[2].strip(), number + 1, []
        elif fence and line.strip() == fence:
            found.append(Block(path, first, info, "\n".join(code) + "\n"))
            fence = ""
        elif fence:
            code.append(line)
    if fence:
        raise ValueError(f"{path}:{first - 1}: the block is not closed.")
    return found


def runnable_blocks(path: Path) -> list[Block]:
    """The blocks of a page that a test runs, in their order.

    Args:
        path: A Markdown file.
    """
    return [block for block in blocks(path) if block.info == "bash"]


def script(page: list[Block]) -> str:
    """The blocks of one page as one Bash script, which stops at the first command that fails and says where it was.

    Args:
        page: Outcome of :func:`runnable_blocks`.
    """
    return "".join(["set -euo pipefail\n", *(f"echo '--- {block.place}' >&2\n{block.text}" for block in page)])

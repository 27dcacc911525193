"""What the supervisor runs for each part: clear the way, then become the part."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from lakehouse.platform.processes import clear_the_way
from lakehouse.settings import setting_variables


def main() -> None:
    """Become the part that the first argument names."""
    name = sys.argv[1]
    # The supervisor may have been started with other settings than the last `lake up`.
    for variable in setting_variables():
        os.environ.pop(variable, None)
    saved = Path(os.environ["LAKEHOUSE_HOME"]) / "supervisor" / "environment.json"
    os.environ.update(json.loads(saved.read_text()))

    from lakehouse.platform.parts import environment, parts

    part = parts()[name]
    clear_the_way()
    variables = environment()
    os.environ.clear()
    os.environ.update(variables)
    part.run()


if __name__ == "__main__":
    main()

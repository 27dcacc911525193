"""What the supervisor runs for each part: take the settings, clear the way, and become the part."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from lakehouse.platform.processes import clear_the_way
from lakehouse.settings import setting_variables


def main() -> None:
    """Become the part, or the watchman, that the first argument names."""
    name = sys.argv[1]
    # The supervisor may have been started with other settings than the last `lake up`.
    for variable in setting_variables():
        os.environ.pop(variable, None)
    saved = Path(os.environ["LAKEHOUSE_HOME"]) / "supervisor" / "environment.json"
    os.environ.update(json.loads(saved.read_text()))

    # What these import reads the settings.
    from lakehouse.platform.parts import environment, parts

    variables = environment()
    os.environ.clear()
    os.environ.update(variables)
    if name == "health":
        from lakehouse.platform import health

        health.main()
    else:
        clear_the_way()
        parts()[name].run()


if __name__ == "__main__":
    main()

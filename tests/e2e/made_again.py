"""Makes every training and every scoring of a platform's history again; prints a line of JSON for each."""

from __future__ import annotations

import json

from lakehouse.interval import Interval
from lakehouse.ml import model_folders
from lakehouse.registry import registry
from lakehouse.release_log import history
from lakehouse.steps import job


def main() -> None:
    """Go through all models, one after the other."""
    for name in model_folders.models():
        spec = model_folders.load(name)
        for version in registry.versions(name):
            outcome = job("reproduce_training")(name, version.version)
            print(json.dumps({"training": f"{name}@{version.version}", "equal": outcome["equal"]}), flush=True)
        # A version that was shown again, such as by a rollback, is one scoring.
        shown = [row for row in history() if row["table_name"] == spec.predictions_table and row["interval_start"]]
        scorings = {row["version"]: row for row in shown}
        for version_of_table, row in scorings.items():
            interval = Interval(row["interval_start"], row["interval_end"])
            outcome = job("reproduce_predictions")(name, interval, row["release_id"])
            what = f"{name} {interval} as version {version_of_table}"
            print(json.dumps({"scoring": what, "equal": outcome["equal"]}), flush=True)


if __name__ == "__main__":
    main()

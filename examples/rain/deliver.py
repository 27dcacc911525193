"""Writes the daily weather of Seattle into a drop folder, a CSV file a day: ``deliver.py FOLDER FIRST LAST``."""

from __future__ import annotations

import sys
from pathlib import Path

from vega_datasets import data

COLUMNS = {
    "date": "observation_date",
    "precipitation": "precipitation_mm",
    "temp_max": "highest_temperature_c",
    "temp_min": "lowest_temperature_c",
    "wind": "wind_speed_mps",
    "weather": "weather",
}


def main(folder: Path, first: str, last: str) -> None:
    """Write the files of some days.

    Args:
        folder: The drop folder.
        first: First day, as 2012-01-01.
        last: Last day.
    """
    days = data.seattle_weather().rename(columns=COLUMNS)[list(COLUMNS.values())]
    days.insert(0, "station", "seattle")
    days["observation_date"] = days["observation_date"].dt.strftime("%Y-%m-%d")
    target = folder / "seattle_weather"
    target.mkdir(parents=True, exist_ok=True)
    for row in days[days["observation_date"].between(first, last)].index:
        day = days.loc[[row]]
        day.to_csv(target / f"seattle_weather_{day['observation_date'].item()}.csv", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

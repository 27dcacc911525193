"""Damages the files behind the released tables of a lake, one after the other; prints what is found, as JSON."""

from __future__ import annotations

import json
import random
from pathlib import Path

from lakehouse import ops, tables
from lakehouse.maintenance import maintain
from lakehouse.release_log import released
from lakehouse.releases import fingerprints
from tests.unit.test_verify import DAMAGES, any_of, damage, kind


def main() -> None:
    """Damage, look and put right, so that each damage is alone."""
    chance = random.Random(2013)
    state = released()
    maintain.CHECKPOINT_COMMITS = 1
    maintain.checkpoint(state, "maintenance")
    recorded = ops.read(fingerprints.LOG).to_pylist()
    for _ in range(DAMAGES):
        table = chance.choice(sorted(state))
        version, rows = state[table].version, [row for row in recorded if row["table_name"] == table]
        facts = fingerprints.expected(rows, version)
        assert facts is not None
        path = any_of([*facts.data, *facts.log], chance)
        file = Path(tables.location(tables.next_table(table))) / path
        before = file.read_bytes()
        what = damage(file, chance)
        found = [(fault.table, fault.file, fault.what) for fault in fingerprints.check(table, [version], rows)]
        file.write_bytes(before)
        print(json.dumps({"damaged": [table, path, what], "kind": kind(path), "found": found}), flush=True)


if __name__ == "__main__":
    main()

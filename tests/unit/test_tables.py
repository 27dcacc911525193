from __future__ import annotations

import pytest

from lakehouse import tables


def test_gated_layers_are_stored_beside_what_readers_see() -> None:
    assert tables.next_table("bronze.weather") == "bronze_next.weather"
    assert tables.next_table("ops.runs") == "ops.runs"
    assert tables.next_table("quarantine.weather") == "quarantine.weather"


@pytest.mark.parametrize("name", ["weather", "a.b.c", "bronze.", ".weather", "bronze.we ather", "bronze.x; drop"])
def test_a_name_that_is_no_table_is_refused(name: str) -> None:
    with pytest.raises(tables.InvalidTableNameError, match=r"layer\.table"):
        tables.split(name)

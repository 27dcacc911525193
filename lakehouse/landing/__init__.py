"""Landing: how a batch of a source is split into rows for its table and rows for quarantine, and stays so."""

"""Landing: how a batch of a source is split into rows to release and rows for quarantine."""

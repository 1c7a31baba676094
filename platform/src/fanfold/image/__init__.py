"""Photos: accepted within limits, kept as originals in the object store, shown in immutable variants."""

"""The ring: which endpoint holds which slot, and the snapshot that tells the gateways. Pure but for `acks`."""

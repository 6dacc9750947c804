"""Messages that modules exchange: frozen, versioned by stream name, no I/O."""

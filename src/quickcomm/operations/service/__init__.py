"""Who starts operations, and who is asked about them."""

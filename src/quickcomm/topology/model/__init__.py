"""The pure part of topology: what runs and how it is treated. No I/O, no clock."""

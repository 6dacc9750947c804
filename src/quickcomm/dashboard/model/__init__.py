"""What the dashboard knows, and how messages change it. Pure: no I/O, no clock."""

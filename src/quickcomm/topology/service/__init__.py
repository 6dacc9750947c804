"""The behaviour of topology: processes kept running, scaled, and replaced one by one."""

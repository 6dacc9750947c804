"""Helpers of the tests: a real server process, a raw wire, and a scripted double for the client's own tests."""

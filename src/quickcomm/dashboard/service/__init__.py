"""Behaviour of the dashboard: messages in, records changed, cards pushed."""

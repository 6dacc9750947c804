"""Behaviour: transcripts to insights, and which prompt version asks for them."""

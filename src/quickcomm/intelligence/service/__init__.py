"""The behaviour of intelligence: understanding each utterance once, by a language model or without it."""

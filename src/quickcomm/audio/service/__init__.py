"""The behaviour of audio: sessions, the shared front end, transcription in batches."""

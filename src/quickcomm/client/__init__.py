"""The client's side: sound from files, pipes and devices → `WS /v1/conversations/{id}/audio` → typed events."""

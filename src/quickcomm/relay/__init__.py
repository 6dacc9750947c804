"""The session relay: holds the sockets of audio clients, and resumes upstream when the owner moves or dies."""

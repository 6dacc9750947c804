"""What modules share to erase: tombstones, messages by what they are about, and files without traces."""

"""What understanding knows without engines: pure functions over text and a site pack."""

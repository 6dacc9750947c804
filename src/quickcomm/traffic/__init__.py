"""The migration controller: moves a module between the monolith and a service of its own, step by step, and back."""

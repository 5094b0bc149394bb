"""Configuration, and what the supervisor passes to its children."""

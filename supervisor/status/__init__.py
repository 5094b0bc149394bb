"""The state of a pipeline, and the answers to requests about it."""

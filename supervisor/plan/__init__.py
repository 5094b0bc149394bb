"""Which process does what, and which markets are followed."""

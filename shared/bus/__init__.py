"""The sockets between processes."""

"""The forwarder: all metrics on one socket, with last values for late subscribers."""

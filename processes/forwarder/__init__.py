"""The forwarder: metrics of all workers on one socket, with the last value for who comes late."""

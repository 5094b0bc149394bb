"""The way to the exchange, for every process: addresses, proxies, TLS, the handshake."""

"""The connector: one Bybit websocket, decoded once and published on the market bus."""

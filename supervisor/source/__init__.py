"""The exchange and its stand-in: live or simulated data, and the lists of instruments."""

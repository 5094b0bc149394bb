"""The choice between live and simulated data."""

"""One driver per rival: its fastest documented form, through its public API."""

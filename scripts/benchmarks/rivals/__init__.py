"""One module a rival: its fastest documented form, driven through its public API."""

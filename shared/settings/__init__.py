"""Settings: the configuration, its files and keys, and the specs of the children."""

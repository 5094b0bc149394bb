"""The topics of one connector: what is wanted, what is subscribed, what was refused. Pure."""

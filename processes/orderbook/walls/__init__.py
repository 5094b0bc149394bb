"""Walls of one book: the search for them, their accounts, and the events that report them."""

"""The terminal user interface: pure functions draw lines of text, and a screen shows them."""

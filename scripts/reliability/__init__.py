"""Long reliability runs with real processes, and the tools that they share with the tests."""

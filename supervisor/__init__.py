"""Plans, starts, watches and restarts the processes, and answers the command line."""

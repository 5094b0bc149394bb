"""The plan: the processes, the streams that each one handles, and the followed symbols."""

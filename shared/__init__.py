"""What two processes must agree on: messages, topics, buses, control, configuration."""

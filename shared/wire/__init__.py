"""What goes over the sockets: records, their bytes and the names of topics."""

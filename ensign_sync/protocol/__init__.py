"""The protocol machines: what to say next, given what was said. No thread, no socket, no clock, no protobuf."""

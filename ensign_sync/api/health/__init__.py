"""Messages of the gRPC health checking protocol."""

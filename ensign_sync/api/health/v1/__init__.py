"""Messages of the gRPC health checking protocol, version v1."""

"""The outside world: gRPC, HTTP, and the table that turns their failures into our errors."""

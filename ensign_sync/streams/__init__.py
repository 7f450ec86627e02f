"""Protocol machines kept alive over a transport, each by one thread."""

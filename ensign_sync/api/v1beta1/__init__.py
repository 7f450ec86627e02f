"""Messages of the Ensign service: streams, events, topics, consumer groups and queries."""

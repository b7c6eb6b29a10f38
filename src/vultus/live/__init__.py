"""The edge of live recognition: a WebSocket whose protocol is a state machine without I/O."""

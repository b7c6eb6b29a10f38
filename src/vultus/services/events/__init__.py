"""Events for whoever follows what happens: listed, streamed and delivered."""

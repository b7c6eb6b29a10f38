"""`vultus demo`: a server with drawn people before a drawn camera, gone without a trace when it ends."""

"""The HTTP server: connections, heads and the pace of bytes. It serves any ASGI application and knows no route."""

"""Routes: declare the operation, call the service, convert the result."""

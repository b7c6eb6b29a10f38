"""What browsers see: the console at `/console`, which uses the public API alone, and the manual at `/manual`."""

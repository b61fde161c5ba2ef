"""An HTTP server for a preset."""

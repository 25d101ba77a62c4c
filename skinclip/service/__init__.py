"""The service around the page: HTTP API, structured logs, metrics."""

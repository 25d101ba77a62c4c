"""Photo -> Assessment: the one path that every entry point takes."""

"""The guard between a page and whoever asks it: hosts, origins, accounts, routes, uploads and visitors' memory."""

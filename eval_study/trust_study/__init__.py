"""The trust study: its protocol, a power simulation, and load tests of the study's store and server."""

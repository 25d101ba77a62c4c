"""A reader's session: case allocation, steps, what is shown of them, and the answers submitted."""

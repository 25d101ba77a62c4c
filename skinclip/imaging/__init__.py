"""Photos as arrays: decoding, quality, the model's window, ABCD measurements, overlays and synthetic examples."""

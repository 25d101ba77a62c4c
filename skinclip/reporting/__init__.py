"""The parts that reports share: document model, charts, phrasing, and the Assessment as a PDF."""

"""The parts that reports share: document model and its printers, chart style, phrasing, and the Assessment as a PDF."""

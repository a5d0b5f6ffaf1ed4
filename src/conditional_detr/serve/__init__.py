"""An HTTP server around a detector: requests are batched, bounded, measured and answered as JSON or pictures."""

"""Detections of millions of images as Parquet shards: listing, plan, shards that are written whole, and engines that compute them."""

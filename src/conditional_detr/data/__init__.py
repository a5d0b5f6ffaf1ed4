"""Turn files into images and targets: decoding, the published augmentation, COCO annotations and batches."""

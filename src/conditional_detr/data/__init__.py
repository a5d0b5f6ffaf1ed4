"""Files -> images and targets: decoding, the published augmentation, COCO annotations, batches."""

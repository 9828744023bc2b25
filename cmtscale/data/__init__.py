"""Images to packed uint8 arrays, splits, and augmentation on the device."""

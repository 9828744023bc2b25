"""How many batches an epoch has."""


def batches_per_epoch(images: int, batch_size: int) -> int:
    """Whole batches in an epoch; one smaller batch if there are fewer images than that."""
    return max(1, images // batch_size)


def images_per_epoch(images: int, batch_size: int) -> int:
    """The images in an epoch's whole batches."""
    return batches_per_epoch(images, batch_size) * min(batch_size, images)

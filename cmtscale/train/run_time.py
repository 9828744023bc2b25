"""How long a run takes, and how much of it is done, from the time of a training step."""

from cmtscale.data.epochs import images_per_epoch
from cmtscale.train.recipe import ESTIMATION_IMAGES, Recipe

EVALUATION_SHARE = 1 / 3  # of a training step's cost per image: no backward pass


def run_seconds(
    seconds_per_image: float, recipe: Recipe, *, train_images: int, val_images: int
) -> float:
    """Seconds of one run whose training steps take so long for each image.

    `train_images` are those of an epoch; after each epoch the `val_images` are evaluated, and
    BatchNorm's statistics estimated anew.
    """
    trained = images_per_epoch(train_images, recipe.batch_size)
    evaluated = val_images + min(ESTIMATION_IMAGES, train_images)
    return recipe.epochs * seconds_per_image * (trained + EVALUATION_SHARE * evaluated)


def part_done(
    images: int, ended_epochs: int, recipe: Recipe, *, train_images: int, val_images: int
) -> float:
    """The part of a run's work that is done after so many training images and evaluations."""
    whole = run_seconds(1.0, recipe, train_images=train_images, val_images=val_images)
    trained = recipe.epochs * images_per_epoch(train_images, recipe.batch_size)
    return min(1.0, (images + ended_epochs * (whole - trained) / recipe.epochs) / whole)

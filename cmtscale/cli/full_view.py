"""How a full training looks: its plan, a bar while it trains, and each validation."""

from typing import Any

from cmtscale.arch.budget import format_macs
from cmtscale.cli.bars import Bars
from cmtscale.cli.console import counted, duration
from cmtscale.cli.train_view import images_line
from cmtscale.train.full import FullPlan


class FullView:
    """Prints the plan and each validation; in between a bar moves."""

    def __init__(self, bars: Bars, recipe_words: str, start_words: str = "") -> None:
        self.bars = bars
        self.recipe_words = recipe_words
        self.start_words = start_words
        self.plan: FullPlan | None = None
        self.accuracy = ""
        self.first: dict[str, Any] | None = None  # line that this process has logged

    def planned(self, plan: FullPlan) -> None:
        self.plan = plan
        run, recipe = plan.run, plan.run.recipe
        together = f" of {plan.processes} processes" if plan.processes > 1 else ""
        averaged = f", weights averaged ({recipe.ema_decay:g})" if recipe.ema_decay else ""
        peak_lr = recipe.peak_lr(plan.batch_images)
        scaled = f" ({recipe.lr:g} per {recipe.reference_batch})" if peak_lr != recipe.lr else ""
        self.bars.print(
            f"{run.network.name}: {format_macs(plan.size.macs)} MACs at "
            f"{run.network.resolution_px} px, on {plan.device}{together}, {recipe.precision}\n"
            f"{images_line(plan.image_set)}\n"
            f"{self.recipe_words}: {counted(recipe.epochs, 'epoch')} of "
            f"{counted(plan.steps_per_epoch, 'step')} of {plan.batch_images} images, learning rate "
            f"{peak_lr:.3g}{scaled}{averaged}"
        )
        if self.start_words:
            self.bars.print(self.start_words)
        if plan.steps_done:
            epochs = plan.steps_done / plan.steps_per_epoch
            self.bars.print(f"goes on after {epochs:.3g} epochs")
        self.bars.show([("training", 0.0)], "the first steps")

    def logged(self, line: dict[str, Any]) -> None:
        assert self.plan is not None
        epoch, in_epoch = divmod(line["step"], self.plan.steps_per_epoch)
        if "val_accuracy" in line:
            self.accuracy = f", accuracy {100 * line['val_accuracy']:.2f} %"
            self.bars.print(
                f"epoch {epoch}  validation loss {line['val_loss_raw']:.4f}  "
                f"accuracy {100 * line['val_accuracy']:.2f} %  after {duration(line['seconds'])}"
            )
            return
        self.first = self.first or line
        total = self.plan.run.recipe.epochs * self.plan.steps_per_epoch
        part = line["step"] / total
        done = line["step"] - self.first["step"]
        left = ""
        if done:  # validations and checkpoints included, as far as there were any
            seconds = (line["seconds"] - self.first["seconds"]) / done * (total - line["step"])
            left = f", about {duration(seconds)} left"
        self.bars.show(
            [("training", part), ("epoch", in_epoch / self.plan.steps_per_epoch or 1.0)],
            f"epoch {epoch + (in_epoch > 0)}, training loss {line['train_loss']:.4f}"
            f"{self.accuracy}, {line['images_per_second']:.0f} img/s, "
            f"{100 * line['loader_share']:.0f} % waiting for images{left}",
        )

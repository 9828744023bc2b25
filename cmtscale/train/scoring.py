"""Scores of a network in a full training, and the network as it was scored."""

import math
from collections.abc import Callable

import torch
from torch import nn

from cmtscale.data.loaders import PlainImages, plain_loader, read_batches
from cmtscale.data.preprocess import Preprocess
from cmtscale.data.splits import IntArray
from cmtscale.data.stream import ImageSet, fixed_subset
from cmtscale.model.networks import build_network
from cmtscale.train.autocast import make_autocast
from cmtscale.train.batch_norm import ESTIMATION_BATCH, update_statistics
from cmtscale.train.evaluate import Predictions
from cmtscale.train.freeze import freeze
from cmtscale.train.full_run import FullRun
from cmtscale.train.processes import Processes
from cmtscale.train.recipe import ESTIMATION_IMAGES


class Scorer:
    """Copies weights into a network of its own, `model`, estimates its statistics and scores it.

    The training network is left alone. Each process predicts its share of the images.
    """

    def __init__(
        self,
        run: FullRun,
        image_set: ImageSet,
        *,
        device: torch.device,
        workers: int,
        processes: Processes,
        batch_images: int,
    ) -> None:
        self.model = build_network(run.network, attention=run.recipe.attention).to(device)
        freeze(self.model, run.frozen)  # such layers keep their statistics
        self.autocast = make_autocast(run.recipe, device)
        self.device = device
        self.workers = workers
        self.processes = processes
        self.batch_images = batch_images
        self.image_set = image_set
        self.preprocess = Preprocess(run.preprocessing)
        self._estimation = PlainImages(
            image_set, fixed_subset(image_set.splits.train, ESTIMATION_IMAGES), self.preprocess
        )

    def load(self, network: nn.Module) -> None:
        """Take over the weights, with statistics estimated anew for them."""
        self.model.load_state_dict(network.state_dict())
        count = math.ceil(len(self._estimation) / ESTIMATION_BATCH)
        size = math.ceil(len(self._estimation) / count)
        loader = plain_loader(
            self._estimation, batch_size=size, workers=self.workers, device=self.device
        )
        images = (images for images, _ in read_batches(loader, self.device))
        update_statistics(self.model, images, len(loader), autocast=self.autocast)

    @torch.inference_mode()
    def predict(self, indices: IntArray, *, between: Callable[[], None]) -> Predictions:
        """Logits of the images at `indices`, in every process; `between` is called in each step."""
        share = indices[self.processes.rank :: self.processes.count]
        images = PlainImages(self.image_set, share, self.preprocess)
        loader = plain_loader(
            images, batch_size=self.batch_images, workers=self.workers, device=self.device
        )
        # a small split may leave a process without images
        logits = [torch.empty(0, len(self.image_set.class_names))]
        labels = [torch.empty(0, dtype=torch.long)]
        for batch, targets in read_batches(loader, self.device):
            with self.autocast:
                logits.append(self.model(batch).float().cpu())
            labels.append(targets.cpu())
            between()
        shares = self.processes.gather((torch.cat(logits), torch.cat(labels)))
        all_logits = torch.empty(len(indices), shares[0][0].shape[1], dtype=torch.float64)
        all_labels = torch.empty(len(indices), dtype=torch.long)
        for rank, (some_logits, some_labels) in enumerate(shares):
            all_logits[rank :: self.processes.count] = some_logits.double()
            all_labels[rank :: self.processes.count] = some_labels
        return Predictions(logits=all_logits, labels=all_labels)

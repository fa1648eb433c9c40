"""The recipe's table of fine-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .table import Table


class FinetuneRecipe(Table):
    """Training after pruning, through PyTorch.

    Attributes:
        epochs: Times that all samples are seen.
        learning_rate: The largest, falling along a cosine to zero. With "adamw" and "muon" it is relative
            to the root mean square of each parameter (as in Adafactor, Shazeer and Stern, 2018), so that it fits models without
            normalization, whose layers have different scales; with "sgd" it is as it is. By default it is found by a test of
            seconds (Smith, "Cyclical Learning Rates for Training Neural Networks", 2017), which raises it until the loss on
            what is learned from no longer falls.
        warmup: Share of the steps in which the rate rises to it from zero.
        optimizer: "adamw" (Loshchilov and Hutter, 2019), "sgd" with Nesterov's momentum, or "muon", which changes matrices and
            kernels in all directions alike (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024).
        momentum: Of "sgd" and "muon", and the first moment's of "adamw".
        weight_decay: How strongly weights are pulled to zero.
        batch_size: Samples of a step.
        accumulate: Batches whose gradients are added up to one step, where one batch of that size does not fit into memory.
        average: Whether what is judged and kept are the weights averaged over the last steps (Polyak and Juditsky, 1992; an
            exponential average) where they are better than those of the last one.
        label_smoothing: Share of a label that is spread over all classes.
        mixup: Above 0 pairs of samples are mixed, and so are their labels, with a share that is drawn from Beta(mixup, mixup)
            (Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018); a teacher is asked about the mixture.
        cutmix: Share of the batches in which a rectangle of every image is that of another one, and labels count by area (Yun
            et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", 2019); a teacher
            is asked about what comes of it.
        distill: Whether the original is the teacher beside labels; without labels it is in any case.
        temperature: That softens the predictions of teacher and model.
        alpha: Share of the teacher beside labels.
        hints: By layer, the teacher's layer that it shall come close to; where their channels differ, through a linear map that
            is learned with it.
        hint_weight: Of these beside everything else.
        features: Above 0 what layers give comes close to what the teacher's layers of the same names give, as a model has them
            that was made from its teacher, with this weight; channels that pruning has removed are left out.
        augment: "flip", "crop" and "scale" change images at random.
        views: After so many epochs the same changes come again, in another order, so that teachers, whose answers are kept,
            are asked about each once; None for always new ones.
        mixed_precision: Whether convolutions and products are computed in bfloat16 in both directions (Micikevicius et al.,
            "Mixed Precision Training", 2018); weights, the loss and what is judged on samples held back stay float32. It pays
            on processors with instructions for bfloat16 only (AVX-512 BF16, AMX), and without them costs time.
        validation: Share of the samples held back, on which the best epoch is chosen.
        patience: Epochs without a better one after which training ends; by default never, since the last epochs, whose
            rate is small, are often the best.
        seed: For all that is random.
    """

    epochs: int = Field(default=10, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    optimizer: Literal["adamw", "sgd", "muon"] = "adamw"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: int = Field(default=64, ge=1)
    accumulate: int = Field(default=1, ge=1)
    average: bool = True
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0, le=1)
    distill: bool = False
    temperature: float = Field(default=4.0, gt=0)
    alpha: float = Field(default=0.9, ge=0, le=1)
    hints: dict[str, str] = Field(default={})
    hint_weight: float = Field(default=1.0, gt=0)
    features: float = Field(default=0.0, ge=0)
    augment: tuple[Literal["flip", "crop", "scale"], ...] = ()
    views: int | None = Field(default=None, ge=1)
    mixed_precision: bool = False
    validation: float = Field(default=0.1, gt=0, lt=1)
    patience: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)

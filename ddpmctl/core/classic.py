"""The network of the original scripts: a plain U-Net, conditioned only at the bottleneck."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpmctl.core.embeddings import sinusoidal
from ddpmctl.core.norms import GroupNorm


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        GroupNorm(8, outputs),
        nn.LeakyReLU(0.1),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        GroupNorm(8, outputs),
        nn.LeakyReLU(0.1),
    )


class Classic(nn.Module):
    """U-Net of Ronneberger et al. 2015 with 1-64-128-256-512 channels; 6,593,729 parameters with one channel.

    It has ten classes and no null class, so it does not support classifier-free guidance. Modules are named as in
    checkpoints of the original scripts: ``up1`` is the deepest upsampling.
    """

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.label_embedding = nn.Embedding(10, 256)
        self.embedding_projector = nn.Linear(512, 512)
        self.down1 = _block(channels, 64)
        self.down2 = _block(64, 128)
        self.down3 = _block(128, 256)
        self.bottleneck = _block(256, 512)
        self.up1 = nn.ConvTranspose2d(512, 256, 2, stride=2)
        self.decode3 = _block(512, 128)
        self.up2 = nn.ConvTranspose2d(128, 128, 2, stride=2)
        self.decode2 = _block(256, 64)
        self.up3 = nn.ConvTranspose2d(64, 64, 2, stride=2)
        self.decode1 = _block(128, 64)
        self.final_out = nn.Conv2d(64, channels, 1)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """Predict from ``x``: float[B,C,32,32], ``t``: int64[B] in 0..999, ``label``: int64[B] in 0..9."""
        skip1 = self.down1(x)
        skip2 = self.down2(F.max_pool2d(skip1, 2))
        skip3 = self.down3(F.max_pool2d(skip2, 2))
        h = self.bottleneck(F.max_pool2d(skip3, 2))
        embedded = torch.cat([self.label_embedding(label), sinusoidal(t, 256)], dim=1)
        h = h + self.embedding_projector(embedded)[:, :, None, None]
        h = self.decode3(torch.cat([self.up1(h), skip3], dim=1))
        h = self.decode2(torch.cat([self.up2(h), skip2], dim=1))
        h = self.decode1(torch.cat([self.up3(h), skip1], dim=1))
        return self.final_out(h)  # type: ignore[no-any-return]

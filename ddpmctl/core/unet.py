"""A U-Net whose residual blocks are all conditioned on timestep and class."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpmctl.core.embeddings import TimestepAndClassEmbedding
from ddpmctl.core.norms import NORMS


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a skip connection; the condition modulates the second norm (Dhariwal & Nichol 2021)."""

    def __init__(self, inputs: int, outputs: int, condition: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm1 = norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.condition = nn.Linear(condition, 2 * outputs)
        self.norm2 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        # Each block starts as the identity, which keeps activations bounded in the first steps.
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map float[B,inputs,H,W] and float[B,condition] to float[B,outputs,H,W]."""
        h = self.conv1(F.leaky_relu(self.norm1(x), 0.1))
        scale, shift = self.condition(condition)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(h) * (1 + scale) + shift
        return self.skip(x) + self.conv2(F.leaky_relu(h, 0.1))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """The residual blocks of one level; the first changes the width."""

    def __init__(
        self, inputs: int, outputs: int, condition: int, blocks: int, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        widths = [inputs, *[outputs] * (blocks - 1)]
        self.blocks = nn.ModuleList(ResidualBlock(width, outputs, condition, norm) for width in widths)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map float[B,inputs,H,W] and float[B,condition] to float[B,outputs,H,W]."""
        for block in self.blocks:
            x = block(x, condition)
        return x


class UNet(nn.Module):
    """Residual U-Net with optional 2x2 or 4x4 space-to-depth, conditioned in every block and at the bottleneck.

    Args:
        channels: of the output: 1 for grey images, 3 for colour.
        inputs: channels of the input; as many as of the output by default.
        num_classes: index ``num_classes`` is the null class.
        widths: channels per level, multiples of 16, highest resolution first; each further level halves the resolution.
        blocks: residual blocks per level, downsampling and upsampling each.
        patch: patch size of the space-to-depth input; 1 for none.
        embedding: width of the timestep embedding and of the class embedding.
        norm: a key of `NORMS`.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        widths: tuple[int, ...],
        blocks: int,
        patch: int,
        embedding: int,
        norm: str = "group",
        inputs: int | None = None,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.embedding = TimestepAndClassEmbedding(num_classes + 1, embedding)
        self.condition = nn.Sequential(nn.Linear(2 * embedding, embedding), nn.LeakyReLU(0.1))
        self.conv_in = nn.Conv2d((inputs or channels) * patch**2, widths[0], 3, padding=1)

        def stage(inputs: int, outputs: int) -> Stage:
            return Stage(inputs, outputs, embedding, blocks, NORMS[norm])

        self.down = nn.ModuleList()
        self.downsample = nn.ModuleList()
        for level, width in enumerate(widths):
            if level:
                self.downsample.append(nn.Conv2d(widths[level - 1], width, 3, stride=2, padding=1))
            self.down.append(stage(width, width))

        self.bottleneck_condition = nn.Linear(2 * embedding, widths[-1])
        self.bottleneck = ResidualBlock(widths[-1], widths[-1], embedding, NORMS[norm])

        self.up = nn.ModuleList()
        self.upsample = nn.ModuleList()
        for level in reversed(range(len(widths))):
            width = widths[level]
            self.up.append(stage(2 * width, width))
            if level:
                self.upsample.append(nn.ConvTranspose2d(width, widths[level - 1], 2, stride=2))

        self.norm = NORMS[norm](widths[0])
        self.conv_out = nn.Conv2d(widths[0], channels * patch**2, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """Predict from ``x``: float[B,C,H,W], ``t``: int64[B], ``label``: int64[B] in 0..num_classes."""
        embedded = self.embedding(t, label)
        condition = self.condition(embedded)
        h = self.conv_in(F.pixel_unshuffle(x, self.patch))
        skips = []
        for level, down in enumerate(self.down):
            if level:
                h = self.downsample[level - 1](h)
            h = down(h, condition)
            skips.append(h)
        h = self.bottleneck(h + self.bottleneck_condition(embedded)[:, :, None, None], condition)
        for level, up in enumerate(self.up):
            skip = skips.pop()
            # An odd side was rounded up on the way down: 7, 4 and back to 8.
            h = up(torch.cat([h[..., : skip.shape[-2], : skip.shape[-1]], skip], dim=1), condition)
            if level < len(self.upsample):
                h = self.upsample[level](h)
        h = self.conv_out(F.leaky_relu(self.norm(h), 0.1))
        return F.pixel_shuffle(h, self.patch)

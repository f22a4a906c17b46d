"""The small network that sees what lies before a face in one of the two views of compositing.occlusion_crops."""
from __future__ import annotations

import torch
from torch import nn


class _Block(nn.Sequential):
    """Two 3 x 3 convolutions with normalisation, a to b channels."""

    def __init__(self, a, b, stride=1):
        conv = lambda i, o, s: (nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))
        super().__init__(*conv(a, b, stride), *conv(b, b, 1))


class OcclusionNetwork(nn.Module):
    """A U-Net (Ronneberger et al. 2015, arXiv:1505.04597) that knows where in the view it looks.

    Parameters
    ----------
    size : (2,) int, width and height of the view
    channels : ints, of its levels from fine to coarse
    detail : 1 or 2: the result has the view's pixels, or half of them each way
    """

    def __init__(self, size, channels, detail=1):
        super().__init__()
        self.settings = {"size": list(size), "channels": list(channels), "detail": detail}
        y, x = torch.meshgrid(torch.linspace(-1, 1, size[1]), torch.linspace(-1, 1, size[0]), indexing="ij")
        self.register_buffer("place", torch.stack([x, y])[None], persistent=False)
        self.down = nn.ModuleList([_Block(5, channels[0], 2),
                                   *(_Block(a, b) for a, b in zip(channels, channels[1:]))])
        self.up = nn.ModuleList([_Block(a + b, a) for a, b in zip(channels, channels[1:])])
        self.head = nn.Conv2d(channels[0], 4 if detail == 1 else 1, 1)
        self.grain = nn.PixelShuffle(2) if detail == 1 else nn.Identity()

    def forward(self, picture):
        """(N, 3, h, w) in [0, 1] -> (N, 1, h / detail, w / detail), logits that something lies before the face."""
        mean, deviation = picture.mean((1, 2, 3), keepdim=True), picture.std((1, 2, 3), keepdim=True)
        x = torch.cat([(picture - mean) / (deviation + 0.05), self.place.expand(len(picture), -1, -1, -1)], 1)
        kept = []
        for k, block in enumerate(self.down):
            x = block(x if k == 0 else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for block, skip in zip(reversed(self.up), reversed(kept[:-1])):
            x = block(torch.cat([nn.functional.interpolate(x, size=skip.shape[2:], mode="nearest"), skip], 1))
        return self.grain(self.head(x))

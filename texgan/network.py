"""The networks of section 5.3: a U-Net that predicts the change of a neutral texture, and a 70 x 70 PatchGAN.

After P. Isola et al., 2017 (doi:10.1109/CVPR.2017.632), with what later work changed for good reasons: resizing
convolutions in place of transposed ones (no checkerboards), no dropout, no batch norm (a texture's result does not
depend on its batch). The generator has no normalisation at all, since how strong an expression is shows in how far the
values go; the discriminator is kept in bounds by its spectral norm (T. Miyato et al., 2018, arXiv:1802.05957). Every
texture lies on one chart, so the generator also learns maps of its own over it.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

SLOPE = 0.2                  # of the leaky rectifiers
DEEPEST = 8                  # widest layer, times the first one's channels
CHANGE = 2.0                 # largest change that the generator can predict: from black to the brightest


class Down(nn.Module):
    """Halves the resolution: (N, a, s, s) -> (N, b, s / 2, s / 2)."""

    def __init__(self, a, b):
        super().__init__()
        self.conv = nn.Conv2d(a, b, 4, 2, 1)

    def forward(self, x):
        return F.leaky_relu(self.conv(x), SLOPE)


class Up(nn.Module):
    """Doubles the resolution and adds what the encoder saw there: (N, a, s, s), (N, k, 2s, 2s) -> (N, b, 2s, 2s)."""

    def __init__(self, a, skip, b):
        super().__init__()
        self.conv = nn.Conv2d(a + skip, b, 3, 1, 1)

    def forward(self, x, skip):
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        return F.leaky_relu(self.conv(torch.cat([x, skip], dim=1)), SLOPE)


class Generator(nn.Module):
    """U-Net, 6 -> 3 channels.

    Parameters
    ----------
    channels : int, of the first layer
    depth : int, how often the resolution is halved
    size : int, texels per side of the textures
    maps : int, learned maps over the chart at half and quarter size
    """

    def __init__(self, channels=32, depth=6, size=256, maps=8):
        super().__init__()
        self.settings = {"channels": channels, "depth": depth, "size": size, "maps": maps}
        wide = [channels * min(2 ** k, DEEPEST) for k in range(depth)]
        self.down = nn.ModuleList(Down(a, b) for a, b in zip([6, *wide], wide))
        skips = wide[:-1][::-1]
        extra = [maps if k >= depth - 3 else 0 for k in range(depth - 1)]         # finest two resolutions of the ups
        self.up = nn.ModuleList(Up(a, s + e, s) for a, s, e in zip([wide[-1], *skips], skips, extra))
        sizes = [size >> (depth - 1 - k) for k in range(depth - 1)]
        self.maps = nn.ParameterList(nn.Parameter(0.1 * torch.randn(1, e, s, s)) for e, s in zip(extra, sizes) if e)
        self.head = nn.Conv2d(channels + 6, channels, 3, 1, 1)
        self.last = nn.Conv2d(channels, 3, 3, 1, 1)
        self.everywhere = nn.Parameter(torch.zeros(1, 3, size, size))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, SLOPE)
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.last.weight)

    def forward(self, source, neutral):
        """The change of the target's neutral texture: two (N, 3, s, s) in [-1, 1] -> (N, 3, s, s) in [-2, 2]."""
        given = torch.cat([source, neutral], dim=1)
        x, skips = given, []
        for down in self.down:
            x = down(x)
            skips.append(x)
        maps = list(self.maps)
        for k, up in enumerate(self.up):
            skip = skips[-2 - k]
            if k >= len(self.up) - len(maps):
                own = maps[k - len(self.up) + len(maps)].expand(len(x), -1, -1, -1).to(skip.dtype)
                skip = torch.cat([skip, own], dim=1)
            x = up(x, skip)
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.leaky_relu(self.head(torch.cat([x, given.to(x.dtype)], dim=1)), SLOPE)
        return CHANGE * torch.tanh((self.last(x).float() + self.everywhere) / CHANGE)


class PatchDiscriminator(nn.Module):
    """70 x 70 PatchGAN, conditional: source, neutral and a texture (N, 9, s, s) -> (N, 1, s / 8 - 2, s / 8 - 2)."""

    def __init__(self, channels=32):
        super().__init__()
        c, bound = channels, spectral_norm
        widths = [(9, c, 2), (c, 2 * c, 2), (2 * c, 4 * c, 2), (4 * c, 8 * c, 1)]
        layers = [m for a, b, stride in widths for m in (bound(nn.Conv2d(a, b, 4, stride, 1)), nn.LeakyReLU(SLOPE))]
        self.layers = nn.Sequential(*layers, bound(nn.Conv2d(8 * c, 1, 4, 1, 1)))

    def forward(self, source, neutral, texture):
        return self.layers(torch.cat([source, neutral, texture], dim=1))

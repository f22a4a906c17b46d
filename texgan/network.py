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
        return F.leaky_relu(self.conv(x), SLOPE, inplace=True)


class DoublingConv(nn.Conv2d):
    """A 3 x 3 convolution of x at twice its resolution (nearest) and of a skip, laid on each other as channels.

    Some of the nine texels under the kernel are the same one of x, so that their weights can be added up beforehand:
    that part is a transposed 4 x 4 convolution, which takes 4/9 of the operations, and nothing need be enlarged.

    Parameters
    ----------
    a, skip, b : int, channels of x, of the skip and of the result
    """

    def __init__(self, a, skip, b):
        super().__init__(a + skip, b, 3, 1, 1)
        self._doubled, self._frozen = a, None

    def forward(self, x, skip):
        """(N, a, s, s), (N, skip, 2s, 2s) -> (N, b, 2s, 2s)."""
        of_x, of_skip = self._frozen or self._split()
        out = F.conv2d(skip, of_skip, self.bias, padding=1)
        out += F.conv_transpose2d(x, of_x, stride=2, padding=1)
        return out

    def freeze(self):
        """Adds the weights up once: from now on they neither change nor move to another device."""
        with torch.no_grad():
            self._frozen = tuple(w.contiguous(memory_format=torch.channels_last) for w in self._split())

    def _split(self):
        fold = lambda a, b, c, dim: torch.stack([c, b + c, a + b, a], dim)
        rows = fold(*self.weight[:, :self._doubled].unbind(2), 2)
        return fold(*rows.unbind(3), 3).transpose(0, 1), self.weight[:, self._doubled:]


class Up(nn.Module):
    """Doubles the resolution and adds what the encoder saw there: (N, a, s, s), (N, k, 2s, 2s) -> (N, b, 2s, 2s)."""

    def __init__(self, a, skip, b):
        super().__init__()
        self.conv = DoublingConv(a, skip, b)

    def forward(self, x, skip):
        return F.leaky_relu(self.conv(x, skip), SLOPE, inplace=True)


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
        self.head = DoublingConv(channels, 6, channels)
        self.last = nn.Conv2d(channels, 3, 3, 1, 1)
        self.everywhere = nn.Parameter(torch.zeros(1, 3, size, size))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, SLOPE)
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.last.weight)

    def freeze(self):
        """Readies the network for inference: its weights do not change any more."""
        self.eval().requires_grad_(False)
        for module in self.modules():
            if isinstance(module, DoublingConv):
                module.freeze()
        return self

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
        x = F.leaky_relu(self.head(x, given), SLOPE, inplace=True)
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

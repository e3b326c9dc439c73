"""Networks of kinds that the libraries of bench/survey.py lack, each in the form its paper gives, narrow.

A function returns the network and the shapes of its inputs.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


def dcgan() -> tuple:
    """The generator of DCGAN (Radford et al., 2015)."""
    widths = (100, 128, 64, 32, 16)
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers += [nn.ConvTranspose2d(a, b, 4, 2 if i else 1, 1 if i else 0, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh()), [(2, 100, 1, 1)]


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, *body: nn.Module):
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def style_transfer() -> tuple:
    """Johnson et al. (2016) with instance normalisation and reflection padding."""

    def conv(a: int, b: int, k: int, s: int = 1) -> list[nn.Module]:
        return [nn.ReflectionPad2d(k // 2), nn.Conv2d(a, b, k, s), nn.InstanceNorm2d(b, affine=True)]

    blocks = [Residual(*conv(64, 64, 3), nn.ReLU(), *conv(64, 64, 3)) for _ in range(3)]
    up = [nn.Upsample(scale_factor=2), *conv(64, 32, 3), nn.ReLU(), nn.Upsample(scale_factor=2), *conv(32, 16, 3), nn.ReLU()]
    return nn.Sequential(*conv(3, 16, 9), nn.ReLU(), *conv(16, 32, 3, 2), nn.ReLU(), *conv(32, 64, 3, 2), nn.ReLU(), *blocks, *up,
                         nn.ReflectionPad2d(4), nn.Conv2d(16, 3, 9)), [(2, 3, 128, 128)]


def cyclegan() -> tuple:
    """CycleGAN's generator (Zhu et al., 2017): InstanceNorm without parameters, ConvTranspose with output padding."""

    def conv(a: int, b: int, k: int, s: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(a, b, k, s, k // 2, padding_mode="reflect"), nn.InstanceNorm2d(b), nn.ReLU()]

    blocks = [Residual(*conv(64, 64, 3), *conv(64, 64, 3)[:2]) for _ in range(3)]
    up = [m for a, b in ((64, 32), (32, 16)) for m in (nn.ConvTranspose2d(a, b, 3, 2, 1, 1), nn.InstanceNorm2d(b), nn.ReLU())]
    return nn.Sequential(*conv(3, 16, 7), *conv(16, 32, 3, 2), *conv(32, 64, 3, 2), *blocks, *up, nn.Conv2d(16, 3, 7, 1, 3),
                         nn.Tanh()), [(2, 3, 128, 128)]


class StyleLayer(nn.Module):
    """A modulated convolution of StyleGAN2 (Karras et al., 2020), with noise and upsampling."""

    def __init__(self, a: int, b: int, style: int, up: bool):
        super().__init__()
        self.weight, self.affine, self.up = nn.Parameter(torch.randn(b, a, 3, 3)), nn.Linear(style, a), up
        self.bias, self.noise = nn.Parameter(torch.randn(b) * 0.1), nn.Parameter(torch.randn(1, 1, 1, 1))

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        scale = self.affine(style) + 1
        if self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        weight = self.weight[None] * scale[:, None, :, None, None]
        norm = torch.rsqrt((weight**2).sum((2, 3, 4)) + 1e-8)
        y = F.conv2d(x * scale[:, :, None, None], self.weight, padding=1) * norm[:, :, None, None]
        return F.leaky_relu(y + self.bias[None, :, None, None], 0.2) * 2**0.5


class StyleGan(nn.Module):
    def __init__(self):
        super().__init__()
        self.mapping = nn.Sequential(*(m for _ in range(4) for m in (nn.Linear(64, 64), nn.LeakyReLU(0.2))))
        self.start = nn.Parameter(torch.randn(1, 64, 4, 4))
        widths = (64, 64, 64, 32, 32, 16)
        self.layers = nn.ModuleList(StyleLayer(a, b, 64, i > 0) for i, (a, b) in enumerate(pairwise(widths)))
        self.rgb = nn.Conv2d(16, 3, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        style = self.mapping(z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8))
        x = self.start.expand(z.shape[0], -1, -1, -1)
        for layer in self.layers:
            x = layer(x, style)
        return self.rgb(x)


class Edsr(nn.Module):
    """EDSR (Lim et al., 2017): residual blocks, PixelShuffle; `norm`: with the norms of SRResNet (Ledig et al., 2017)."""

    def __init__(self, norm: bool):
        super().__init__()

        def block() -> nn.Module:
            conv = [nn.Conv2d(32, 32, 3, 1, 1), nn.BatchNorm2d(32)] if norm else [nn.Conv2d(32, 32, 3, 1, 1)]
            last = [nn.Conv2d(32, 32, 3, 1, 1), nn.BatchNorm2d(32)] if norm else [nn.Conv2d(32, 32, 3, 1, 1)]
            return Residual(*conv, nn.PReLU() if norm else nn.ReLU(), *last)

        self.head, self.body = nn.Conv2d(3, 32, 3, 1, 1), nn.Sequential(*(block() for _ in range(4)), nn.Conv2d(32, 32, 3, 1, 1))
        self.tail = nn.Sequential(nn.Conv2d(32, 128, 3, 1, 1), nn.PixelShuffle(2), nn.Conv2d(32, 3, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(x)
        return self.tail(x + self.body(x))


def espcn() -> tuple:
    """Shi et al. (2016)."""
    layers = [nn.Conv2d(1, 64, 5, 1, 2), nn.Tanh(), nn.Conv2d(64, 32, 3, 1, 1), nn.Tanh(), nn.Conv2d(32, 9, 3, 1, 1)]
    return nn.Sequential(*layers, nn.PixelShuffle(3)), [(2, 1, 128, 128)]


class Unet(nn.Module):
    """U-Net (Ronneberger et al., 2015) in two or three dimensions, ConvTranspose upwards."""

    def __init__(self, dims: int, norm: str, widths: tuple[int, ...] = (16, 32, 64), channels: int = 1):
        super().__init__()
        conv, up, pool = ((nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d), (nn.Conv3d, nn.ConvTranspose3d, nn.MaxPool3d))[dims - 2]
        kinds = {"batch": (nn.BatchNorm2d, nn.BatchNorm3d)[dims - 2], "instance": (nn.InstanceNorm2d, nn.InstanceNorm3d)[dims - 2],
                 "group": lambda c: nn.GroupNorm(4, c)}

        def block(a: int, b: int) -> nn.Module:
            return nn.Sequential(*(m for c in (a, b) for m in (conv(c, b, 3, 1, 1), kinds[norm](b), nn.LeakyReLU(0.01))))

        self.pool = pool(2)
        self.down = nn.ModuleList(block(a, b) for a, b in zip((channels, *widths), widths))
        self.ups = nn.ModuleList(up(b, a, 2, 2) for a, b in reversed(list(pairwise(widths))))
        self.joined = nn.ModuleList(block(2 * a, a) for a in reversed(widths[:-1]))
        self.last = conv(widths[0], 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for block in self.down:
            x = block(self.pool(x) if kept else x)
            kept.append(x)
        for up, block, skip in zip(self.ups, self.joined, reversed(kept[:-1])):
            x = block(torch.cat([skip, up(x)], 1))
        return self.last(x)


class Hourglass(nn.Module):
    """A stacked hourglass (Newell et al., 2016): pre-activation blocks, nearest upsampling."""

    def __init__(self):
        super().__init__()

        def block() -> nn.Module:
            layers: list[nn.Module] = []
            for a, b, k in ((32, 16, 1), (16, 16, 3), (16, 32, 1)):
                layers += [nn.BatchNorm2d(a), nn.ReLU(), nn.Conv2d(a, b, k, 1, k // 2)]
            return Residual(*layers)

        self.stem = nn.Sequential(nn.Conv2d(3, 32, 7, 2, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2))
        self.blocks = nn.ModuleList(nn.ModuleList(block() for _ in range(3)) for _ in range(3))
        self.inner, self.heat = block(), nn.Conv2d(32, 17, 1)

    def glass(self, x: torch.Tensor, depth: int) -> torch.Tensor:
        if depth == 3:
            return self.inner(x)
        side, down, after = self.blocks[depth]
        low = after(self.glass(down(F.max_pool2d(x, 2)), depth + 1))
        return side(x) + F.interpolate(low, scale_factor=2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.heat(self.glass(self.stem(x), 0))


class Crnn(nn.Module):
    """CRNN (Shi et al., 2015): convolutions, then two bidirectional LSTMs over the columns."""

    def __init__(self):
        super().__init__()
        layers: list[nn.Module] = []
        for a, b, pool in ((1, 32, (2, 2)), (32, 64, (2, 2)), (64, 128, None), (128, 128, (2, 1)), (128, 256, (2, 1))):
            layers += [nn.Conv2d(a, b, 3, 1, 1), nn.BatchNorm2d(b), nn.ReLU()] + ([nn.MaxPool2d(pool)] if pool else [])
        self.features, self.rnn = nn.Sequential(*layers), nn.LSTM(512, 64, 2, bidirectional=True)
        self.classes = nn.Linear(128, 40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.features(x)
        y = y.flatten(1, 2).permute(2, 0, 1)
        return F.log_softmax(self.classes(self.rnn(y)[0]), 2)


class Ecapa(nn.Module):
    """ECAPA-TDNN (Desplanques et al., 2020): Res2 blocks, squeeze-and-excitation, attentive statistics."""

    class Block(nn.Module):
        def __init__(self, c: int, dilation: int):
            super().__init__()
            self.first, self.last = self.tdnn(c, c, 1), self.tdnn(c, c, 1)
            self.parts = nn.ModuleList(self.tdnn(c // 4, c // 4, 3, dilation) for _ in range(3))
            self.squeeze = nn.Sequential(nn.Conv1d(c, 16, 1), nn.ReLU(), nn.Conv1d(16, c, 1), nn.Sigmoid())

        @staticmethod
        def tdnn(a: int, b: int, k: int, dilation: int = 1) -> nn.Module:
            return nn.Sequential(nn.Conv1d(a, b, k, dilation=dilation, padding=dilation * (k // 2), padding_mode="reflect"),
                                 nn.ReLU(), nn.BatchNorm1d(b))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            parts, done = self.first(x).chunk(4, 1), []
            for i, part in enumerate(parts):
                done.append(part if i == 0 else self.parts[i - 1](part if i == 1 else part + done[-1]))
            y = self.last(torch.cat(done, 1))
            return x + y * self.squeeze(y.mean(2, keepdim=True))

    def __init__(self):
        super().__init__()
        self.stem = self.Block.tdnn(80, 64, 5)
        self.blocks = nn.ModuleList(self.Block(64, d) for d in (2, 3, 4))
        self.join, self.norm, self.last = nn.Conv1d(192, 192, 1), nn.BatchNorm1d(384), nn.Linear(384, 96)
        self.attention = nn.Sequential(self.Block.tdnn(576, 32, 1), nn.Tanh(), nn.Conv1d(32, 192, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, kept = self.stem(x), []
        for block in self.blocks:
            x = block(x)
            kept.append(x)
        x = F.relu(self.join(torch.cat(kept, 1)))
        spread = (x.var(2, keepdim=True) + 1e-5).sqrt()
        joined = torch.cat([x, x.mean(2, keepdim=True).expand_as(x), spread.expand_as(x)], 1)
        weight = torch.softmax(self.attention(joined), 2)
        mean = (weight * x).sum(2)
        deviation = ((weight * x**2).sum(2) - mean**2).clamp(min=1e-5).sqrt()
        return self.last(self.norm(torch.cat([mean, deviation], 1)))


class ConvTasnet(nn.Module):
    """Conv-TasNet (Luo and Mesgarani, 2019): a learnt filter bank, a temporal convolutional network with global norms."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Conv1d(1, 64, 16, 8), nn.ConvTranspose1d(64, 1, 16, 8)
        self.inlet = nn.Sequential(nn.GroupNorm(1, 64), nn.Conv1d(64, 32, 1))
        self.blocks = nn.ModuleList(
            Residual(nn.Conv1d(32, 64, 1), nn.PReLU(), nn.GroupNorm(1, 64),
                     nn.Conv1d(64, 64, 3, padding=2**i, dilation=2**i, groups=64), nn.PReLU(), nn.GroupNorm(1, 64),
                     nn.Conv1d(64, 32, 1)) for i in range(4))
        self.mask = nn.Sequential(nn.PReLU(), nn.Conv1d(32, 128, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.encoder(x)
        y = self.inlet(features)
        for block in self.blocks:
            y = block(y)
        masked = self.mask(y).unflatten(1, (2, 64)) * features[:, None]
        return self.decoder(masked.flatten(0, 1)).unflatten(0, (-1, 2))


class Demucs(nn.Module):
    """Demucs (Defossez et al., 2019): strided convolutions, GLU, an LSTM, transposed convolutions."""

    def __init__(self):
        super().__init__()
        widths = (1, 16, 32, 64)
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv1d(a, b, 8, 4), nn.ReLU(), nn.Conv1d(b, 2 * b, 1), nn.GLU(1)) for a, b in pairs)
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv1d(b, 2 * b, 3, 1, 1), nn.GLU(1), nn.ConvTranspose1d(b, a, 8, 4)) for a, b in reversed(pairs))
        self.rnn, self.after = nn.LSTM(64, 64, 1, bidirectional=True), nn.Linear(128, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for layer in self.down:
            x = layer(x)
            kept.append(x)
        x = self.after(self.rnn(x.permute(2, 0, 1))[0]).permute(1, 2, 0)
        for layer, skip in zip(self.up, reversed(kept)):
            x = layer(x + skip[..., : x.shape[-1]])
        return x


def wav2vec2() -> tuple:
    """The convolutions of wav2vec 2.0 (Baevski et al., 2020): GroupNorm over each channel, then GELU."""
    layers = [nn.Conv1d(1, 64, 10, 5, bias=False), nn.GroupNorm(64, 64), nn.GELU()]
    for kernel in (3, 3, 3, 3, 2, 2):
        layers += [nn.Conv1d(64, 64, kernel, 2, bias=False), nn.GELU()]
    return nn.Sequential(*layers), [(2, 1, 16000)]


class WaveNet(nn.Module):
    """WaveNet's gated dilated convolutions (van den Oord et al., 2016)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(1, 32, 1)
        self.gates = nn.ModuleList(nn.Conv1d(32, 64, 2, dilation=2**i) for i in range(6))
        self.outs = nn.ModuleList(nn.Conv1d(32, 64, 1) for _ in range(6))
        self.last = nn.Sequential(nn.ReLU(), nn.Conv1d(32, 32, 1), nn.ReLU(), nn.Conv1d(32, 64, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, total = self.first(x), 0.0
        for i, (gate, out) in enumerate(zip(self.gates, self.outs)):
            a, b = gate(F.pad(x, (2**i, 0))).chunk(2, 1)
            residual, skip = out(torch.tanh(a) * torch.sigmoid(b)).chunk(2, 1)
            x, total = x + residual, total + skip
        return self.last(total)


def hifigan() -> tuple:
    """The generator of HiFi-GAN (Kong et al., 2020)."""
    layers: list[nn.Module] = [nn.Conv1d(80, 128, 7, 1, 3)]
    for a, b, rate in ((128, 64, 8), (64, 32, 8), (32, 16, 2)):
        layers += [nn.LeakyReLU(0.1), nn.ConvTranspose1d(a, b, 2 * rate, rate, rate // 2)]
        for d in (1, 3, 5):
            layers.append(Residual(nn.LeakyReLU(0.1), nn.Conv1d(b, b, 3, 1, d, d), nn.LeakyReLU(0.1), nn.Conv1d(b, b, 3, 1, 1)))
    return nn.Sequential(*layers, nn.LeakyReLU(), nn.Conv1d(16, 1, 7, 1, 3), nn.Tanh()), [(2, 80, 32)]


def resnet1d() -> tuple:
    """A 1-D ResNet, as for electrocardiograms."""
    layers: list[nn.Module] = [nn.Conv1d(12, 32, 15, 2, 7), nn.BatchNorm1d(32), nn.ReLU(), nn.MaxPool1d(2)]
    for _ in range(4):
        layers += [Residual(nn.Conv1d(32, 32, 15, 1, 7), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(), nn.Conv1d(32, 32, 15, 1, 7),
                            nn.BatchNorm1d(32)), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 5)), [(2, 12, 2048)]


class Eegnet(nn.Module):
    """EEGNet (Lawhern et al., 2018): a convolution over time, depthwise over electrodes, separable; ELU."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, (1, 64), padding="same", bias=False), nn.BatchNorm2d(8),
            nn.Conv2d(8, 16, (22, 1), groups=8, bias=False), nn.BatchNorm2d(16), nn.ELU(), nn.AvgPool2d((1, 4)),
            nn.Conv2d(16, 16, (1, 16), padding="same", groups=16, bias=False), nn.Conv2d(16, 16, 1, bias=False),
            nn.BatchNorm2d(16), nn.ELU(), nn.AvgPool2d((1, 8)), nn.Flatten(), nn.LazyLinear(4))
        self.layers(torch.zeros(1, 1, 22, 256))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def pointnet() -> tuple:
    """PointNet without its transforms (Qi et al., 2017): shared layers over points, a maximum over all of them."""
    layers = [m for a, b in ((3, 64), (64, 128), (128, 256)) for m in (nn.Conv1d(a, b, 1), nn.BatchNorm1d(b), nn.ReLU())]
    head = [nn.Linear(256, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 10)]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool1d(1), nn.Flatten(), *head, nn.LogSoftmax(1)), [(2, 3, 1024)]


NETWORKS = {
    "dcgan": dcgan,
    "style_transfer": style_transfer,
    "cyclegan": cyclegan,
    "stylegan": lambda: (StyleGan(), [(2, 64)]),
    "edsr": lambda: (Edsr(norm=False), [(2, 3, 96, 96)]),
    "srresnet": lambda: (Edsr(norm=True), [(2, 3, 96, 96)]),
    "espcn": espcn,
    "unet": lambda: (Unet(2, "batch", (16, 32, 64, 128)), [(2, 1, 128, 128)]),
    "unet_groups": lambda: (Unet(2, "group"), [(2, 1, 128, 128)]),
    "unet3d": lambda: (Unet(3, "batch"), [(2, 1, 32, 32, 32)]),
    "unet3d_instance": lambda: (Unet(3, "instance"), [(2, 1, 32, 32, 32)]),
    "hourglass": lambda: (Hourglass(), [(2, 3, 128, 128)]),
    "crnn": lambda: (Crnn(), [(2, 1, 32, 128)]),
    "ecapa": lambda: (Ecapa(), [(2, 80, 200)]),
    "conv_tasnet": lambda: (ConvTasnet(), [(2, 1, 8000)]),
    "demucs": lambda: (Demucs(), [(2, 1, 5396)]),
    "wav2vec2": wav2vec2,
    "wavenet": lambda: (WaveNet(), [(2, 1, 2000)]),
    "hifigan": hifigan,
    "resnet1d": resnet1d,
    "eegnet": lambda: (Eegnet(), [(2, 1, 22, 256)]),
    "pointnet": pointnet,
}

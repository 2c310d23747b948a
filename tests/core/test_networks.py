"""The two networks: what they are made of and what they listen to."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from ddpmctl import assembly
from ddpmctl.config import PRESETS, load_preset
from ddpmctl.core.classic import Classic
from ddpmctl.core.embeddings import sinusoidal
from ddpmctl.core.unet import ResidualBlock, UNet

CLASSIC_BLOCKS = {
    "down1": (1, 64),
    "down2": (64, 128),
    "down3": (128, 256),
    "bottleneck": (256, 512),
    "decode3": (512, 128),
    "decode2": (256, 64),
    "decode1": (128, 64),
}
CLASSIC_UPSAMPLERS = {"up3": (512, 256), "up2": (128, 128), "up1": (64, 64)}


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def inputs(channels: int = 1, size: int = 32, labels: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, channels, size, size, generator=generator)
    return x, torch.tensor([0, 400, 999]), torch.tensor([0, labels // 2, labels - 1])


def awake(network: nn.Module) -> nn.Module:
    """The network with random weights everywhere: some begin as zeros."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return network.eval()


def describe(layer: nn.Module) -> tuple[object, ...]:
    """What a layer of `Classic` is, in its own numbers."""
    match layer:
        case nn.Conv2d() | nn.ConvTranspose2d():
            sizes = (layer.kernel_size, layer.stride, layer.padding)
            return (type(layer), layer.in_channels, layer.out_channels, *sizes, layer.bias is not None)
        case nn.GroupNorm():
            return (type(layer), layer.num_groups, layer.num_channels)
        case nn.LeakyReLU():
            return (type(layer), layer.negative_slope)
    raise AssertionError(layer)


def test_classic_has_exactly_6593729_parameters() -> None:
    assert parameters(Classic()) == 6_593_729


@pytest.mark.parametrize(("name", "widths"), CLASSIC_BLOCKS.items())
def test_a_classic_block_is_twice_convolution_norm_and_activation(name: str, widths: tuple[int, int]) -> None:
    wide = widths[1]
    tail = [(nn.GroupNorm, 8, wide), (nn.LeakyReLU, 0.1)]
    expected = [(nn.Conv2d, before, wide, (3, 3), (1, 1), (1, 1), True) for before in (widths[0], wide)]
    assert [describe(layer) for layer in getattr(Classic(), name)] == [expected[0], *tail, expected[1], *tail]


@pytest.mark.parametrize(("name", "widths"), CLASSIC_UPSAMPLERS.items())
def test_classic_doubles_by_transposed_convolutions(name: str, widths: tuple[int, int]) -> None:
    assert describe(getattr(Classic(), name)) == (nn.ConvTranspose2d, *widths, (2, 2), (2, 2), (0, 0), True)


def test_classic_ends_in_a_1x1_convolution_and_embeds_ten_labels() -> None:
    network = Classic()
    assert describe(network.output) == (nn.Conv2d, 64, 1, (1, 1), (1, 1), (0, 0), True)
    assert network.embedding.label.weight.shape == (10, 256)
    assert (network.projection.in_features, network.projection.out_features) == (512, 512)


def classic_by_hand(network: Classic, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """The forward pass as the issue words it."""
    skips = []
    for down in (network.down1, network.down2, network.down3):
        x = down(x)
        skips.append(x)
        x = F.max_pool2d(x, 2)
    x = network.bottleneck(x)
    assert x.shape[1:] == (512, 4, 4)
    embedded = torch.cat([network.embedding.label.weight[label], sinusoidal(t, 256)], dim=1)
    x = x + network.projection(embedded)[:, :, None, None]
    for up, decode in (
        (network.up3, network.decode3),
        (network.up2, network.decode2),
        (network.up1, network.decode1),
    ):
        x = decode(torch.cat([up(x), skips.pop()], dim=1))
    answer: Tensor = network.output(x)
    return answer


def test_classic_computes_what_it_should() -> None:
    network = Classic().eval()
    with torch.no_grad():
        assert_close(network(*inputs()), classic_by_hand(network, *inputs()))


def small(channels: int = 1, num_classes: int = 10, blocks: int = 1, patch: int = 2) -> UNet:
    return UNet(channels, num_classes, widths=(16, 32), blocks=blocks, patch=patch, embedding=16)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_classes", [1, 10, 47])
@pytest.mark.parametrize(("blocks", "patch", "size"), [(1, 1, 16), (2, 2, 32), (1, 4, 64)])
def test_unet_answers_in_the_shape_of_the_image(
    channels: int, num_classes: int, blocks: int, patch: int, size: int
) -> None:
    x, t, _ = inputs(channels, size)
    label = torch.tensor([0, num_classes - 1, num_classes])  # the last is the null label
    answer = awake(small(channels, num_classes, blocks, patch))(x, t, label)
    assert answer.shape == x.shape
    assert answer.isfinite().all()


def test_a_new_unet_answers_nothing() -> None:
    network = small()
    x, t, label = inputs()
    assert network(x, t, label).equal(network(-x, t.flip(0), label.flip(0)))


def conditioned(network: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in network.named_modules() if isinstance(module, ResidualBlock)}


@pytest.mark.parametrize("listener", ["time", "label"])
def test_every_block_of_the_unet_hears_time_and_label(listener: str) -> None:
    network = awake(small(blocks=2))
    blocks = conditioned(network)
    # Two levels of two blocks down and up, and the bottleneck.
    assert len(blocks) == 9
    heard: dict[str, list[Tensor]] = {name: [] for name in blocks}
    for name, block in blocks.items():
        block.register_forward_hook(lambda _, given, __, name=name: heard[name].append(given[1]))
    x, t, label = inputs()
    with torch.no_grad():
        network(x, t, label)
        network(x, t + 1 if listener == "time" else t, label.roll(1) if listener == "label" else label)
    for name, (before, after) in heard.items():
        assert not before.equal(after), name


@pytest.mark.parametrize("network", [small(blocks=2), Classic()], ids=["unet", "classic"])
def test_every_weight_has_a_say(network: nn.Module) -> None:
    x, t, label = inputs()
    # A random weighting of the pixels: a plain sum would cancel what a last norm leaves.
    (awake(network)(x, t, label) * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    silent = [
        name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert silent == []


def test_the_bottleneck_hears_the_embedding_itself() -> None:
    network = awake(small())
    x, t, label = inputs()
    before = network(x, t, label)
    with torch.no_grad():
        network.get_parameter("at_bottleneck.weight").zero_()
    assert not torch.allclose(before, network(x, t, label))


def test_a_residual_block_begins_as_its_skip() -> None:
    block = ResidualBlock(16, 16, 8)
    x, condition = torch.randn(2, 16, 8, 8), torch.randn(2, 8)
    nn.init.zeros_(block.get_parameter("conv2.bias"))
    assert_close(block(x, condition), x)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_builds_its_network(preset: str) -> None:
    config = load_preset(preset).config.model
    network = assembly.build_network(config)
    assert isinstance(network, Classic if config.network == "classic" else UNet)
    x, t, label = inputs(config.channels, config.image_size, config.num_classes)
    with torch.no_grad():
        assert network(x, t, label).shape == x.shape

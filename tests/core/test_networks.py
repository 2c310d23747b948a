"""The two networks: structure and conditioning."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from ddpmctl.build import build_network
from ddpmctl.config import PRESETS, load_preset
from ddpmctl.core.classic import Classic
from ddpmctl.core.gaussian import GaussianResidual
from ddpmctl.core.norms import NORMS
from ddpmctl.core.unet import ResidualBlock, UNet
from tests import original


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


def test_classic_has_exactly_6593729_parameters() -> None:
    assert parameters(Classic()) == 6_593_729


def test_classic_has_the_tensors_of_the_original_in_their_order() -> None:
    tensors = Classic().state_dict()
    assert [(name, tuple(tensor.shape)) for name, tensor in tensors.items()] == list(original.SHAPES.items())


def test_classic_computes_what_the_original_does() -> None:
    network, state = Classic().eval(), original.random_state()
    network.load_state_dict(state)
    with torch.no_grad():
        assert_close(network(*inputs()), original.predict(state, *inputs()))


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
        network.get_parameter("bottleneck_condition.weight").zero_()
    assert not torch.allclose(before, network(x, t, label))


def test_a_residual_block_begins_as_its_skip() -> None:
    block = ResidualBlock(16, 16, 8, NORMS["group"])
    x, condition = torch.randn(2, 16, 8, 8), torch.randn(2, 8)
    nn.init.zeros_(block.get_parameter("conv2.bias"))
    assert_close(block(x, condition), x)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_builds_its_network(preset: str) -> None:
    config = load_preset(preset).config
    network, model = build_network(config), config.model
    inner = network.network if isinstance(network, GaussianResidual) else network
    assert isinstance(network, GaussianResidual) == (model.gaussian_rank > 0)
    assert isinstance(inner, Classic if model.network == "classic" else UNet)
    x, t, label = inputs(model.channels, model.sample_size, model.num_classes)
    with torch.no_grad():
        assert network(x, t, label).shape == x.shape


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_group_norm_keeps_bf16_under_autocast(kind: str) -> None:
    """On CUDA autocast would run it, and what follows, in float32. Tensors without data stand for those of a GPU."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        with torch.device(kind):
            norm = NORMS["group"](32)
        x = torch.empty(2, 32, 8, 8, device=kind, dtype=torch.bfloat16, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):  # without a GPU there is none for CUDA
            y = norm(x)
        assert y.dtype == torch.bfloat16
        if kind == "cuda":  # whose backward pass asks for a driver
            return
        y.sum().backward()
        assert x.grad is not None
        assert x.grad.dtype == torch.bfloat16
        assert norm.weight.grad is not None
        assert norm.weight.grad.dtype == torch.float32

"""The average of the weights."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from ddpmctl.core.ema import EMA


class Holder(nn.Module):
    """One parameter and one buffer."""

    weight: nn.Parameter
    count: Tensor

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), value, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def become(self, value: float) -> None:
        """Change the parameter as a training step would."""
        with torch.no_grad():
            self.weight.fill_(value)


def weight(ema: EMA) -> Tensor:
    """The averaged parameter."""
    return ema.module.get_parameter("weight").detach()


def followed(lag: float, steps: int) -> Tensor:
    """The average of a parameter that equals 1, 2, 3, .. after each step."""
    module = Holder(-1000.0)
    ema = EMA(module, lag)
    for step in range(1, steps + 1):
        module.become(step)
        ema.update(module)
    return weight(ema)


@pytest.mark.parametrize("lag", [0.03, 0.07, 0.25])
@pytest.mark.parametrize("steps", [300, 3000])
def test_lags_by_a_share_of_the_steps_whatever_their_number(lag: float, steps: int) -> None:
    average = followed(lag, steps)[0].item()
    assert steps - average == pytest.approx(lag * steps, rel=0.02, abs=0.6)


def test_forgets_the_random_start_at_once() -> None:
    assert followed(0.07, 1).tolist() == [1.0, 1.0]


def test_weighs_steps_by_a_power_of_their_number() -> None:
    # A lag of 0.25 is gamma = 2 (Karras et al. 2024, eq. 10): decays (1 - 1/n)^3.
    expected = 0.0
    for step in range(1, 41):
        decay = (1 - 1 / step) ** 3
        expected = decay * expected + (1 - decay) * step
    assert_close(followed(0.25, 40), torch.full((2,), expected, dtype=torch.float64))


def test_no_lag_is_a_plain_copy() -> None:
    assert followed(0.0, 17).tolist() == [17.0, 17.0]


def test_buffers_are_copied() -> None:
    module = Holder()
    ema = EMA(module, 0.1)
    module.count.fill_(5)
    ema.update(module)
    module.count.fill_(9)
    ema.update(module)
    assert ema.module.get_buffer("count").item() == 9


def test_the_average_is_apart_from_the_module() -> None:
    module = Holder(1.0)
    ema = EMA(module, 0.1)
    module.become(2.0)
    assert weight(ema).tolist() == [1.0, 1.0]
    assert not ema.module.training
    assert module.training
    assert not any(parameter.requires_grad for parameter in ema.module.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("lag", [-0.1, 0.5, 1.0])
def test_impossible_lags_are_refused(lag: float) -> None:
    with pytest.raises(ValueError, match=f"the EMA lag must be in .*, not {lag}"):
        EMA(Holder(), lag)

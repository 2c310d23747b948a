"""The target of a student, against `diffusers`: one of its DDIM steps ends where the teacher's several do."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.testing import assert_close

from ddpmctl.core.diffusion import Diffusion
from ddpmctl.core.distillation import Distillation, Teacher
from ddpmctl.core.schedule import SCHEDULES

SHAPE = (4, 1, 6, 6)


class Network:
    """A made-up network whose answer depends on all that it is given, and that counts its images."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        self.images += len(x)
        return torch.tanh(x) * 0.6 + ((t / 1000 - 0.3) * 0.5 + label * 0.07).view(-1, 1, 1, 1)


def distillation(
    steps: int,
    substeps: int,
    network: Network,
    scale: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
    length: int = 1000,
) -> Distillation:
    diffusion = Diffusion(SCHEDULES["cosine"](1000), "v", clip_x0=True)
    teacher = Teacher(network, diffusion, scale, interval, null_label=10)
    return Distillation(teacher, diffusion, steps, substeps, length, torch.device("cpu"))


def scheduler(substeps: int) -> Any:
    schedule = SCHEDULES["cosine"](1000)
    made: Any = DDIMScheduler(
        num_train_timesteps=1000, trained_betas=schedule.betas.numpy(), prediction_type="v_prediction",
        clip_sample=True, timestep_spacing="trailing", set_alpha_to_one=True,
    )  # fmt: skip
    made.set_timesteps(substeps)
    return made


def noise(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


# Numbers that divide 1000: for others diffusers rounds its timesteps differently.
@pytest.mark.parametrize(("steps", "substeps"), [(1, 8), (2, 4), (4, 5), (8, 5)])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_one_step_to_the_target_ends_where_the_steps_of_the_teacher_end(
    steps: int, substeps: int, guidance: float
) -> None:
    label = torch.tensor([0, 3, 7, 9])
    student = distillation(steps, substeps, Network(), guidance)
    fine, coarse, network = scheduler(steps * substeps), scheduler(steps), Network()
    assert student.timesteps.tolist() == coarse.timesteps.tolist()
    for start in student.timesteps.tolist():
        x_t = x = noise(start)
        first = fine.timesteps.tolist().index(start)
        for now in fine.timesteps[first : first + substeps]:
            t = now.repeat(len(x))
            answer, unguided = network(x, t, label), network(x, t, torch.full_like(label, 10))
            x = fine.step(
                unguided + guidance * (answer - unguided), int(now), x, use_clipped_model_output=True
            ).prev_sample
        target = student.target(x_t, torch.full((len(x),), start), label)
        # The velocity that a student would answer for that image (Salimans & Ho 2022, eq. 10).
        alpha, sigma = (coarse.alphas_cumprod[start] ** 0.5, (1 - coarse.alphas_cumprod[start]) ** 0.5)
        velocity = alpha * (x_t - alpha * target) / sigma - sigma * target
        unclipped: Any = DDIMScheduler.from_config(coarse.config, clip_sample=False)
        unclipped.set_timesteps(steps)
        assert_close(unclipped.step(velocity, start, x_t).prev_sample, x, atol=2e-4, rtol=0)


def test_a_student_may_begin_below_pure_noise() -> None:
    below, whole = distillation(2, 4, Network(), length=500), distillation(4, 4, Network())
    assert below.timesteps.tolist() == whole.timesteps.tolist()[2:] == [499, 249]
    label, x, t = torch.tensor([1, 2, 3, 4]), noise(), torch.full((4,), 499)
    assert_close(below.target(x, t, label), whole.target(x, t, label))


def test_images_of_one_batch_have_timesteps_of_their_own() -> None:
    student = distillation(4, 2, Network(), 2.0)
    label, x, t = torch.tensor([1, 2, 3, 4]), noise(), student.timesteps
    together = student.target(x, t, label)
    for k in range(4):
        assert_close(together[k : k + 1], student.target(x[k : k + 1], t[k : k + 1], label[k : k + 1]))


def test_the_teacher_is_guided_in_its_interval_only_and_costs_nothing_extra_without_guidance() -> None:
    label, x = torch.tensor([1, 2, 3, 4]), noise()
    plain, guided = distillation(2, 2, Network()), distillation(2, 2, Network(), 3.0)
    late = distillation(2, 2, Network(), 3.0, (0.0, 0.6))
    for t, same in ((999, plain), (499, guided)):
        times = torch.full((4,), t)
        assert_close(late.target(x, times, label), same.target(x, times, label))
    assert not torch.allclose(
        plain.target(x, torch.full((4,), 499), label), guided.target(x, torch.full((4,), 499), label)
    )
    network = Network()
    distillation(1, 4, network).target(x, torch.full((4,), 999), label)
    assert network.images == 4 * 4


def test_the_loss_is_zero_for_the_network_that_answers_the_target() -> None:
    student = distillation(4, 4, Network(), 2.0)
    label, x0, epsilon, t = torch.tensor([1, 2, 3, 4]), torch.rand(SHAPE) * 2 - 1, noise(), student.timesteps

    def perfect(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        schedule = SCHEDULES["cosine"](1000)
        alpha, sigma = (level[t].float().view(-1, 1, 1, 1) for level in (schedule.alpha, schedule.sigma))
        target = student.target(x, t, label)
        return alpha * (x - alpha * target) / sigma - sigma * target

    assert student.loss(perfect, x0, t, epsilon, label).shape == (4,)
    assert float(student.loss(perfect, x0, t, epsilon, label).max()) < 1e-8
    assert float(student.loss(Network(), x0, t, epsilon, label).min()) > 1e-3


def test_the_teacher_has_no_gradient() -> None:
    weight = torch.ones((), requires_grad=True)
    diffusion = Diffusion(SCHEDULES["cosine"](1000), "v")
    teacher = Teacher(lambda x, t, label: x * weight, diffusion, 2.0, (0.0, 1.0), null_label=10)
    student = Distillation(teacher, diffusion, 4, 4, 1000, torch.device("cpu"))
    loss = student.loss(lambda x, t, label: x * 0.5, noise(), student.timesteps, noise(1), torch.arange(4))
    assert not loss.requires_grad

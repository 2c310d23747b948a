"""The choice of devices, with simulated devices."""

import pytest
import torch

from ddpmctl.devices import choose_device, choose_precision
from ddpmctl.errors import DdpmctlError, UsageError
from tests.distributed.support import in_job


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)


@pytest.fixture
def mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


def as_process(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    for name, value in in_job(rank, size).items():
        monkeypatch.setenv(name, value)


def test_one_process_takes_the_gpu_that_it_is_told(gpus: None) -> None:
    assert [str(choose_device(name)) for name in ("auto", "cuda", "cuda:1", "cpu")] == ["cuda", "cuda", "cuda:1", "cpu"]
    assert choose_precision("auto", torch.device("cuda")) == ("bf16", "the GPU has tensor cores")
    with pytest.raises(DdpmctlError, match="cuda:2 does not exist: this machine has 2 GPUs"):
        choose_device("cuda:2")


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_takes_a_gpu_of_its_own(gpus: None, monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    as_process(monkeypatch, rank, 2)
    assert [str(choose_device(name)) for name in ("auto", "cuda", "cpu")] == [f"cuda:{rank}", f"cuda:{rank}", "cpu"]
    with pytest.raises(UsageError, match="2 processes cannot all compute on cuda:1"):
        choose_device("cuda:1")


def test_more_processes_than_gpus_are_refused_with_the_number_that_fits(
    gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_process(monkeypatch, 2, 3)
    with pytest.raises(DdpmctlError, match="3 processes were started on a machine with 2 GPUs") as refused:
        choose_device("auto")
    assert refused.value.hint == "torchrun --nproc-per-node=2, or device='cpu'"
    assert str(choose_device("cpu")) == "cpu"


def test_mps_is_taken_where_torch_has_it_and_is_for_one_process(mps: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [str(choose_device(name)) for name in ("auto", "mps")] == ["mps", "mps"]
    assert choose_precision("auto", torch.device("mps"))[0] == "fp32"
    as_process(monkeypatch, 0, 2)
    assert str(choose_device("auto")) == "cpu"
    with pytest.raises(UsageError, match="MPS supports only one process"):
        choose_device("mps")


def test_without_a_gpu_cuda_is_refused_in_one_process_and_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for _ in range(2):
        with pytest.raises(DdpmctlError, match="CUDA is not available") as refused:
            choose_device("cuda")
        assert refused.value.hint == "device='cpu'"
        as_process(monkeypatch, 0, 2)


def test_variables_of_other_programs_start_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    from ddpmctl.ranks import ranks

    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert (ranks().rank, ranks().size, ranks().is_main_process) == (0, 1, True)

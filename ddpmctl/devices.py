"""The device and the precision to compute in."""

import torch

from ddpmctl.config import DEVICES, PRECISIONS, choose
from ddpmctl.errors import DdpmctlError, Setting, UsageError
from ddpmctl.ranks import Ranks, ranks

CPU = Setting("device", "cpu")
NAMES = {"cpu": "CPU", "cuda": "GPU", "mps": "GPU"}


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` takes a GPU if there is one, and each process of torchrun its own."""
    here = ranks()
    if here.size > 1:
        name = _own(name, here)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, colon, index = name.partition(":")
    if kind not in DEVICES or (colon and not (kind == "cuda" and index.isdecimal())):
        raise UsageError(f"unknown device '{name}'", Setting("device"), " must be auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda":
        if not torch.cuda.is_available():
            reason = "finds no NVIDIA GPU" if torch.version.cuda else "is a CPU-only build"
            raise DdpmctlError(f"CUDA is not available: torch {torch.__version__} {reason}", CPU)
        if int(index or 0) >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            gpus = f"{count} GPU{'' if count == 1 else 's'}"
            raise DdpmctlError(f"{name} does not exist: this machine has {gpus}", Setting("device", "cuda"))
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DdpmctlError("MPS is not available on this machine or in this build of torch", CPU)
    return torch.device(name)


def _own(name: str, here: Ranks) -> str:
    """The name of the device of one of several processes."""
    if name.startswith("cuda:"):
        message = f"{here.size} processes cannot all compute on {name}"
        raise UsageError(message, Setting("device", "cuda"), " assigns one GPU per process")
    if name == "mps":
        raise UsageError("MPS supports only one process", "run without torchrun")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    count = torch.cuda.device_count()
    if torch.cuda.is_available() and here.local_size > count:
        raise DdpmctlError(
            f"{here.local_size} processes were started on a machine with {count} GPU{'' if count == 1 else 's'}",
            f"torchrun --nproc-per-node={count}, or ",
            CPU,
        )
    return f"cuda:{here.local}" if name in ("auto", "cuda") else name


def choose_precision(name: str, device: torch.device) -> tuple[str, str]:
    """``fp32`` or ``bf16``, and why; ``auto`` takes bf16 if the device has instructions for it."""
    if choose("precision", name, PRECISIONS) != "auto":
        return name, "as requested"
    if device.type == "cuda":
        has_bf16, unit = torch.cuda.is_bf16_supported(including_emulation=False), "tensor cores"
    elif device.type == "cpu":
        features = torch.cpu.get_capabilities()
        unit = "AMX" if features.get("amx_bf16") else "AVX512-BF16"
        has_bf16 = bool(features.get("amx_bf16") or features.get("avx512_bf16"))
    else:
        has_bf16, unit = False, ""
    return (
        ("bf16", f"the {NAMES[device.type]} has {unit}")
        if has_bf16
        else ("fp32", f"this {NAMES[device.type]} has no native bf16")
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the memory of any kind of device is exhausted."""
    # Off CUDA torch raises a plain RuntimeError; and so do its libraries on CUDA.
    words = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


def describe_device(device: torch.device) -> str:
    """Human-readable description of a device."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        name = torch.cpu.get_capabilities().get("cpu_name") or "unknown processor"
        return f"cpu ({name}, {torch.get_num_threads()} threads)"
    return str(device)

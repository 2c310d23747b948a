"""Device, precision and processes of a run."""

from dataclasses import dataclass

import torch

from ddpmctl.devices import describe_device
from ddpmctl.distributed.process_group import SINGLE_PROCESS, ProcessGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """The device, the precision (``fp32`` or ``bf16``) and the processes of a run, all resolved."""

    device: torch.device
    precision: str
    group: ProcessGroup = SINGLE_PROCESS

    def describe(self) -> str:
        """Human-readable device, with the number of processes if there are several."""
        processes = f" x {self.group.size} processes" if self.group.size > 1 else ""
        return describe_device(self.device) + processes

    def synchronize(self) -> None:
        """Wait until the device has finished everything launched, so that clocks measure only what comes next."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

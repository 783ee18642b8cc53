"""Which device a process of a run has."""

from __future__ import annotations

import torch

from recbole_cdr_mm import ranks
from recbole_cdr_mm.errors import ConfigError


def choose_device(
    gpu_id: object, n_processes: int, *, said: str | None
) -> tuple[str, torch.device]:
    """The GPUs of this machine's processes, and the device of this one.

    Args:
        gpu_id: Numbers of GPUs as RecBole takes them, `0,1` or `(0, 1)`; empty for the CPU.
        n_processes: Processes of the run on this machine.
        said: Where the user has named GPUs; None: nowhere, so that what there is counts.

    Returns:
        The numbers of the GPUs, with commas, and the device: the CPU where torch sees no GPU.

    Raises:
        ConfigError: If GPUs are named that are not there, or there is not one for each process.
    """
    gpus = [g for g in str(gpu_id).strip("()").replace(" ", "").split(",") if g]
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if said and gpus and len(gpus) != n_processes:
        raise ConfigError(
            f"`gpu_id: {gpu_id}` names {len(gpus)} GPU(s) for {n_processes} process(es), and each"
            f" has one. Give --nproc={len(gpus)}, or as many GPUs as processes."
        )
    if gpus and found and not said:
        gpus = [str(number) for number in range(n_processes)]
        if n_processes > found:
            raise ConfigError(
                f"`nproc: {n_processes}`: each process has a GPU of its own, and torch sees"
                f" {found}. Give fewer processes, or --use_gpu=False."
            )
    if said and any(not g.isdecimal() or int(g) >= found for g in gpus):
        raise ConfigError(
            f"{said}: `gpu_id: {gpu_id}`, but torch {torch.__version__} sees {found} CUDA"
            " device(s). Leave `gpu_id` out to run on what there is, or give --use_gpu=False."
        )
    device = torch.device("cpu")
    if gpus and found:
        device = torch.device("cuda", int(gpus[ranks.local_rank()]))
        torch.cuda.set_device(device)
    return ",".join(gpus), device

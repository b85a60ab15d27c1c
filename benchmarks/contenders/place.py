"""Where a contender computes: the first GPU, or else the processor; and the most memory it held there."""

import resource

import torch

PLACE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
IS_CUDA = PLACE.type == "cuda"


def wait_for_device() -> None:
    """A GPU has only been told what to do when a call returns: a clock is read once that is done."""
    if IS_CUDA:
        torch.cuda.synchronize(PLACE)


def peak_memory() -> dict[str, int]:
    """Bytes. `peak`: on a GPU what torch reserved there, which others cannot have, without the driver's context;
    else the process's. `lived`: of that, what values took at the most; on a processor nobody knows."""
    if IS_CUDA:
        return {"peak": torch.cuda.max_memory_reserved(PLACE), "lived": torch.cuda.max_memory_allocated(PLACE)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"peak": peak, "lived": 0}

"""The machine: processors, GPU, memory, shared memory, files, folders, clock, and processes that find each other."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from fmct.checkup.finding import Finding, ok
from fmct.console.disk_space import existing, in_units
from fmct.console.files import write_text_atomically

GB = 10**9
LEAST_FILES = 4096
LEAST_SHARED_BYTES = 2 * GB
LEAST_FREE_BYTES = 20 * GB
CGROUP = Path("/sys/fs/cgroup")


def check_machine(folders: dict[str, Path]) -> Iterator[Finding]:
    """Look at everything.

    Args:
        folders: what will be written to, by what it is.
    """
    yield check_processors()
    yield check_gpu()
    yield check_memory()
    yield check_shared_memory(Path("/dev/shm"))  # noqa: S108 - loaders' processes hand batches over there
    yield check_file_limit()
    for name, folder in folders.items():
        yield check_folder(name, folder)
    yield check_clock(time.time(), Path(__file__).stat().st_mtime)
    yield check_loopback()


def processors() -> int:
    """Count the processors that this process may use: of its affinity, and of its container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = CGROUP / "cpu.max"
    if quota.is_file():
        limit, period = quota.read_text().split()[:2]
        if limit != "max":
            allowed = min(allowed, max(1, int(limit) // int(period)))
    return allowed


def check_processors() -> Finding:
    """Compare threads with processors: more threads than those make all of them slower."""
    here, threads = processors(), torch.get_num_threads()
    said = f"{here} processors, torch uses {threads} threads"
    if threads > here:
        return Finding("processors", "warning", said, f"export OMP_NUM_THREADS={here}")
    return ok("processors", said)


def check_gpu() -> Finding:
    """Say which GPUs torch sees, and whether there is one that it doesn't."""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        said = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, {in_units(free)} of {in_units(total)}"
        if free < 0.5 * total:
            return Finding("gpu", "warning", f"{said} are free: something else uses it", "look at nvidia-smi")
        return ok("gpu", f"{said} are free; bf16 {'works' if torch.cuda.is_bf16_supported() else 'is emulated'}")
    if Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi"):
        said = f"the machine has one, and torch {torch.__version__} can't use it"
        return Finding(
            "gpu", "problem", said, "install torch for CUDA: make setup without TORCH_INDEX; check the driver"
        )
    return Finding("gpu", "warning", "none: training runs on the processor", "fine for the demo; pretrain on a GPU")


def memory_bytes() -> int:
    """Return the memory that is free for this process: the machine's, or what its container leaves."""
    free = int(psutil.virtual_memory().available)
    limit = CGROUP / "memory.max"
    if limit.is_file() and (text := limit.read_text().strip()) != "max":
        free = min(free, max(0, int(text) - int((CGROUP / "memory.current").read_text())))
    return free


def check_memory() -> Finding:
    """Say how much memory is free."""
    free = memory_bytes()
    if free < 4 * GB:
        return Finding("memory", "warning", f"{in_units(free)} free", "use fewer workers, and a small data.batch_size")
    return ok("memory", f"{in_units(free)} free")


def check_shared_memory(folder: Path) -> Finding:
    """Say whether loaders' processes have room to hand batches over: containers often leave them 64 MB."""
    if not folder.is_dir():
        return ok("shared memory", "not this system's way")
    size = shutil.disk_usage(folder).total
    if size < LEAST_SHARED_BYTES:
        fix = "start the container with --shm-size=8g (or --ipc=host); without it, data.workers 0"
        return Finding("shared memory", "problem", f"{folder} has {in_units(size)}: loaders die with a bus error", fix)
    return ok("shared memory", f"{folder} has {in_units(size)}")


def check_file_limit() -> Finding:
    """Say how many files a process may have open: each loader process needs some for every batch."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < LEAST_FILES:
        can = "" if hard == resource.RLIM_INFINITY or hard >= LEAST_FILES else f" (here {hard} at most: ask an admin)"
        return Finding("open files", "warning", f"at most {soft}", f"ulimit -n {LEAST_FILES}{can}")
    return ok("open files", "no limit" if soft == resource.RLIM_INFINITY else f"at most {soft}")


def check_folder(name: str, folder: Path) -> Finding:
    """Write a file into a folder, or the one above that it would be made in, and look at the space."""
    there = existing(folder)
    probe = there / f".fmct-doctor-{os.getpid()}"
    try:
        write_text_atomically(probe, "can this be written?\n")
        probe.unlink()
    except OSError as error:
        fix = "make it writable, or choose another folder"
        return Finding(name, "problem", f"{folder} can't be written ({error.strerror})", fix)
    free = shutil.disk_usage(there).free
    if free < LEAST_FREE_BYTES:
        fix = f"free some; 100,000 scans in a cache are about {in_units(100_000 * 2.5e6)}"
        return Finding(name, "warning", f"{folder}: {in_units(free)} free", fix)
    return ok(name, f"{folder} can be written, {in_units(free)} free")


def check_clock(now: float, written: float) -> Finding:
    """Hold the clock against when fmct's own files were written: TLS, tokens and logs need the right time."""
    if now < written - 60:
        said = f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(now))} is before fmct was installed"
        return Finding("clock", "problem", said, "set the clock (timedatectl set-ntp true)")
    return ok("clock", time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(now)))


def check_loopback() -> Finding:
    """Let two ends on this machine talk, as processes that train together do before anything else."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(5)
            with socket.create_connection(server.getsockname(), timeout=5) as client:
                end, _ = server.accept()
                with end:
                    client.sendall(b"ping")
                    heard = end.recv(4) == b"ping"
        socket.gethostbyname(socket.gethostname())
    except OSError as error:
        fix = "let 127.0.0.1 through the firewall, and put this machine's name into /etc/hosts"
        return Finding("loopback", "problem", f"processes here can't find each other ({error})", fix)
    if not heard or not torch.distributed.is_available():
        return Finding("loopback", "problem", "torch can't train in several processes here", "install another torch")
    return ok("loopback", "processes here find each other (ddp)")

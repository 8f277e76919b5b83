"""CPU limit of a process by a control group, as a container has it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PERIOD_MICROSECONDS = 100_000  # of the scheduler's quota; that of Kubernetes


@contextlib.contextmanager
def cpu_limit(pid: int, cpus: float) -> Iterator[None]:
    """Limit a process to a number of processors within a context, by version 1 or 2 of the control groups.

    Raises:
        SystemExit: The control groups cannot be written; the message names the directory.
    """
    quota = round(cpus * PERIOD_MICROSECONDS)
    is_v2 = (CGROUPS / "cgroup.controllers").exists()
    group = (CGROUPS if is_v2 else CGROUPS / "cpu") / f"model-name-benchmark-{pid}"
    try:
        group.mkdir()
        if is_v2:
            (group / "cpu.max").write_text(f"{quota} {PERIOD_MICROSECONDS}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as err:
        raise SystemExit(f"{group}: cannot limit the processors: {err.strerror}; it needs root") from err
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the processes move to the parent, from which a group can be removed
            for member in (group / "cgroup.procs").read_text().split():
                (group.parent / "cgroup.procs").write_text(member)
        with contextlib.suppress(OSError):
            group.rmdir()

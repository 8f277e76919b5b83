"""Apply a resource profile to the tasks of a pipeline."""

from kfp import dsl, kubernetes

from model_name.launchers.profiles import Profile


def configure_task(
    task: dsl.PipelineTask, profile: Profile, *, heavy: bool = False, resumable: bool = False
) -> dsl.PipelineTask:
    """Set image, resources, secrets, volumes and retries of a task, and return it.

    Args:
        task: Task of the step.
        profile: Resource profile.
        heavy: Whether the task gets the GPUs.
        resumable: Whether a retry resumes the work of the failed attempt; other tasks are not retried.
    """
    task.set_container_image(profile.image)
    task.set_cpu_request(profile.cpu).set_memory_request(profile.memory).set_memory_limit(profile.memory)
    task.set_caching_options(False)
    if resumable and profile.retries:
        task.set_retry(profile.retries, backoff_duration="30s", backoff_factor=2)
    keys = {key: key for key in profile.secret_keys}
    kubernetes.use_secret_as_env(task, secret_name=profile.secret, secret_key_to_env=keys, optional=True)
    kubernetes.empty_dir_mount(task, volume_name="tmp", mount_path="/tmp")  # noqa: S108  the root is read-only  # nosec B108
    if heavy and profile.gpus:
        _request_gpus(task, profile)
    return task


def _request_gpus(task: dsl.PipelineTask, profile: Profile) -> None:
    task.set_accelerator_type(profile.gpu_type).set_accelerator_limit(profile.gpus)
    for label, value in profile.gpu_node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in profile.gpu_tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))
    kubernetes.empty_dir_mount(
        task,
        volume_name="dshm",
        mount_path="/dev/shm",  # noqa: S108  shared memory of PyTorch's workers  # nosec B108
        medium="Memory",
        size_limit=profile.shared_memory,
    )

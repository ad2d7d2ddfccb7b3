"""All checks, in the order in which they are carried out."""

from __future__ import annotations

from sklearn_wsl_gpu.doctor import between, filesystems, gpu, linux, memory, own, packages, reach, surroundings, windows
from sklearn_wsl_gpu.doctor.checks import Check

_SHUTDOWN = "On Windows: wsl --shutdown, then try again."
_LIST = "Run wsl -l -v, which shows the distributions that there are."
_AGAIN = "Try again; if it stays, restart this side."
_SETTINGS = "Correct that setting; README, Settings, lists them."
#: What goes by settings needs them to be right.
_SET = ("configuration",)
_GPU = "An idle machine answers at once: restart it (on Windows: wsl --shutdown)."

#: On the client's side, before what is looked at in the distribution.
BEFORE = (
    Check("configuration", "client", "fatal", 10, own.look_at_configuration, _SETTINGS),
    Check("windows-build", "windows", "fatal", 10, windows.look_at_build, _AGAIN),
    Check("profile", "between", "warning", 10, surroundings.look_at_profile, _AGAIN),
    Check("elevation", "windows", "warning", 10, windows.look_at_elevation, _AGAIN, _SET),
    Check("antivirus", "between", "information", 20, surroundings.look_at_antivirus, _AGAIN, _SET),
    Check("pool-directory", "windows", "warning", 10, windows.look_at_directory, "Unset pool_dir.", _SET),
    Check("gpu-programs", "windows", "information", 25, windows.look_at_programs, _AGAIN),
    Check("wsl-settings", "between", "warning", 10, surroundings.look_at_settings, _AGAIN),
    # The registry tells first whether there is one: where WSL is not set up, wsl.exe is not asked.
    Check("distribution", "between", "fatal", 70, between.look_at_distribution, _LIST, _SET),
    Check("wsl-version", "between", "fatal", 30, between.look_at_version, _SHUTDOWN, ("distribution",)),
    Check("wsl-start", "between", "fatal", 70, between.look_at_start, _SHUTDOWN, ("wsl-version",)),
    Check("interpreter", "between", "fatal", 130, between.look_at_interpreter, "sklearn-wsl-gpu setup", ("wsl-start",)),
    Check("clock", "between", "warning", 70, between.look_at_clock, _SHUTDOWN, ("wsl-start",)),
    Check("hvsocket", "between", "information", 20, between.look_at_hvsocket, _SHUTDOWN, ("wsl-start",)),
    Check(
        "doctor-there", "between", "fatal", between.THERE_SECONDS + 5, between.look_there, _SHUTDOWN, ("interpreter",)
    ),
)
#: On the worker's side, and then on the client's.
CHECKS = (
    Check("kernel", "linux", "fatal", 10, linux.look_at_kernel, _AGAIN),
    Check("network", "wsl", "warning", 20, linux.look_at_network, _SHUTDOWN),
    Check("python", "linux", "warning", 10, linux.look_at_python, _AGAIN),
    Check("environment", "linux", "warning", 90, linux.look_at_environment, _AGAIN),
    Check("memory", "both", "warning", 10, memory.look_at_memory, "Make slot_bytes or slots smaller.", _SET),
    Check("pool-file-system", "linux", "fatal", 10, filesystems.look_at_pool, "Unset pool_dir.", _SET),
    Check("drives", "wsl", "warning", 30, filesystems.look_at_drives, _SHUTDOWN),
    Check("wslg", "wsl", "information", 10, linux.look_at_wslg, _AGAIN),
    Check("gpu-device", "linux", "fatal", 10, gpu.look_at_device, _GPU),
    Check("cuda-library", "linux", "fatal", 30, gpu.look_at_library, _GPU, ("gpu-device",)),
    Check("driver", "linux", "fatal", 30, gpu.look_at_driver, _GPU, ("gpu-device",)),
    Check("gpu", "linux", "fatal", 10, gpu.look_at_gpus, _GPU, ("driver",)),
    Check("cuda-packages", "linux", "fatal", 20, packages.look_at_packages, "Make a new virtual environment."),
    Check("cuda-start", "linux", "fatal", gpu.CUDA_SECONDS + 5, gpu.look_at_cuda, _GPU, ("cuda-library", "gpu")),
    Check("managed-memory", "linux", "information", 10, gpu.look_at_managed, _GPU, ("cuda-start",)),
    Check("pinned-memory", "linux", "information", gpu.PINNED_SECONDS + 5, gpu.look_at_pinned, _GPU, ("cuda-start",)),
    Check("gpu-fit", "linux", "fatal", reach.FIT_SECONDS + 5, reach.look_at_fit, _GPU, ("cuda-start",)),
    Check("keys", "client", "fatal", 40, own.look_at_keys, "Name another directory with --keys.", _SET),
    Check("kept-worker", "client", "warning", 20, own.look_at_kept, "sklearn-wsl-gpu worker status", _SET),
    Check("reach", "client", "fatal", reach.REACH_SECONDS + 5, reach.look_at_reach, "See the rows above.", _SET),
    Check("versions", "client", "fatal", 10, reach.look_at_versions, "sklearn-wsl-gpu setup"),
    Check("model-versions", "client", "fatal", 10, reach.look_at_models, "sklearn-wsl-gpu setup", ("reach",)),
    Check("challenge", "client", "fatal", 10, reach.look_at_challenge, "See the rows above.", ("reach",)),
    Check("bandwidth", "client", "information", 10, reach.look_at_bandwidth, "See the rows above.", ("reach",)),
    Check("leftovers", "both", "information", 30, own.look_at_leftovers, "Look into the directory of keys.", _SET),
)

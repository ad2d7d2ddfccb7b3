"""``python -m sklearn_wsl_gpu.doctor``: the checks of the worker's side, a line of JSON for each."""

from sklearn_wsl_gpu.doctor.command import tell

if __name__ == "__main__":
    tell()

"""Where arrays lie: segments, slots, spans and leases. Knows bytes; nothing of messages or estimators."""

from sklearn_wsl_gpu.pool.layout import Geometry
from sklearn_wsl_gpu.pool.lease import Lease, entrust
from sklearn_wsl_gpu.pool.pool import Pool
from sklearn_wsl_gpu.pool.segment import Segment

__all__ = ["Geometry", "Lease", "Pool", "Segment", "entrust"]

"""Two nodes of a Ray cluster on this machine, for tests that kill one: ``python -m tests.integration.ray_nodes``.

Prints the cluster's address. Each line of standard input then kills the second node at once and starts another.
"""

from __future__ import annotations

import os
import sys

os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    # A node that is gone is missed within seconds; one that is slow is not.
    RAY_health_check_period_ms="1000",
    RAY_health_check_timeout_ms="20000",
)

from ray.cluster_utils import Cluster


def main() -> None:
    """Serve until standard input ends."""
    node = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    worker = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    sys.stdout.write(f"{cluster.address}\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        cluster.remove_node(worker, allow_graceful=False)
        worker = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        sys.stdout.write("replaced\n")
        sys.stdout.flush()
    cluster.shutdown()


if __name__ == "__main__":
    main()

"""Installs the chart on a real cluster, changes and breaks it under load, and prints a table.

    BROKER_ADDRESS=10.244.0.1 IMAGE=localhost/stream-guard:cpu make chart-live KUBECONFIG=/path/to/kubeconfig

``BROKER_ADDRESS`` is an address of this machine that the cluster's pods reach (kind: the gateway of its network). A
Kafka broker is started there. ``IMAGE`` is the CPU image, by a name that the nodes have or can pull. ``PREVIOUS`` is
the commit whose chart is upgraded from; by default the parent of the last commit that changed the chart.
``ONLY=engine`` runs the part with vLLM, and ``ONLY=pods`` installs, rolls out and breaks pods.

Everything is in one namespace, which is deleted at the end.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time

from stream_guard.testing.broker.java import KAFKA_VERSION
from tools.machines import records
from tools.machines.broker import PASSWORD, USER, LiveBroker
from tools.machines.cluster import (
    CHART,
    KILL_ENGINE,
    Release,
    changed_files,
    chart_of,
    crds,
    helm,
    kubectl,
    parent_of_the_chart,
    read,
    versions,
)
from tools.machines.containers import ROOT
from tools.machines.live_values import (
    COMMIT_INTERVAL_S,
    GAP_S_MAX,
    NAMESPACE,
    OUT,
    PARTITIONS,
    POSTS,
    RATE,
    TOUTING,
    base_values,
    engine_values,
)
from tools.machines.steps import Steps, need, until


class Live:
    """The checks, and what they share.

    Args:
        steps: the table.
        broker: reached by pods.
        image: by the name that nodes know.
    """

    def __init__(self, steps: Steps, broker: LiveBroker, image: str) -> None:
        self.steps, self.broker, self.image = steps, broker, image
        self.reader = records.Reader(broker.plain)
        self.release = Release("stream-guard", NAMESPACE, base_values(image, broker.plain))

    def traffic(self) -> records.Traffic:
        """Return traffic that begins with a ``with``."""
        return records.Traffic(self.broker.plain, POSTS, RATE)

    def settle(self, traffic: records.Traffic, timeout_s: float = 240) -> records.Account:
        """Return the account of some traffic, all of which must be judged."""
        traffic.finish()
        return self.reader.settled(traffic, OUT, timeout_s)

    def without_engine(self, previous: str) -> None:
        """All that the scripted engine suffices for."""
        self.dry_run()
        self.install(previous)
        self.edit_policy()
        self.scale()
        self.change_fixed_field()
        self.roll()
        self.break_pods()
        self.blue_and_green()
        self.uninstall()

    def pods(self, previous: str) -> None:
        """What happens to pods alone: installed, rolled out, killed, evicted and drained."""
        self.install(previous)
        self.roll()
        self.break_pods()
        self.uninstall()

    def dry_run(self) -> None:
        """Every values file is accepted by the API server, KEDA's and Prometheus' resources too."""
        with self.steps.step("server-side dry run of every values file") as row:
            files = sorted((ROOT / "tests/helm/values").glob("*.yaml"))
            files += sorted((CHART / "presets").glob("*.yaml"))
            minimal = ROOT / "tests/helm/values/minimal.yaml"
            for file in files:
                first = ["-f", minimal] if file.parent.name == "presets" else []
                made = helm("template", "dry", CHART, "--no-hooks", *first, "-f", file).stdout
                with tempfile.NamedTemporaryFile("w", suffix=".yaml") as rendered:
                    rendered.write(made)
                    rendered.flush()
                    apply = ("apply", "--server-side", "--dry-run=server", "-n", NAMESPACE)
                    kubectl(*apply, "-f", rendered.name)
            row.seen = f"{len(files)} files accepted"

    def install(self, previous: str) -> None:
        """The chart of an earlier commit, and the upgrade to this one."""
        older = chart_of(previous)
        with self.steps.step("install the parent's chart, 3 replicas") as row:
            changed = changed_files(older, CHART)
            need(
                changed,
                f"the chart of {previous} is the same as this one; name another in PREVIOUS",
            )
            self.release.upgrade(older)
            self.release.wait()
            row.seen = f"3 pods ready; {len(changed)} files of the chart differ"
        with self.steps.step("upgrade to this chart") as row, self.traffic() as traffic:
            before = self.release.ids()
            self.release.upgrade()
            self.release.wait()
            kept = sum(before[name] == found for name, found in self.release.ids().items())
            account = self.settle(traffic)
            need(account.repeated == 0, str(account))
            row.seen = f"{kept} of 3 pods untouched; {account}"
        with self.steps.step("helm test --logs") as row:
            verdict = json.loads(self.release.test())
            row.seen = f"exit code 0, a verdict: {verdict['decision']}"

    def edit_policy(self) -> None:
        """An edited policy goes live without a restart."""
        with self.steps.step("edit a policy live") as row, self.traffic() as traffic:
            before, begun_s = self.release.ids(), time.time()
            known = self._digests()
            edited = TOUTING.replace("advertises", "advertises anything at all")
            self.release.upgrade(policies={"files": {"spam": {"policy": edited}}})
            until("a verdict under the edited policy", lambda: self._digests() - known, 150)
            waited_s = time.time() - begun_s
            need(self.release.ids() == before, "a pod restarted")
            row.seen = f"in verdicts after {waited_s:.0f} s, no restart; {self.settle(traffic)}"

    def _digests(self) -> set[str]:
        found = self.reader.read(OUT[0])
        return {json.dumps(json.loads(r.value)["policy"], sort_keys=True) for r in found}

    def scale(self) -> None:
        """More and fewer replicas, and autoscaling enabled on a live release."""
        for count in (5, 2, 3):
            with self.steps.step(f"scale to {count}") as row, self.traffic() as traffic:
                self.release.upgrade(replicas=count)
                self.release.wait()
                row.seen = str(self.settle(traffic))
        with self.steps.step("enable autoscaling on the live release") as row:
            self.release.upgrade(autoscaling={"enabled": True})
            count = self.release.spec()["replicas"]
            need(count == 3, f"replicas went to {count}")  # noqa: PLR2004 - as above
            self.release.upgrade(autoscaling={"enabled": False})
            self.release.wait()
            row.seen = "3 replicas before and after"
        with self.steps.step("change what cannot change in place") as row:
            said = self.release.try_upgrade(podManagementPolicy="OrderedReady")
            need("--cascade=orphan" in said, said)
            row.seen = "refused, with the way to do it"

    def change_fixed_field(self) -> None:
        """The way that the refusal names: the StatefulSet is deleted without its pods."""
        with self.steps.step("the way that it names, under load") as row, self.traffic() as traffic:
            kubectl("-n", NAMESPACE, "delete", "sts", self.release.name, "--cascade=orphan")
            self.release.upgrade(podManagementPolicy="OrderedReady")
            self.release.wait()
            account = self.settle(traffic)
            need(account.repeated == 0, str(account))
            row.seen = str(account)

    def roll(self) -> None:
        """A canary, a rolling update and its rollback under load: no verdict twice, short gaps."""
        with self.steps.step("canary: the last pod alone") as row, self.traffic() as traffic:
            before = self.release.ids()
            first = {"type": "RollingUpdate", "partition": 2}
            self.release.upgrade(updateStrategy=first, podAnnotations={"example.com/version": "1"})
            self.release.wait()
            now = self.release.ids()
            new = sorted(name for name, found in now.items() if before[name] != found)
            need(new == [f"{self.release.name}-2"], f"new pods: {new}")
            row.seen = f"2 pods untouched; {self._steady(traffic)}"
        with self.steps.step("the canary for all") as row, self.traffic() as traffic:
            self.release.upgrade(updateStrategy={"type": "RollingUpdate", "partition": 0})
            self.release.wait()
            need(
                all(before[name] != found for name, found in self.release.ids().items()), "old pods"
            )
            row.seen = self._steady(traffic)
        with self.steps.step(f"rolling update, {RATE} posts/s") as row, self.traffic() as traffic:
            time.sleep(5)
            self.release.upgrade(podAnnotations={"example.com/version": "2"})
            self.release.wait()
            time.sleep(5)
            row.seen = self._steady(traffic)
        with self.steps.step("rollback") as row, self.traffic() as traffic:
            time.sleep(5)
            helm("rollback", self.release.name, "-n", NAMESPACE)
            self.release.wait()
            time.sleep(5)
            row.seen = self._steady(traffic)

    def _steady(self, traffic: records.Traffic) -> str:
        account = self.settle(traffic)
        need(account.repeated == 0, f"repeated: {account}")
        need(account.gap_s < GAP_S_MAX, f"a gap of {GAP_S_MAX} s or more: {account}")
        return str(account)

    def break_pods(self) -> None:
        """A pod killed without warning, one evicted, a node drained, and the broker away."""
        pod = f"{self.release.name}-1"
        with (
            self.steps.step("`kill -9` of a pod's program, by its node") as row,
            self.traffic() as traffic,
        ):
            restarts = self.release.ids()[pod][1]
            time.sleep(3)
            self.release.kill(pod, self.image)
            until("the restart", lambda: self.release.ids()[pod][1] > restarts, 60)
            self.release.wait()
            time.sleep(3)
            account = self.settle(traffic, 240)
            most = int(RATE * COMMIT_INTERVAL_S)
            need(account.repeated <= most, f"more than {most} repeats: {account}")
            row.seen = f"restarted in place; {account}; at most {most} repeats are documented"
        with self.steps.step("a pod deleted without grace") as row, self.traffic() as traffic:
            time.sleep(3)
            kubectl("-n", NAMESPACE, "delete", "pod", pod, "--grace-period=0", "--force")
            time.sleep(2)
            self.release.wait()
            row.seen = str(self.settle(traffic, 240))
        with (
            self.steps.step("eviction; a second one meets the budget") as row,
            self.traffic() as traffic,
        ):
            need(self.release.evict(pod), "the budget refused the first eviction")
            second = self.release.evict(f"{self.release.name}-2")
            time.sleep(2)
            self.release.wait()
            account = self.settle(traffic)
            need(not second, "the budget allowed a second eviction at once")
            need(account.repeated == 0, str(account))
            row.seen = f"one let through, one refused; {account}"
        self._drain()
        with self.steps.step("broker away for 20 s") as row, self.traffic() as traffic:
            before = self.release.ids()
            time.sleep(3)
            self.broker.away(20)
            self.release.wait()
            account = self.settle(traffic, 240)
            need(self.release.ids() == before, "a pod restarted")
            row.seen = f"no restart; {account}"

    def _drain(self) -> None:
        with self.steps.step("drain the node of a pod") as row, self.traffic() as traffic:
            pod = self.release.pods()[0]
            node = pod["spec"]["nodeName"]
            selector = f"--pod-selector=app.kubernetes.io/instance={self.release.name}"
            drain = ("drain", node, selector, "--ignore-daemonsets", "--delete-emptydir-data")
            try:
                kubectl(*drain, "--timeout=40s", check=False)
                here = [p for p in self.release.pods() if p["spec"].get("nodeName") == node]
            finally:
                kubectl("uncordon", node)
            self.release.wait()
            account = self.settle(traffic, 240)
            need(account.repeated == 0, str(account))
            nodes = len(read("nodes")["items"])
            kept = (
                f"{len(here)} pods kept by the budget on the only node"
                if nodes == 1
                else "node empty"
            )
            row.seen = f"{kept}; {account}"

    def blue_and_green(self) -> None:
        """A second release in the same group takes over partitions, then all of them."""
        values = base_values(self.image, self.broker.plain)
        green = Release("green-stream-guard", NAMESPACE, {**values, "replicas": 3})
        with self.steps.step("green joins blue's group") as row, self.traffic() as traffic:
            green.upgrade()
            green.wait()
            row.seen = str(self.settle(traffic, 240))
        with self.steps.step("blue is scaled to none") as row, self.traffic() as traffic:
            self.release.upgrade(replicas=0)
            self.release.wait()
            row.seen = str(self.settle(traffic, 300))
        with (
            self.steps.step("back to blue; green is uninstalled") as row,
            self.traffic() as traffic,
        ):
            self.release.upgrade(replicas=3)
            self.release.wait()
            helm("uninstall", green.name, "-n", NAMESPACE, "--wait")
            row.seen = str(self.settle(traffic, 300))

    def uninstall(self) -> None:
        """Nothing of the release stays."""
        with self.steps.step("helm uninstall") as row:
            helm("uninstall", self.release.name, "-n", NAMESPACE, "--wait")
            kinds = "sts,pods,svc,cm,sa,pdb,pvc"
            label = f"app.kubernetes.io/instance={self.release.name}"
            left = until(
                "the end of all objects",
                lambda: (
                    not read(
                        "-n", NAMESPACE, kinds, "-l", f"{label},app.kubernetes.io/component!=test"
                    )["items"]
                ),
                120,
            )
            need(left, "objects are left")
            row.seen = "no object is left but the test's finished pod"

    def secured_engine(self) -> None:
        """The engine with the demo model, on SASL_SSL with secrets; its engine killed in the pod."""
        secret = ("-n", NAMESPACE, "create", "secret", "generic")
        kubectl(
            *secret,
            "kafka-user",
            f"--from-literal=username={USER}",
            f"--from-literal=password={PASSWORD}",
        )
        kubectl(*secret, "kafka-ca", f"--from-file=ca.crt={self.broker.ca}")
        release = Release(
            "vllm-stream-guard", NAMESPACE, engine_values(self.image, self.broker.secured)
        )
        with self.steps.step("`presets/first-start.yaml` (vLLM), SASL_SSL with secrets") as row:
            release.upgrade()
            release.wait(300)
            row.seen = "1 pod ready"
        with self.steps.step("helm test --logs, by SASL_SSL") as row:
            row.seen = f"a verdict: {json.loads(release.test())['decision']}"
        with self.steps.step("the engine killed in the pod") as row:
            before = release.ids()
            topics = ("vllm.verdicts", "vllm.dead-letters")
            with records.Traffic(
                self.broker.secured, "vllm.posts", 10, self.broker.client()
            ) as traffic:
                time.sleep(4)
                killed = release.execute(f"{release.name}-0", "python", "-c", KILL_ENGINE).split()
                need(killed, "no process of the engine was found")
                time.sleep(6)
            account = self.reader.settled(traffic, topics, 240)
            need(release.ids() == before, "the pod restarted")
            row.seen = f"the pod stays; {account}"
        with self.steps.step("helm uninstall") as row:
            helm("uninstall", release.name, "-n", NAMESPACE, "--wait")
            row.seen = "done"


def main() -> None:
    """Run all steps, print the table, and remove everything again."""
    address = os.environ.get("BROKER_ADDRESS")
    if not address:
        sys.exit(
            "BROKER_ADDRESS is not set: name an address of this machine that the cluster's pods reach"
        )
    image = os.environ.get("IMAGE") or "localhost/stream-guard:cpu"
    previous = os.environ.get("PREVIOUS") or parent_of_the_chart()
    steps = Steps("`make chart-live`", {**versions(), "Kafka": KAFKA_VERSION})
    # While the broker is away, its client reports every attempt to connect.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    there = {item["metadata"]["name"] for item in read("crds")["items"]}
    files = [file for file in crds() if not any(name in file.read_text() for name in there)]
    kubectl("create", "namespace", NAMESPACE)
    try:
        for file in files:
            kubectl("apply", "--server-side", "-f", file)
        with LiveBroker(address) as broker:
            records.create_topics(broker.plain, [POSTS, *OUT], PARTITIONS)
            vllm = ["vllm.posts", "vllm.verdicts", "vllm.dead-letters"]
            records.create_topics(broker.plain, vllm, PARTITIONS)
            live = Live(steps, broker, image)
            only = os.environ.get("ONLY")
            if only == "pods":
                live.pods(previous)
            elif only != "engine":
                live.without_engine(previous)
            if only != "pods":
                live.secured_engine()
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--timeout=180s", check=False)
        for file in files:
            kubectl("delete", "-f", file, check=False)
    steps.show()


if __name__ == "__main__":
    main()

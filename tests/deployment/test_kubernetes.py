"""docker/kubernetes: valid for Kubernetes, KEDA and Prometheus' operator, and true of flashsale."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flashsale
from flashsale.secret_files import SECRET_FILES
from flashsale.settings import TUNABLES, Settings
from tests.conftest import QueueNames
from tests.deployment.test_compose import SERVICES
from tests.support.containers import ROOT, Host, Image, last_of, stop
from tests.support.documents import blocks
from tests.support.exporter import Exporter
from tests.support.shop import Shop
from tests.support.waiting import wait_until

MISSING = "tox run -e deployment has what this needs"
yaml = pytest.importorskip("yaml", reason=MISSING)
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason=MISSING)
keda = pytest.importorskip("cloudcoil.models.keda.v1alpha1", reason=MISSING)
prometheus_operator = pytest.importorskip("cloudcoil.models.prometheus_operator.v1", reason=MISSING)

Document = dict[str, Any]
FOLDER = ROOT / "docker" / "kubernetes"
#: Started by hand, so in no kustomization.
BY_HAND = {"replay.yaml", "secret.example.yaml"}
MODELS = {"keda.sh/v1alpha1": keda, "monitoring.coreos.com/v1": prometheus_operator}
VERSIONS = ("1.30", "1.37")


def documents() -> Iterator[tuple[str, Document]]:
    for path in sorted(FOLDER.rglob("*.yaml")):
        if path.name != "kustomization.yaml":
            for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
                yield str(path.relative_to(FOLDER)), document


ALL = list(documents())
CORE = [document for _, document in ALL if document["apiVersion"] not in MODELS]
CUSTOM = [document for _, document in ALL if document["apiVersion"] in MODELS]
PODS = [each["spec"]["template"] for each in CORE if each["kind"] in {"Deployment", "Job"}]


def one(kind: str, name: str = "") -> Document:
    (found,) = [d for _, d in ALL if d["kind"] == kind and name in d["metadata"].get("name", "")]
    return found


def named(document: Document) -> str:
    return f"{document['kind']}-{document['metadata'].get('name', 'generated')}"


DEPLOYMENT = one("Deployment")
WORKER_POD = DEPLOYMENT["spec"]["template"]
(WORKER,) = WORKER_POD["spec"]["containers"]
CONFIG: dict[str, str] = one("ConfigMap")["data"]
SECRET: dict[str, str] = one("Secret")["stringData"]


def put_secrets(folder: Path, *, urls: dict[str, str] | None = None) -> dict[str, str]:
    """Write the secret's files to `folder`; returns the environment that names them there."""
    for key, value in (urls or SECRET).items():
        (folder / key).write_text(f"{value}\n")
    return {
        name: value.replace("/run/secrets/flashsale", str(folder)) for name, value in CONFIG.items()
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", CORE, ids=named)
def test_a_manifest_has_the_fields_that_kubernetes_knows(document: Document, version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("document", CUSTOM, ids=named)
def test_a_custom_resource_has_the_fields_of_its_definition(document: Document) -> None:
    """The models ignore what they do not know, so it must come out again."""
    model = getattr(MODELS[document["apiVersion"]], document["kind"])
    read = model.model_validate(document)

    assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == document


def test_each_file_is_applied_by_a_kustomization_or_by_hand() -> None:
    listed = {
        str((path.parent / resource).relative_to(FOLDER))
        for path in FOLDER.rglob("kustomization.yaml")
        for resource in yaml.safe_load(path.read_text())["resources"]
    }

    assert {name for name, _ in ALL} == listed | BY_HAND


def kustomize(folder: Path) -> list[Document]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        [kubectl, "kustomize", folder], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_kustomize_makes_one_deployment_of_them() -> None:
    made = kustomize(FOLDER)

    assert {document["kind"] for document in made} == {
        *("Namespace", "ConfigMap", "Job", "Deployment", "PodDisruptionBudget", "NetworkPolicy")
    }
    images = re.findall(r"'image': '(.+?)'", str(made))
    assert images == [f"flashsale:{flashsale.__version__}"] * 2
    for document in made:
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


def test_the_overlay_of_the_page_adds_keda_which_alone_decides_how_many_there_are(
    tmp_path: Path,
) -> None:
    (overlay,) = blocks("docs/deploying.md", "yaml", "## Kubernetes")
    base = os.path.relpath(FOLDER.resolve(), tmp_path.resolve())
    overlay = overlay.replace("../flashsale/docker/kubernetes", base)
    (tmp_path / "kustomization.yaml").write_text(overlay)
    made = {document["kind"]: document for document in kustomize(tmp_path)}

    assert {"ScaledObject", "TriggerAuthentication", "PodMonitor"} <= made.keys()
    assert {document["metadata"].get("namespace") for document in made.values()} == {
        "flashsale",
        None,  # the namespace itself
    }
    assert "replicas" not in made["Deployment"]["spec"]
    assert f"'image': 'registry.example/flashsale:{flashsale.__version__}'" in str(made)


def test_the_page_s_commands_name_what_there_is() -> None:
    page = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")

    assert set(re.findall(r"deployment/([\w-]+)", page)) == {DEPLOYMENT["metadata"]["name"]}
    assert set(re.findall(r"delete job ([\w-]+)", page)) == {
        one("Job", "migrate")["metadata"]["name"]
    }
    assert set(re.findall(r"--namespace ([\w-]+)", page)) == {one("Namespace")["metadata"]["name"]}
    assert set(re.findall(r"--from-file=([\w-]+)", page)) == SECRET.keys()


def test_the_page_s_figures_are_those_of_the_files() -> None:
    page = " ".join((ROOT / "docs" / "deploying.md").read_text(encoding="utf-8").split())
    scaling = one("ScaledObject")["spec"]
    stack = SERVICES["worker"]["stop_grace_period"].removesuffix("s")
    manifests = WORKER_POD["spec"]["terminationGracePeriodSeconds"]

    assert f"{stack} s in the stack, {manifests} s in the manifests" in page
    assert f"from {scaling['minReplicaCount']} to {scaling['maxReplicaCount']} |" in page
    assert f"looks every {scaling['pollingInterval']} seconds" in page
    assert "(`maxSurge: 1`, `maxUnavailable: 0`)" in page
    assert DEPLOYMENT["spec"]["strategy"] == {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_all_that_is_configured_is_read(tmp_path: Path) -> None:
    settings = Settings.from_env(put_secrets(tmp_path))

    assert CONFIG.keys() <= {"PURCHASE_QUEUE", "DEAD_LETTER_QUEUE", *SECRET_FILES, *TUNABLES}
    assert settings.metrics_host == "0.0.0.0"  # noqa: S104
    assert settings.broker_urls == (SECRET["rabbitmq-url"],)


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod["spec"]["containers"][0]["name"])
def test_each_pod_has_its_secrets_and_no_more_rights_than_it_must(pod: Document) -> None:
    spec = pod["spec"]
    (container,) = spec["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    uid = int(last_of("USER").partition(":")[0])

    assert mounts["secrets"] == str(Path(CONFIG["DATABASE_URL_FILE"]).parent)
    assert mounts.keys() == {volume["name"] for volume in spec["volumes"]}
    assert {"secret": {"secretName": "flashsale", "defaultMode": 0o440}, "name": "secrets"} in spec[
        "volumes"
    ]
    assert container["envFrom"] == [
        {"configMapRef": {"name": one("ConfigMap")["metadata"]["name"]}}
    ]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        **dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), uid),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert {"requests", "limits"} == container["resources"].keys()
    assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod["spec"]["containers"][0]["name"])
def test_no_service_can_put_variables_into_the_environment(pod: Document) -> None:
    """Those of a Service named flashsale would be taken for misspelt settings."""
    assert pod["spec"]["enableServiceLinks"] is False
    with pytest.raises(flashsale.errors.SettingsError, match="FLASHSALE_SERVICE_HOST"):
        Settings.from_env({"FLASHSALE_SERVICE_HOST": "10.0.0.1"})


def test_the_files_of_the_secret_are_those_that_are_named() -> None:
    paths = [Path(value).name for name, value in CONFIG.items() if name in SECRET_FILES]
    (reference,) = one("TriggerAuthentication")["spec"]["secretTargetRef"]

    assert sorted(paths) == sorted(SECRET)
    assert reference == {"parameter": "host", "name": "flashsale", "key": "rabbitmq-url"}
    assert one("Secret")["metadata"]["name"] == "flashsale"


def test_a_pod_has_more_time_to_stop_than_its_worker_takes(tmp_path: Path) -> None:
    settings = Settings.from_env(put_secrets(tmp_path))

    for pod in PODS:
        # Kubernetes' own default; for the migration, which is done with at once, it is enough.
        grace = pod["spec"].get("terminationGracePeriodSeconds", 30)
        assert grace >= 2 * settings.shutdown_seconds


def test_a_worker_writes_to_a_folder_that_outlives_its_container(image: Image) -> None:
    (state,) = [each for each in WORKER["volumeMounts"] if each["name"] == "state"]
    (volume,) = [each for each in WORKER_POD["spec"]["volumes"] if each["name"] == "state"]

    assert state["mountPath"] == last_of("VOLUME")
    assert "medium" not in volume["emptyDir"]
    assert WORKER["command"] == image.command


def test_keda_scales_this_deployment_by_this_queue_within_the_database_s_connections(
    tmp_path: Path,
) -> None:
    spec = one("ScaledObject")["spec"]
    settings = Settings.from_env(put_secrets(tmp_path))
    processes = int(WORKER["command"][-1])
    most = spec["maxReplicaCount"] * processes * settings.database.pool_size

    assert spec["scaleTargetRef"] == {"name": DEPLOYMENT["metadata"]["name"]}
    queues = [trigger["metadata"]["queueName"] for trigger in spec["triggers"]]
    assert tuple(queues) == settings.purchase_queues
    for trigger in spec["triggers"]:
        named_there = trigger["authenticationRef"]["name"]
        assert named_there == one("TriggerAuthentication")["metadata"]["name"]
    assert spec["minReplicaCount"] == DEPLOYMENT["spec"]["replicas"]
    assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
    text = (FOLDER / "autoscaling" / "scaledobject.yaml").read_text(encoding="utf-8")
    assert f"here {most}." in text


def test_what_selects_workers_finds_them() -> None:
    labels = WORKER_POD["metadata"]["labels"]
    selectors = [
        DEPLOYMENT["spec"]["selector"],
        one("PodDisruptionBudget")["spec"]["selector"],
        one("PodMonitor")["spec"]["selector"],
        *(each["labelSelector"] for each in WORKER_POD["spec"]["topologySpreadConstraints"]),
    ]

    for selector in selectors:
        assert selector == {"matchLabels": labels}
    everything = one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items()
    assert all(everything <= pod["metadata"]["labels"].items() for pod in PODS)


def test_metrics_are_found_where_they_are_and_by_the_name_that_the_alerts_know() -> None:
    (port,) = WORKER["ports"]
    (endpoint,) = one("PodMonitor")["spec"]["podMetricsEndpoints"]
    (relabeling,) = endpoint["relabelings"]
    rules = (ROOT / "docker" / "prometheus" / "rules.yml").read_text(encoding="utf-8")

    assert str(port["containerPort"]) == CONFIG["FLASHSALE_METRICS_PORT"]
    assert endpoint["port"] == port["name"]
    assert f'up{{{relabeling["targetLabel"]}="{relabeling["replacement"]}"}}' in rules
    (ingress,) = one("NetworkPolicy")["spec"]["ingress"]
    assert [each["port"] for each in ingress["ports"]] == [port["name"]]


def test_a_pod_s_worker_answers_its_probes_and_stops_within_its_grace(
    host: Host, postgres_url: str, rabbitmq_url: str, queue_names: QueueNames
) -> None:
    """In folders as the kubelet makes them: the state is root's, and anybody's to write to."""
    shop = Shop(postgres_url, rabbitmq_url, *queue_names)
    shop.open_sale()
    os.chown(host.mounts["/var/lib/flashsale"], 0, 0)
    host.mounts["/var/lib/flashsale"].chmod(0o777)
    secrets = host.mounts["/run/secrets"] / "flashsale"
    secrets.mkdir()
    put_secrets(secrets, urls={"database-url": postgres_url, "rabbitmq-url": rabbitmq_url})
    exporter = Exporter()
    queues = {name.upper(): queue for name, queue in queue_names._asdict().items()}
    env = {**CONFIG, **queues, **exporter.env}
    probes = [WORKER[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")]

    with host.start(WORKER["command"], env) as worker:
        for probe in probes:
            assert probe["port"] == WORKER["ports"][0]["name"]
            path = probe["path"]
            wait_until(lambda path=path: exporter.get(path)[0] == 200, 30, f"{path} is well")
        shop.buy(f"user-{number}" for number in range(100))
        shop.wait_for_orders(100, 30)
        stop(worker)
        assert worker.wait(WORKER_POD["spec"]["terminationGracePeriodSeconds"]) == 0

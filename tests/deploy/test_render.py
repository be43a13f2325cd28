"""`coe deploy render`: what is rendered loads again, and its parts fit each other."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from coe.base.errors import ConfigError
from coe.cli.commands import COMMANDS
from coe.fleet.vllm.pull import SCRIPT
from coe.gateway.deploy.deployment import Deployment, Target, plan_deployment, rendered
from coe.router.config.composition import CoeConfig, load_config, parse_text

ROOT = Path(__file__).parents[2]
LLAMA = {"engine": "vllm", "model": "meta/Llama", "params_b": 8, "context_tokens": 8192}
VALUES = {
    "categories": {"code": "programs", "general": "the rest"},
    "experts": {
        "Fast_One": {**LLAMA, "engine_args": {"tensor-parallel-size": 2, "no-enable-prefix-caching": True}},
        "base": LLAMA,
        "law": {**LLAMA, "adapter": "lora/law", "engine_env": {}},
        "hosted": {"engine": "litellm", "model": "openai/gpt", "api_key_env": "OPENAI_API_KEY"},
    },
    "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}},
    "vllm": {"env": {"CUDA_VISIBLE_DEVICES": "0,1", "HF_HOME": "/here"}},
}


@pytest.fixture(scope="module")
def experts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("composition")
    (folder / "lora" / "law").mkdir(parents=True)
    (folder / "lora" / "law" / "adapter_config.json").write_text(json.dumps({"r": 12}))
    file = folder / "experts.yaml"
    file.write_text(yaml.safe_dump(VALUES))
    return file


@pytest.fixture(scope="module")
def deployment(experts_file: Path) -> Deployment:
    return plan_deployment(experts_file, image="coe:1", vllm_image="vllm/vllm-openai:v1")


def documents(text: str) -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all(text) if each}


def test_rounds_of_learning_run_beside_the_gateways(deployment: Deployment) -> None:
    services = yaml.safe_load(rendered(deployment, Target.COMPOSE)["compose.yaml"])["services"]
    assert [services[name]["command"] for name in ("gateway", "learn")] == [
        ["serve", "--no-learn"],
        ["retrain", "--every", "1h"],
    ]
    found = documents(rendered(deployment, Target.KUBERNETES)["gateway.yaml"])
    cron = found["CronJob"]["spec"]
    (learn,) = cron["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    (gateway,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert (cron["schedule"], cron["concurrencyPolicy"]) == ("0 * * * *", "Forbid")
    assert (learn["args"], gateway["args"]) == (["retrain"], ["serve", "--no-learn"])
    assert learn["volumeMounts"] == gateway["volumeMounts"]
    assert learn["envFrom"] == gateway["envFrom"]


def addresses(config: CoeConfig) -> dict[str, tuple[str | tuple[str, ...] | None, str]]:
    return {name: (entry.url, entry.name_on_engine(name)) for name, entry in config.experts.items()}


def test_replicas_are_services_of_compose_and_replicas_of_the_others(experts_file: Path, tmp_path: Path) -> None:
    file, values = tmp_path / "experts.yaml", yaml.safe_load(experts_file.read_text())
    values |= {"experts": {"base": {**LLAMA, "replicas": 6}, "base-2": {**LLAMA, "model": "other"}}, "vllm": {}}
    file.write_text(yaml.safe_dump(values))
    deployment = plan_deployment(file, image="coe:1", vllm_image="vllm/vllm-openai:v1")
    files = rendered(deployment, Target.COMPOSE)
    services = yaml.safe_load(files["compose.yaml"])["services"]
    base = parse_text(files["config/experts.yaml"], file="experts.yaml").experts["base"]
    assert (base.replicas, len(base.roots)) == (1, 6)
    assert {f"http://{name}:8000/v1" for name in services if name.startswith("vllm-")} == {
        *base.roots,
        *parse_text(files["config/experts.yaml"], file="experts.yaml").experts["base-2"].roots,
    }
    gpus = [
        each["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for name, each in services.items()
        if name.startswith("vllm-")
    ]
    assert sorted(number for ids in gpus for number in ids) == [*"0123456"]
    stack = rendered(deployment, Target.KUBERNETES)
    (_, *scaled) = (each["spec"] for each in yaml.safe_load_all(stack["scaling.yaml"]))
    assert [(each["minReplicaCount"], each["maxReplicaCount"]) for each in scaled] == [(6, 6), (1, 4)]
    assert "replicas:" not in stack["gateway.yaml"] + stack["engines.yaml"]


def test_engines_on_one_gpu_start_one_after_the_other(tmp_path: Path) -> None:
    on = {
        name: {"engine_env": {"CUDA_VISIBLE_DEVICES": gpus}} for name, gpus in {"a": "0", "b": "0,1", "c": "1"}.items()
    }
    experts = {name: {**LLAMA, "model": name, **entry} for name, entry in on.items()}
    (tmp_path / "experts.yaml").write_text(yaml.safe_dump({**VALUES, "experts": experts, "vllm": {}}))
    deployment = plan_deployment(tmp_path / "experts.yaml", image="coe:1", vllm_image="v:1")
    services = yaml.safe_load(rendered(deployment, Target.COMPOSE)["compose.yaml"])["services"]
    waits = {name: [*services[f"vllm-{name}"].get("depends_on", {})] for name in on}
    assert waits == {"a": ["models"], "b": ["models", "vllm-a"], "c": ["models", "vllm-b"]}


def test_models_are_downloaded_apart_from_starts(deployment: Deployment) -> None:
    services = yaml.safe_load(rendered(deployment, Target.COMPOSE)["compose.yaml"])["services"]
    script = services["models"]["entrypoint"][2].replace("$$", "$")
    assert script.strip() == SCRIPT.read_text(encoding="utf-8").strip()
    assert services["models"]["command"] == ["meta/Llama"]
    engines = yaml.safe_load_all(rendered(deployment, Target.KUBERNETES)["engines.yaml"])
    pods = [each["spec"]["template"]["spec"] for each in engines if each and each["kind"] == "Deployment"]
    for unit, pod in zip(deployment.engines, pods, strict=True):
        (download,) = pod["initContainers"]
        assert download["command"][2].strip() == script.strip()
        assert download["args"] == [unit.process.model]
        assert download["volumeMounts"][0] in pod["containers"][0]["volumeMounts"]


def test_compose_starts_engines_as_coe_does_and_its_gateway_asks_them(deployment: Deployment) -> None:
    files = rendered(deployment, Target.COMPOSE)
    services = yaml.safe_load(files["compose.yaml"])["services"]
    config = parse_text(files["config/experts.yaml"], file="experts.yaml")
    assert addresses(config) == {
        "Fast_One": ("http://vllm-fast-one:8000/v1", "Fast_One"),
        "base": ("http://vllm-base:8000/v1", "base"),
        "law": ("http://vllm-base:8000/v1", "law"),
        "hosted": (None, "hosted"),
    }
    engine = services["vllm-base"]
    assert engine["command"] == [
        *("-m", "vllm.entrypoints.cli.main", "serve", "meta/Llama", "--served-model-name", "base"),
        *("--host", "0.0.0.0", "--port", "8000", "--enable-lora", "--lora-modules", "law=/adapters/law"),
        *("--enable-prompt-tokens-details", "--max-model-len", "8192", "--max-loras", "1", "--max-lora-rank", "16"),
        *("--shutdown-timeout", "120"),
    ]
    assert engine["stop_grace_period"] == "150s"
    assert engine["volumes"] == ["models:/models", "./adapters:/adapters:ro"]
    assert "ports" not in engine
    assert engine["environment"]["HF_HOME"] == "/models"
    assert "CUDA_VISIBLE_DEVICES" not in engine["environment"]
    (gpus,) = engine["deploy"]["resources"]["reservations"]["devices"]
    assert gpus["device_ids"] == ["0", "1"]
    assert config.experts["law"].adapter == "/adapters/law"
    assert config.experts["base"].api_key_env == "VLLM_API_KEY"
    assert config.experts["hosted"].api_key_env == "OPENAI_API_KEY"


def test_each_of_our_services_has_a_command_that_exists_and_a_root_that_is_read_only(deployment: Deployment) -> None:
    project = yaml.safe_load(rendered(deployment, Target.COMPOSE)["compose.yaml"])
    ours = {name: service for name, service in project["services"].items() if service["image"] == "coe:1"}
    assert set(ours) == {"first-router", "gateway", "learn"}
    for service in ours.values():
        assert service["command"][0] in COMMANDS
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        mounts = [mount.split(":") for mount in service["volumes"]]
        assert [target for _, target, *mode in mounts if not mode] == ["/data"]
        assert set(service["environment"]) == {"REDIS_URL", "DATABASE_URL"}
        assert service["depends_on"].keys() - {"first-router"} == project["services"].keys() - ours.keys() - {"models"}
    for name in ("gateway", "learn"):
        assert ours[name]["depends_on"]["first-router"] == {"condition": "service_completed_successfully"}
    named = {volume.split(":")[0] for each in project["services"].values() for volume in each["volumes"]}
    assert {volume for volume in named if not volume.startswith(".")} == set(project["volumes"])


def test_every_variable_of_the_compose_file_is_in_the_example(deployment: Deployment) -> None:
    files = rendered(deployment, Target.COMPOSE)
    used = set(re.findall(r"\$\{(\w+)", files["compose.yaml"]))
    named = set(re.findall(r"^(?:# )?(\w+)=$", files["environment.example"], re.MULTILINE))
    assert used | {"COE_API_KEYS", "OPENAI_API_KEY"} == named


def test_what_scales_and_disturbs_the_gateways_finds_them(deployment: Deployment) -> None:
    found = documents(rendered(deployment, Target.KUBERNETES)["gateway.yaml"])
    pods = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == pods
    assert found["Service"]["spec"]["selector"] == pods
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == pods
    assert found["Job"]["spec"]["template"]["metadata"]["labels"] != pods
    assert found["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"] != pods
    target = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", found["Deployment"]["metadata"]["name"])
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
    assert container["envFrom"] == [{"secretRef": {"name": "coe-environment"}}]
    assert pod["terminationGracePeriodSeconds"] == 5 + 20 + 15
    mounted = {volume["name"] for volume in pod["volumes"]}
    assert mounted == {mount["name"] for mount in container["volumeMounts"]}


def test_engines_of_a_cluster_are_those_that_gateways_ask_and_have_what_they_need(deployment: Deployment) -> None:
    files = rendered(deployment, Target.KUBERNETES)
    config = parse_text(documents(files["gateway.yaml"])["ConfigMap"]["data"]["experts.yaml"], file="experts.yaml")
    found = list(yaml.safe_load_all(files["engines.yaml"]))
    services = {each["metadata"]["name"]: each["spec"] for each in found if each["kind"] == "Service"}
    engines = {each["metadata"]["name"]: each["spec"] for each in found if each["kind"] == "Deployment"}
    assert config.experts["law"].url == config.experts["base"].url == "http://vllm-base:8000/v1"
    assert services.keys() == engines.keys() == {"vllm-fast-one", "vllm-base"}
    for name, engine in engines.items():
        pod = engine["template"]
        labels = pod["metadata"]["labels"]
        assert services[name]["selector"] == engine["selector"]["matchLabels"] == labels
        (policy,) = (each["spec"] for each in found if each["kind"] == "NetworkPolicy")
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()
        assert engine["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
        assert pod["spec"]["terminationGracePeriodSeconds"] == 150
        assert "runtimeClassName" not in pod["spec"]
        (container,) = pod["spec"]["containers"]
        assert {each["name"] for each in pod["spec"]["volumes"]} == {each["name"] for each in container["volumeMounts"]}
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    (base,) = engines["vllm-base"]["template"]["spec"]["containers"]
    assert base["args"][-2:] == ["--shutdown-timeout", "120"]
    assert "law=/adapters/law" in base["args"]
    (fast,) = engines["vllm-fast-one"]["template"]["spec"]["containers"]
    assert fast["resources"]["limits"] == {"nvidia.com/gpu": 2}
    monitor, *scaled = yaml.safe_load_all(files["scaling.yaml"])
    assert monitor["spec"]["selector"]["matchLabels"] == policy["podSelector"]["matchLabels"]
    assert [each["spec"]["scaleTargetRef"]["name"] for each in scaled] == [*engines]
    claims = [each for each in found if each["kind"] == "PersistentVolumeClaim"]
    assert [each["metadata"]["name"] for each in claims] == ["coe-models"]


def test_the_first_router_waits_for_its_engines_and_has_a_name_of_its_own(deployment: Deployment) -> None:
    job = documents(rendered(deployment, Target.KUBERNETES)["gateway.yaml"])["Job"]
    (waits,) = job["spec"]["template"]["spec"]["initContainers"]
    (program,) = waits["args"]
    compile(program, "args", "exec")
    assert '["fast-one", "base"]' in program
    other = documents(rendered(replace(deployment, image="coe:2"), Target.KUBERNETES)["gateway.yaml"])["Job"]
    assert job["metadata"]["name"].startswith("coe-first-router-")
    assert job["metadata"]["name"] != other["metadata"]["name"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    from coe.cli.command_line import run as run_command

    status = run_command("deploy render", list(arguments))
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def shipped_models(folder: Path) -> Path:
    """The shipped composition without its plugins, which are files of this machine."""
    values = yaml.safe_load((ROOT / "experts.yaml").read_text())
    models = {name: entry for name, entry in values["experts"].items() if entry["engine"] != "plugin"}
    for entry in models.values():
        if "adapter" in entry:
            entry["adapter"] = str(ROOT / entry["adapter"])
    del values["plugins"]
    (folder / "experts.yaml").write_text(yaml.safe_dump({**values, "experts": models}))
    return folder / "experts.yaml"


def test_a_plugin_by_path_cannot_be_deployed() -> None:
    with pytest.raises(ConfigError, match=r"calculator\.py' is a file of this machine; allowed in a deployment"):
        plan_deployment(ROOT / "experts.yaml", image="coe", vllm_image="v:1")


def test_the_shipped_composition_is_rendered_with_its_adapters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "out", shipped_models(tmp_path)
    arguments = ("--target", "compose", "--config", str(file), "--out", str(out))
    for _ in range(2):  # the second replaces the first
        assert run(capsys, *arguments)[0] == 0
    config = parse_text((out / "config" / "experts.yaml").read_text(), file="experts.yaml")
    shipped = load_config(file)
    assert config.experts.keys() == shipped.experts.keys()
    assert config.policies == shipped.policies
    assert config.experts["labeler"].adapter == "/adapters/labeler"
    assert (out / "adapters" / "labeler" / "adapter_config.json").is_file()
    assert "LOCK=run" in (out / "compose.yaml").read_text()


def test_a_gateway_with_an_identity_provider_gets_the_image_that_can_check_its_tokens(tmp_path: Path) -> None:
    file, oidc = tmp_path / "experts.yaml", {"issuer": "https://login.example", "audience": "coe"}
    file.write_text(yaml.safe_dump({**VALUES, "experts": {"base": LLAMA}, "gateway": {"oidc": oidc}}))
    (lock,) = re.findall(
        r"LOCK=(\w+)", rendered(plan_deployment(file, image="coe", vllm_image="v:1"), Target.COMPOSE)["compose.yaml"]
    )
    assert re.search(r"^pyjwt==", (ROOT / "requirements" / f"{lock}.lock").read_text(), re.MULTILINE)


def test_engines_that_took_turns_have_gpus_of_their_own() -> None:
    """The gateway would send each to sleep through an address that replicas share."""
    paper = plan_deployment(ROOT / "deploy" / "experts.paper.yaml", image="coe", vllm_image="v:1")
    files = rendered(paper, Target.COMPOSE)
    config = parse_text(files["config/experts.yaml"], file="experts.yaml")
    assert (config.residency, len(config.experts)) == (None, 5)
    services = yaml.safe_load(files["compose.yaml"])["services"]
    engines = [service for name, service in services.items() if name.startswith("vllm-")]
    assert not [each for each in engines if "--enable-sleep-mode" in each["command"]]
    assert not [each for each in engines if "VLLM_SERVER_DEV_MODE" in each["environment"]]
    reserved = [each["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for each in engines]
    assert reserved == [[str(number)] for number in range(5)]


def test_gateways_of_a_cluster_share_the_index_of_vector_stores_and_write_pilots_where_they_may(tmp_path: Path) -> None:
    shipped = plan_deployment(shipped_models(tmp_path), image="coe", vllm_image="v:1")
    text = documents(rendered(shipped, Target.KUBERNETES)["gateway.yaml"])["ConfigMap"]["data"]["experts.yaml"]
    retrieval = parse_text(text, file="experts.yaml").retrieval
    assert (retrieval.pgvector_url_env, retrieval.pilots) == ("DATABASE_URL", "/data/pilots")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--target", "swarm"], "'swarm' is not one of"),
    ],
)
def test_what_cannot_be_rendered_is_named(
    arguments: list[str],
    complaint: str,
    experts_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, text = run(capsys, *arguments, "--config", str(experts_file), "--out", str(tmp_path / "out"))
    assert status != 0
    assert complaint in text
    assert not (tmp_path / "out").exists()


def test_weights_that_only_this_machine_has_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = VALUES | {"experts": {"own": {**LLAMA, "model": "./weights"}}}
    (tmp_path / "experts.yaml").write_text(yaml.safe_dump(values))
    arguments = ("--target", "compose", "--config", str(tmp_path / "experts.yaml"), "--out", str(tmp_path / "out"))
    status, text = run(capsys, *arguments)
    assert status == 1
    assert "experts.own.model: './weights' is a file of this machine" in text


def test_addresses_that_mean_the_container_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = {"engine": "openai", "model": "m", "url": "http://localhost:8001/v1"}
    values = VALUES | {"experts": {"here": here, "there": {**here, "url": "http://10.0.0.7:8001/v1"}}}
    embeds = {"kind": "openai", "url": "http://127.0.0.1:8002/v1", "model": "m", "dim": 2}
    values |= {"retrieval": {"encoder": {"kind": "hashing"}, "experts": {"near": embeds}}}
    (tmp_path / "experts.yaml").write_text(yaml.safe_dump(values))
    arguments = ("--target", "compose", "--config", str(tmp_path / "experts.yaml"), "--out", str(tmp_path / "out"))
    status, text = run(capsys, *arguments)
    assert status == 0, text
    assert "experts.here.url is an address of this machine" in text
    assert "retrieval.experts.near.url is an address of this machine" in text
    assert "experts.there" not in text

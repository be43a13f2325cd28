import copy
from datetime import date
from pathlib import Path

import pytest
import yaml

from coe.base.errors import ConfigError
from coe.router.config.composition import load_config, parse_config, parse_text

ROOT = Path(__file__).parents[2]
HOSTED = {"engine": "litellm", "model": "azure/m"}


@pytest.fixture
def values() -> dict:
    return {
        "categories": {"code": "programs", "facts": "questions", "general": "the rest"},
        "experts": {
            "small": {"engine": "echo", "model": "echo", "params_b": 1.0},
            "big": {"engine": "openai", "model": "big", "url": "http://127.0.0.1:9/v1", "params_b": 70.0},
        },
        "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}},
    }


def problems_of(values: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(values, file="e.yaml")
    assert all(line.startswith("e.yaml: ") for line in caught.value.problems)
    return "\n".join(caught.value.problems)


def test_the_shipped_file_is_valid_and_every_adapter_shares_one_base():
    config = load_config(ROOT / "experts.yaml")
    assert len(config.learned_categories) >= 12
    assert len({entry.host_group for entry in config.experts.values() if entry.adapter}) == 1


def test_unknown_key_gets_a_suggestion(values):
    values["experts"]["small"]["adaptor"] = "x"
    text = problems_of(values)
    assert "experts.small.adaptor: unknown key; did you mean 'adapter'? allowed:" in text


def test_unknown_key_at_every_depth_lists_what_is_allowed_there(values):
    values["policies"] = {"default": {"budgets": {"active_params": 3}}}
    assert "policies.default.budgets.active_params: unknown key; did you mean 'active_params_b'?" in problems_of(values)
    values["policies"] = {"default": {"budgets": {"cost_usd": float("inf"), "latency_ms": float("nan")}}}
    found = problems_of(values)
    assert "policies.default.budgets.cost_usd: " in found
    assert "policies.default.budgets.latency_ms: " in found


def test_pin_to_an_unknown_expert_names_the_close_one(values):
    values["policies"] = {"default": {"pins": {"code": "bigg"}}}
    assert "policies.default.pins.code: unknown expert 'bigg'; did you mean 'big'?" in problems_of(values)
    values["policies"] = {"default": {"pins": {"unknown_languages": "bigg"}}}
    values["categories"]["unknown_languages"] = "a category of this name"
    assert "policies.default.pins.unknown_languages: unknown expert 'bigg'; did you mean 'big'?" in problems_of(values)
    assert "categories.unknown_languages: is reserved for pins; allowed: another name" in problems_of(values)


def test_retrieval_without_its_base_encoder_is_refused(values):
    values["retrieval"] = {"experts": {"bm25": {"kind": "bm25"}}}
    assert "retrieval.encoder: required key is missing" in problems_of(values)


def test_a_strategy_that_cannot_be_is_refused(values):
    values["policies"] = {"default": {"max_calls": 3.5}, "many": {"strategy": "agree", "max_calls": 1}}
    assert "policies.many.max_calls: must be above 1 (got 1)" in problems_of(values)
    values["policies"]["many"] = {"strategy": "agrees"}
    assert "policies.many.strategy: unknown value; did you mean 'agree'?" in problems_of(values)
    values["policies"]["many"] = {"strategy": "agree", "max_calls": 3.5}
    text = problems_of(values)
    assert "policies.default.max_calls: strategy 'single' asks one expert; allowed beside: agree" in text
    values["policies"].pop("default")
    values["policies"] = {"default": values["policies"]["many"]}
    assert "policies.default.strategy: 'agree' needs three experts or more; got: 2" in problems_of(values)
    values["experts"]["third"] = values["experts"]["small"]
    assert parse_config(values).policies["default"].max_calls == 3.5


def test_answers_that_cannot_be_compared_are_refused(values):
    values["answers"] = {"cod": {"kind": "number"}, "code": {"kind": "numbr"}, "general": {"kind": "label"}}
    values["categories"] |= {"chat": "talk"}
    values["answers"] |= {"facts": {"kind": "includes", "any_of": ["x"]}, "chat": {"kind": "number", "value": 42}}
    text = problems_of(values)
    assert "answers.cod: unknown category; did you mean 'code'?" in text
    assert "answers.code: unknown kind 'numbr' of router.answers; did you mean 'number'?" in text
    assert "answers.general: labels: required option is missing" in text
    assert "answers.facts: answers of kind 'includes' are graded, never compared; allowed: call, code," in text
    assert (
        "answers.chat: answers of kind 'number' are compared; only the grader of a probe has reference values" in text
    )
    values["answers"] = {"code": {"kind": "number", "digits": 3}}
    assert parse_config(values).answers["code"].kind == "number"


def test_every_fault_is_reported_at_once(values):
    values["experts"]["big"].pop("url")
    values["categories"].pop("general")
    text = problems_of(values)
    assert "experts.big.url: required" in text
    assert "categories: 'general' is required" in text


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("router", "alpha"), 1.5, "router.alpha"),
        (("experts", "small", "engine"), "vlmm", "experts.small.engine: unknown value; did you mean 'vllm'? allowed: "),
        (("experts", "big", "engine"), "opnai", "experts.big.engine: unknown value; did you mean 'openai'? allowed: "),
        (("experts", "big", "url"), "127.0.0.1/v1", "experts.big.url: must begin with http:// or https://"),
        (("experts", "big", "url"), "http://a/v1\r\nx: y", "experts.big.url: must begin with http:// or https://"),
        (("experts", "big", "engine_args"), {"x": [1]}, "engine_args.x: must be text, a number, or true or false"),
        (
            ("experts", "big", "params_env"),
            {"api_version": "VERSION"},
            "big.params_env: engine 'openai' takes none; allowed: litellm",
        ),
        (
            ("experts", "far"),
            HOSTED | {"params": {"model": "m"}},
            "experts.far.params.model: set by other keys of the entry",
        ),
        (
            ("experts", "far"),
            HOSTED | {"params_env": {"key": "sk-1"}},
            "params_env.key: must be the name of an environment variab",
        ),
        (("experts", "big", "context_tokens"), 1.5, "experts.big.context_tokens: must be a whole number (got 1.5)"),
        (("experts", "big", "supports"), ["tool"], "experts.big.supports.0: unknown value; did you mean 'tools'?"),
        (
            ("experts", "big", "price"),
            {"inputs": 1},
            "experts.big.price: key 'inputs' is not a kind of token; did",
        ),
        (("experts", "big"), [], "experts.big: must be a mapping of keys to values (got [])"),
        (("experts", "big", "model"), None, "experts.big.model: must be text (got nothing)"),
        (("experts", "small", "params_b"), -1, "experts.small.params_b"),
        (("experts", "small", "params_b"), float("inf"), "experts.small.params_b: must be a finite number"),
        (
            ("policies",),
            {"default": {"budgets": {"active_params_b": float("inf")}}},
            "policies.default.budgets.active_params_b: must be a finite number (got inf)",
        ),
        (
            ("policies",),
            {"default": {"exploration": True}},  # YAML's `on`
            "policies.default.exploration: must be 'off' or a budget, such as 0.5% (got True)",
        ),
        (("experts", "auto"), {"engine": "echo", "model": "m"}, "'auto' is reserved"),
        (("experts", "bad name"), {"engine": "echo", "model": "m"}, "experts: key 'bad name' is not a name"),
        (("experts", True), {"engine": "echo", "model": "m"}, "experts: key must be text (got True)"),  # YAML's `yes`
    ],
)
def test_wrong_value_names_its_key_path(values, path, value, expected):
    target = values
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    assert expected in problems_of(values)
    assert ") (got" not in problems_of(values)


def test_parse_is_pure(values):
    before = copy.deepcopy(values)
    parse_config(values)
    assert values == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "not valid YAML"),
        ("a:\n\tb: 1", "yaml:2:1: is not valid YAML: .*; indent with spaces$"),
        ("- a", "must be a mapping, got a list$"),
        ("", "must be a mapping, got nothing"),
        ("a: 1\nb: \0", "yaml:2: is not valid YAML: U\\+0000 is not allowed"),
        ("version: 2024-02-31", "not valid YAML: '2024-02-31' is not a valid timestamp: day is out of range for month"),
        ("version: !!bool x", "yaml:1:10: is not valid YAML: 'x' is not a valid bool"),
        ("version: !!int ''", "'' is not a valid int$"),
        ("version: !!int abc", "'abc' is not a valid int: invalid literal"),
        ("version: !!float '1:'", "'1:' is not a valid float"),
        ("version: !!timestamp today", "'today' is not a valid timestamp$"),
        ("version: " + "9" * 5000, "9' is not a valid int: Exceeds the limit|9 is not a valid int: Exceeds the limit"),
        ('"\\ud800": 1', "yaml:1:.: is not valid YAML: .* invalid Unicode"),
        ("é: ü\n\n\nb: \x01", "yaml:4: is not valid YAML: U\\+0001 is not allowed"),
        ("[" * 5000, "not valid YAML: .* maximum nesting depth"),
        ("- " * 70 + "a", "yaml:1:129: is not valid YAML: nested more than 64 levels deep"),
        ("a: &a [*a]", "'\\*a' is inside the value that it names"),
        ("\n".join(f"k{each}: 1" for each in range(200_000)), "yaml:52429:1: .*more than 4,194,304 characters"),
        ("a: &x " + "z" * 5000 + "\nb: [" + "*x, " * 1000 + "]", "yaml:2:.*with aliases written out"),
        (
            "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 40)),
            "yaml:7:10: .*with aliases written out",
        ),
        (
            "version: 1\nexperts: {a: {}}\nexperts: {b: {}}",
            "yaml:3:1: .*the key 'experts' appears twice in one mapping",
        ),
        ("experts: {a: {}, b: {}, a: {}}", "the key 'a' appears twice"),
    ],
)
def test_broken_yaml_is_one_clear_error(tmp_path, text, expected):
    path = tmp_path / "experts.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_a_merged_key_gives_way_to_a_mapping_of_its_own(tmp_path, values):
    path = tmp_path / "experts.yaml"
    path.write_text(
        yaml.safe_dump({name: value for name, value in values.items() if name not in ("experts", "policies")})
        + "experts:\n"
        "  a: &a {engine: echo, model: m, description: of a}\n"
        "  b: &b {<<: *a, description: of b}\n"
        "  c: {<<: *b, description: of c}\n"
    )
    experts = load_config(path).experts
    assert {name: (entry.model, entry.description) for name, entry in experts.items()} == {
        name: ("m", f"of {name}") for name in "abc"
    }


def test_a_configuration_of_a_thousand_experts_is_within_the_limits(values):
    experts = {f"e{each}": values["experts"]["big"] | {"model": f"m{each}"} for each in range(1000)}
    text = yaml.safe_dump(values | {"experts": values["experts"] | experts})
    assert len(parse_text(text, file="experts.yaml").experts) >= 1000


def test_of_many_faults_a_hundred_are_shown_and_the_rest_counted(values):
    values |= {f"k{each}": 1 for each in range(50_000)}
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    assert len(caught.value.problems) == 101
    assert caught.value.problems[-1] == "experts.yaml: 49,900 more faults"


def test_missing_binary_and_huge_files_are_config_errors(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "b.yaml")
    with (tmp_path / "b.yaml").open("ab") as file:
        file.truncate(5_000_000)
    with pytest.raises(ConfigError, match="has 5,000,000 bytes; allowed: up to 4,194,304"):
        load_config(tmp_path / "b.yaml")


def test_python_tags_in_yaml_are_refused(tmp_path):
    path = tmp_path / "experts.yaml"
    path.write_text(yaml.dump({"version": 1}) + "x: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(path)


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("durability", "always", "log.durability: unknown value; allowed: async, batched, sync (got 'always')"),
        ("durabilty", "sync", "log.durabilty: unknown key; did you mean 'durability'?"),
    ],
)
def test_log_options_that_are_wrong_say_what_is_allowed(values, option, value, problem):
    values["log"] = {option: value}
    assert problem in problems_of(values)


def test_a_date_is_the_text_that_was_written(values):
    """As in `params: {api_version: 2024-10-21}`, which YAML reads as a date."""
    values["experts"]["big"] = {"engine": "litellm", "model": "azure/x", "params": {"api_version": date(2024, 10, 21)}}
    assert parse_config(values).experts["big"].params == {"api_version": "2024-10-21"}

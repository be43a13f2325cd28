"""The first words of docstrings: a verb in the imperative for a function, a noun for everything else.

Ruff's rules D check punctuation and layout. Packages that pyproject.toml still exempts from them are exempt here too.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("base", "cli", "decision_log", "eval", "fleet", "gateway", "retrieval", "router", "training")
EXEMPT = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["per-file-ignores"]
CLEAN = [package for package in PACKAGES if "D" not in EXEMPT.get(f"{package}/**", ())]

NO_SUBJECT = """
above after also and as at because before below between beyond but by during for from how if in into it its of on
once only or since such than that their them then they this those to under unless until what whatever when whenever
where wherever which while who whoever whom whose why with within without
"""
"""Words that no docstring begins with: a reader looks for the subject in vain."""

VERBS = """
abort accept accumulate acquire act add adjust admit advance align allocate allow announce annotate answer append
apply approximate arrange ask assemble assert assign attach attribute authenticate authorize average await back begin
bind block bootstrap bound bracket break bring buffer build bump bundle cache calibrate call cancel cap cast certify
change charge check choose claim classify clean clear clip clone close cluster collapse collect combine commit compare
compile complete compose compress compute concatenate configure confirm connect consume contain continue convert copy
correct count cover create cross cut debit decide declare decode decompress deduplicate default defer define delay
delegate delete deliver demand derive describe deserialize detect determine dictate digest disable discard disconnect
discount discover dispatch display distribute divide download drain draw drop dump embed emit empty enable encode
encrypt end enforce enqueue ensure enter enumerate erase escape estimate evaluate evict examine exchange exclude
execute exit expand expect explain explore export expose express extend extract fail fall feed fetch fill filter find
finish fit fix flag flatten flush fold follow forbid forget fork format forward freeze fuse gather generate get give
grade grant group guard guess halt handle hash help hide hold identify ignore import impute include increase increment
index infer initialize inject insert inspect install interpolate interrupt invalidate invert invite iterate join judge
keep kill label launch learn leave lend let limit link list listen load locate lock log look lower make map mark mask
match maximize mean measure memorize merge migrate minimize mirror mix modify monitor mount move multiply name narrow
normalize note notify observe obtain offer omit open order override own pack pad page pair parse partition pass paste
patch pause penalize perform permit persist pick pin place plan play plot poll pool pop populate post postpone predict
prefer prefix prepare prepend prevent price print probe process produce project promote prompt propagate propose
protect prove provide prune publish pull purge push put query queue quote raise randomize rank rate read rebuild
recalibrate receive recompute reconnect record recover redact redirect redraw reduce refer refine refit refresh refund
refuse register reject relabel relay release reload remember remove rename render renew reorder repair repeat replace
replay reply report represent request require reraise reread resample reserve reset resize resolve respond restart
restore restrict resume retire retrain retrieve retry return reuse reverse revert revoke rewrite roll rotate round
route run sample save say scale scan schedule score search seed select send separate serialize serve set settle shape
share shift show shrink shuffle shut sign simulate skip sleep slice smooth solve sort split spool spread stack stage
stamp standardize start state stem stop store stream strip submit subscribe subset subtract suggest sum summarize
supply suppress suspend swap switch synchronize tabulate tag take tell terminate test throttle time tokenize total
touch trace track train transfer transform translate traverse trim truncate try tune turn undo unload unlock unpack
unpin unwrap update upgrade upload use validate verify visit vote wait wake walk warm warn watch weigh weight whiten
widen withdraw withhold word wrap write yield zip
"""
"""The verbs that a function's docstring may begin with. Add one that is missing; a noun never."""

ARTICLES = frozenset({"a", "an", "the", "its", "it", "them", "their", "what", "whether", "every", "each", "no"})


def documented(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yield what has a docstring, and the docstring: modules, classes, functions and the constants above a string."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if docstring := ast.get_docstring(node):
            yield node, docstring
        for constant, following in zip(node.body, node.body[1:], strict=False):
            match constant, following:
                case ast.Assign() | ast.AnnAssign(), ast.Expr(value=ast.Constant(value=str(docstring))):
                    yield constant, docstring.strip()


def fault(node: ast.AST, docstring: str) -> str | None:
    """Return what is wrong with a docstring's first words, None if nothing is."""
    first, second, *_ = [word.strip(".,;:").lower() for word in f"{docstring} . .".split()[:2]]
    if first in NO_SUBJECT.split() or first.startswith("("):
        return "begins without a subject"
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_property(node):
        if first not in VERBS.split():
            return "begins with no imperative verb of tests/lint/test_docstrings.py"
        return "begins with a noun" if second in {"of", "is", "are"} else None
    third_person = {first.removesuffix("s"), first.removesuffix("es"), f"{first.removesuffix('ies')}y"} - {first}
    return "begins with a verb" if second in ARTICLES and third_person.intersection(VERBS.split()) else None


def is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


@pytest.mark.parametrize("package", CLEAN)
def test_docstrings_begin_with_a_verb_for_functions_and_a_noun_elsewhere(package: str) -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)} {reason}: {docstring.splitlines()[0]}"
        for path in sorted((ROOT / package / "coe").rglob("*.py"))
        for node, docstring in documented(ast.parse(path.read_text()))
        if (reason := fault(node, docstring))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ('def f():\n "Return the cost in USD."', None),
        ('class A:\n @property\n def f(self):\n  "The cost in USD."', None),
        ('def f():\n "Returns the cost in USD."', "begins with no imperative verb of tests/lint/test_docstrings.py"),
        ('def f():\n "The cost in USD."', "begins with no imperative verb of tests/lint/test_docstrings.py"),
        ('def f():\n "Price of a token in USD."', "begins with a noun"),
        ('def f():\n "(n,) the costs in USD."', "begins without a subject"),
        ('"Of the reading of one document: seconds."', "begins without a subject"),
        ('class A:\n """\n Who still waits is cancelled."""', "begins without a subject"),
        ('class A:\n "Keeps the answers of a day."', "begins with a verb"),
        ('LIMIT = 1\n"What an answer may cost."', "begins without a subject"),
        ('LIMIT: int = 1\n"Answers per day."', None),
    ],
)
def test_fault_names_what_is_wrong_with_the_first_words(source: str, reason: str | None) -> None:
    [(node, docstring)] = documented(ast.parse(source))
    assert fault(node, docstring) == reason

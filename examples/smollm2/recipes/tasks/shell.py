"""English to one command line of everyday tools."""

import re

import numpy as np

from examples.smollm2.recipes.phrasing import dress, misspell, pick
from examples.smollm2.recipes.task import Example, Split, Task

# The command's template, ways to ask for it in training, ways to ask for it held out.
# {d} folder, {e} extension, {f} file, {g} second file, {w} word, {n} number, {b} branch, {m} mode, {u} size
PATTERNS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("ls -la {d}",
     ("list all files in {d} with details, hidden ones too", "show everything in {d} including hidden files",
      "long listing of {d} with hidden files"),
     ("display all the contents of {d}, also hidden files, in long format",)),
    ("ls -t {d}",
     ("list files in {d} by modification time", "show {d} sorted by date", "newest files first in {d}"),
     ("list the contents of {d}, most recently changed first",)),
    ("find {d} -name '*.{e}'",
     ("find all .{e} files in {d}", "search {d} for {e} files", "locate every *.{e} under {d}",
      "all {e} files below {d}"),
     ("which .{e} files are somewhere under {d}?", "look for files ending in .{e} in {d}")),
    ("find {d} -type f -size +{n}M",
     ("find files larger than {n} MB in {d}", "files over {n}M under {d}",
      "search {d} for files bigger than {n} megabytes"),
     ("which files in {d} exceed {n} MB?",)),
    ("find {d} -type f -mtime -{n}",
     ("find files changed in the last {n} days in {d}", "files in {d} modified within {n} days",
      "what was modified in {d} in the past {n} days?"),
     ("look in {d} for files that changed during the last {n} days",)),
    ("find {d} -type d -empty",
     ("find empty folders in {d}", "all empty directories under {d}", "search {d} for empty directories"),
     ("which directories in {d} are empty?",)),
    ("find {d} -name '*.{e}' -delete",
     ("delete all .{e} files in {d}", "remove every {e} file under {d}", "find and delete *.{e} in {d}"),
     ("erase all files ending in .{e} below {d}",)),
    ("grep -r '{w}' {d}",
     ("search for {w} in all files under {d}", "find the text '{w}' recursively in {d}", "grep {w} in {d} recursively"),
     ("look for the word {w} in every file below {d}",)),
    ("grep -i '{w}' {f}",
     ("search {f} for {w} ignoring case", "case-insensitive search for {w} in {f}", "lines of {f} with {w}, any case"),
     ("look up {w} in {f} without regard to case",)),
    ("grep -c '{w}' {f}",
     ("count lines with {w} in {f}", "how many lines of {f} contain {w}?", "number of lines matching {w} in {f}"),
     ("tell me in how many lines of {f} {w} occurs",)),
    ("grep -n '{w}' {f}",
     ("show lines with {w} in {f} with line numbers", "search {f} for {w} and print line numbers",
      "line numbers of {w} in {f}"),
     ("at which line numbers does {w} appear in {f}?",)),
    ("tar -czf {g}.tar.gz {d}",
     ("compress {d} into {g}.tar.gz", "create a tar.gz archive {g}.tar.gz of {d}", "pack {d} as {g}.tar.gz"),
     ("make a gzipped tarball {g}.tar.gz out of {d}",)),
    ("tar -xzf {g}.tar.gz",
     ("extract {g}.tar.gz", "unpack the archive {g}.tar.gz", "untar {g}.tar.gz"),
     ("decompress the tarball {g}.tar.gz",)),
    ("du -sh {d}",
     ("how big is {d}?", "total size of {d}", "disk usage of {d}, human readable", "show the size of folder {d}"),
     ("how much space does {d} take?",)),
    ("df -h",
     ("free disk space", "show disk space human readable", "how much disk space is left?"),
     ("is there space left on the disks?",)),
    ("wc -l {f}",
     ("count the lines of {f}", "how many lines are in {f}?", "number of lines in {f}", "line count of {f}"),
     ("tell me how many lines {f} has",)),
    ("wc -w {f}",
     ("count the words in {f}", "how many words are in {f}?", "word count of {f}"),
     ("tell me how many words {f} has",)),
    ("sort {f} | uniq",
     ("sort {f} and remove duplicate lines", "unique lines of {f}", "sorted {f} without duplicates"),
     ("give me the distinct lines of {f}, sorted",)),
    ("sort -n {f}",
     ("sort {f} numerically", "numeric sort of {f}", "sort the numbers in {f}"),
     ("put the lines of {f} in numerical order",)),
    ("head -n {n} {f}",
     ("show the first {n} lines of {f}", "print the top {n} lines of {f}", "first {n} lines in {f}"),
     ("display the {n} lines at the beginning of {f}",)),
    ("tail -n {n} {f}",
     ("show the last {n} lines of {f}", "print the final {n} lines of {f}", "last {n} lines in {f}"),
     ("display the {n} lines at the end of {f}",)),
    ("tail -f {f}",
     ("follow {f}", "watch {f} as it grows", "keep showing new lines of {f}"),
     ("print what is appended to {f} live",)),
    ("chmod +x {f}",
     ("make {f} executable", "give {f} execute permission", "allow running {f}"),
     ("set the executable bit on {f}",)),
    ("chmod {m} {f}",
     ("set permissions of {f} to {m}", "change mode of {f} to {m}", "permissions {m} for {f}"),
     ("give {f} the mode {m}",)),
    ("cp -r {d} {g}",
     ("copy the folder {d} to {g}", "copy {d} recursively to {g}", "duplicate directory {d} as {g}"),
     ("make a copy of the directory {d} called {g}",)),
    ("mv {f} {d}",
     ("move {f} to {d}", "put {f} into {d}", "relocate {f} into the folder {d}"),
     ("take {f} and move it into {d}",)),
    ("mkdir -p {d}",
     ("create the folder {d} with parents", "make directory {d}, and its parents", "create directory {d} if missing"),
     ("make sure the folder {d} exists",)),
    ("rm -r {d}",
     ("delete the folder {d}", "remove directory {d} and its contents", "delete {d} recursively"),
     ("erase the directory {d} with everything in it",)),
    ("sed -i 's/{w}/{x}/g' {f}",
     ("replace {w} with {x} in {f}", "change every {w} to {x} in {f}", "substitute {x} for {w} in {f} in place"),
     ("swap all {w} for {x} inside {f}",)),
    ("git checkout -b {b}",
     ("create a git branch {b} and switch to it", "new branch {b}", "start branch {b} in git"),
     ("make a new git branch named {b} and go to it",)),
    ("git log --oneline -n {n}",
     ("show the last {n} commits in one line each", "last {n} git commits short",
      "git history, {n} entries, one line each"),
     ("give me a compact list of the latest {n} commits",)),
    ("git commit -m '{w}'",
     ("commit with message {w}", "git commit, message '{w}'", "commit my staged changes with the message {w}"),
     ("record the staged changes in git as '{w}'",)),
)  # fmt: skip
FRAMES = {
    Split.TRAIN: (
        "{q}", "{q}", "bash: {q}", "Shell command to {q}", "How do I {q} in bash?", "{q} (command line)", "linux: {q}",
        "Write a bash command: {q}", "Give me the command: {q}", "terminal command, {q}",
        "Please {q} with a shell command.",
    ),
    Split.HELD_OUT: (
        "What's the command? {q}", "On the command line: {q}", "One bash line please: {q}", "{q}\nCommand:",
    ),
}  # fmt: skip
FOLDERS = ("src", "docs", "logs", "/var/log", "/tmp", ".", "~/Downloads", "/home/anna", "data", "backup", "build",
 "/etc",
           "images", "~/projects", "/opt/app", "notes", "tests", "/srv/www")  # fmt: skip
FILES = ("notes.txt", "app.log", "data.csv", "main.py", "run.sh", "README.md", "server.log", "users.txt", "config.yaml",
         "names.txt", "report.md", "deploy.sh", "access.log", "list.txt", "index.html", "todo.txt")  # fmt: skip
EXTENSIONS = ("py", "txt", "log", "jpg", "csv", "md", "json", "tmp", "html", "sh", "pdf", "c", "png", "bak")
WORDS = ("error", "TODO", "warning", "password", "main", "timeout", "debug", "admin", "failed", "import", "user", "fix")
NAMES = ("backup", "archive", "release", "old", "copy", "site", "project", "photos", "export")
BRANCHES = ("feature", "login", "fix-typo", "dev", "hotfix", "new-api", "test-branch", "cleanup")


def _generate(rng: np.random.Generator, split: Split) -> Example:
    command, train_asks, held_out_asks = pick(rng, PATTERNS)
    fields = {
        "d": pick(rng, FOLDERS), "f": pick(rng, FILES), "e": pick(rng, EXTENSIONS), "w": pick(rng, WORDS),
        "x": pick(rng, WORDS),
        "g": pick(rng, NAMES), "b": pick(rng, BRANCHES), "n": int(rng.integers(2, 101)), "m": pick(rng, ("644", "755",
        "600", "700", "664")),
    }  # fmt: skip
    ask = pick(rng, train_asks if split is Split.TRAIN else held_out_asks)
    if rng.random() < 0.1:
        ask = misspell(rng, ask)
    prompt = pick(rng, FRAMES[split]).format(q=ask.format(**fields))
    return Example(dress(rng, split, prompt), command.format(**fields))


def _canonical(command: str) -> str:
    """One space between words, single quotes, no prompt sign, no slash at the end of a folder."""
    text = command.replace('"', "'").strip().removeprefix("$ ")
    return re.sub(r"\s+", " ", re.sub(r"(?<=\w)/(?=\s|$)", "", text)).strip()


def _grade(reply: str, example: Example) -> bool:
    """The reply's code block, or else one of its lines, is the command but for spaces and quote marks."""
    block = re.search(r"```(?:\w+\n|\n)?(.*?)```", reply, re.DOTALL)
    lines = (block[1] if block else reply).splitlines()
    return _canonical(example.answer) in {_canonical(line.strip("` ")) for line in lines}


TASK = Task("shell-writer", "shell", max_answer_tokens=60, generate=_generate, grade=_grade)

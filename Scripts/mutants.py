#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
"""Breaks the library on purpose, one line at a time, and says which tests notice.

    Scripts/mutants.py [COUNT]        COUNT mutants more than there are results for; all of them without
    Scripts/mutants.py --check        only says which places aren't found, as files moved or lines changed

Works on a copy in .build-mutants, in which the results are kept, too (results.json), so that an interrupted run goes on.
A mutant is killed by the first suite that fails: those that reach its subject first, then all others. QCOW2_MUTANT_SEED
decides the order (1 by default). docs/mutants.md is written after each.
"""
import datetime, json, os, random, signal, subprocess, sys, time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "mutants"))
from places import MUTANTS, SUITES

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COPY = os.path.join(ROOT, ".build-mutants")
RESULTS = os.path.join(COPY, "results.json")
SEED = int(os.environ.get("QCOW2_MUTANT_SEED", "1"))
LIMIT = int(os.environ.get("QCOW2_MUTANT_TIMEOUT", "900"))
# A trap kills a mutant at once; the backtrace would wait for somebody to read it.
os.environ["SWIFT_BACKTRACE"] = "enable=no"


def sources(root):
    for folder, _, names in os.walk(os.path.join(root, "Sources")):
        for name in sorted(names):
            if name.endswith(".swift"): yield os.path.join(folder, name)


def find(root, old):
    """The only file that holds the text; None if there is none, or more than one."""
    found = [path for path in sources(root) if old in open(path, encoding="utf-8").read()]
    if len(found) != 1 or open(found[0], encoding="utf-8").read().count(old) != 1: return None
    return found[0]


def run(words, log, seconds=LIMIT, stops=False):
    """The status of a command; 1 as soon as a test fails, if it `stops` there, and -1 when it takes too long."""
    end = time.monotonic() + seconds
    with open(log, "ab") as file, open(log, "rb") as reader:
        reader.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            words, cwd=os.path.join(COPY, "tree"), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            start_new_session=True)
        try:
            while True:
                try: return process.wait(timeout=0.5)
                except subprocess.TimeoutExpired: pass
                if time.monotonic() > end: return -1
                text = reader.read(1 << 22)
                if stops and ("✘ Test".encode() in text or b"Fatal error" in text): return 1
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def judge(number, subject, old, new):
    """Builds and tests one mutant: 'killed by ...', 'survived', or why not."""
    tree = os.path.join(COPY, "tree")
    path = find(tree, old)
    if path is None: return "not found"
    log = os.path.join(COPY, f"mutant-{number}.log")
    open(log, "w").close()
    with open(path, encoding="utf-8") as file: text = file.read()
    try:
        with open(path, "w", encoding="utf-8") as file: file.write(text.replace(old, new))
        if run(["swift", "build", "--build-tests"], log, 1800) != 0: return "does not compile"
        rest = "|".join(sorted(set("|".join(SUITES.values()).split("|"))))
        for name, words in (
            (f"the suites of {subject}", ["--filter", SUITES[subject]]),
            ("the suites of the others", ["--filter", rest]),
            ("the whole suite", []),
        ):
            status = run(["swift", "test", "--skip-build", *words], log, stops=True)
            if status == -1: return f"killed by time, in {name}"
            if status != 0:
                with open(log, errors="replace") as file:
                    lines = [line for line in file if "✘" in line or "Fatal error" in line]
                first = lines[0].split("✘")[-1].strip()[:90] if lines else f"status {status}"
                return f"killed by {name}: {first}"
        return "survived"
    finally:
        with open(path, "w", encoding="utf-8") as file: file.write(text)


def report(results, commit):
    judged = [r for r in results.values() if r["verdict"] == "survived" or r["verdict"].startswith("killed")]
    killed = sum(r["verdict"].startswith("killed") for r in judged)
    lines = [
        "# Mutants", "",
        "Written by `Scripts/mutants.py`: what the tests notice of changes that break the library on purpose.", "",
        f"{datetime.date.today()}, commit {commit}, seed {SEED}: {len(judged)} of {len(MUTANTS)} mutants judged, "
        f"{killed} killed" + (f" ({100 * killed // len(judged)} %)." if judged else "."), "",
        "| # | Subject | Instead of | Verdict |", "|---|---|---|---|",
    ]
    cell = lambda text: " ".join(text.split()).replace("|", "\\|")
    for key, r in sorted(results.items(), key=lambda item: int(item[0])):
        subject, old, new = MUTANTS[int(key)]
        lines.append(f"| {key} | {subject} | `{cell(old)[:70]}` | {cell(r['verdict'])} |")
    with open(os.path.join(ROOT, "docs", "mutants.md"), "w") as file: file.write("\n".join(lines) + "\n")


def main():
    if sys.argv[1:] == ["--check"]:
        lost = [(i, m) for i, m in enumerate(MUTANTS) if find(ROOT, m[1]) is None]
        for i, m in lost: print(f"mutant {i} ({m[0]}) isn't found, or not once: {m[1][:100]!r}")
        print(f"{len(MUTANTS) - len(lost)} of {len(MUTANTS)} places found")
        sys.exit(1 if lost else 0)
    os.makedirs(COPY, exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    # What is committed, beside its build: only what changed is compiled again.
    subprocess.run(f"mkdir -p {COPY}/tree && git archive HEAD | tar x -C {COPY}/tree", shell=True, cwd=ROOT, check=True)
    results = json.load(open(RESULTS)) if os.path.exists(RESULTS) else {}
    results = {k: r for k, r in results.items() if r["commit"] == commit and MUTANTS[int(k)][1] == r["old"]}
    order = list(range(len(MUTANTS)))
    random.Random(SEED).shuffle(order)
    todo = [i for i in order if str(i) not in results]
    if len(sys.argv) > 1: todo = todo[:int(sys.argv[1])]
    for number in todo:
        subject, old, new = MUTANTS[number]
        verdict = judge(number, subject, old, new)
        print(f"{number} {subject}: {verdict}", flush=True)
        results[str(number)] = {"verdict": verdict, "commit": commit, "old": old}
        with open(RESULTS + ".new", "w") as file: json.dump(results, file, indent=1)
        os.replace(RESULTS + ".new", RESULTS)
        report(results, commit)


main()

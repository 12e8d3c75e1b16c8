"""coverage.py FOLDER BUILD MACHINE: how much of igpt.h the tests in FOLDER ran (make coverage).

FOLDER has what gcc --coverage and the tests left there; BUILD is the name of it in uncovered.txt,
the list of what no test runs, each with its reason; MACHINE is what sessions in bfloat16 run on,
whose lines in the list are for the default build. The status is not 0 if fewer than 95 % of the
lines or 85 % of the branches were run, if something that was not run is not in the list, or if the
list names what was run or is no longer there.

A line counts once for each function that it is compiled into: a kernel's lines once for each
instruction set. A branch is a way out of a condition; && and || have conditions of their own. What
intrinsics do inside, and assertions, is not written in igpt.h and does not count."""

import fnmatch
import glob
import json
import os
import subprocess
import sys

LINES, BRANCHES = 95.0, 85.0
KINDS = "both", "default", "generic", "sometimes", "amx", "dots"
HERE = os.path.dirname(os.path.abspath(__file__))
HEADER = os.path.join(HERE, "..", "..", "igpt.h")


def measure(folder):
    """Of all tests {(function, line): times it ran}, {(function, line): [times of each branch]}"""
    lines, branches = {}, {}
    notes = sorted(glob.glob(os.path.join(folder, "**", "*.gcda"), recursive=True))
    if not notes:
        sys.exit("coverage: no test left anything in " + folder)
    for note in notes:
        told = subprocess.run(["gcov", "--json-format", "--stdout", "--branch-probabilities",
                               os.path.abspath(note)], cwd=folder, check=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        files = [file for unit in told.splitlines() for file in json.loads(unit)["files"]]
        for file in files:
            if os.path.basename(file["file"]) != "igpt.h":
                continue
            for line in file["lines"]:
                place = line.get("function_name", "?"), line["line_number"]
                lines[place] = lines.get(place, 0) + line["count"]
                ways = [branch["count"] for branch in line["branches"]]
                before = branches.setdefault(place, [0] * len(ways))
                if len(before) != len(ways):
                    sys.exit("coverage: %s:%d has %d branches in one test and %d in another"
                             % (place + (len(before), len(ways))))
                branches[place] = [a + b for a, b in zip(before, ways)]
    return lines, branches


def find_gaps(lines, branches):
    """What was not run, as [function, line, how many lines, what is wrong]: branches of a line that
    was run, with the lines behind it that were not; or lines alone."""
    gaps = []
    for function in sorted({place[0] for place in lines}):
        gap = None
        for number in sorted(line for name, line in lines if name == function):
            ways = branches[function, number]
            if not lines[function, number]:
                if gap is None:
                    gap = [function, number, 0, []]
                    gaps.append(gap)
                gap[2] += 1
            elif 0 in ways:
                gap = [function, number, 0, ["-+"[count > 0] for count in ways]]
                gaps.append(gap)
            else:
                gap = None
    return gaps


def read_list(build, machine):
    """Lines of uncovered.txt that are for this build, there, as [line number, functions, text, reason]"""
    entries = []
    with open(os.path.join(HERE, "uncovered.txt")) as file:
        for number, line in enumerate(file, 1):
            if line.startswith("#") or not line.strip():
                continue
            fields = [field.strip() for field in line.split(" | ")]
            if len(fields) != 4 or fields[0] not in KINDS:
                sys.exit("uncovered.txt:%d: not BUILD | FUNCTIONS | TEXT | REASON" % number)
            if fields[0] in ("both", "sometimes", build) or (fields[0] == machine and
                                                             build == "default"):
                entries.append([number] + fields)
    return entries


def main(folder, build, machine):
    with open(HEADER) as file:
        text = [""] + file.read().split("\n")
    lines, branches = measure(folder)
    gaps = find_gaps(lines, branches)
    entries = read_list(build, machine)
    used = {entry[0]: 0 for entry in entries}
    wrong = 0
    for function, number, more, ways in gaps:
        for entry in entries:
            if fnmatch.fnmatchcase(function, entry[2]) and entry[3] in text[number]:
                used[entry[0]] += 1
                break
        else:
            wrong += 1
            what = ("branches %s%s" % ("".join(ways), ", and lines after it" if more else "")
                    if ways else "never run")
            print("igpt.h:%d: %s: %s\n    %s" % (number, function, what, text[number].strip()))
    for number, kind, functions, part, _ in entries:
        if not used[number] and kind != "sometimes":
            wrong += 1
            there = any(fnmatch.fnmatchcase(name, functions) and part in text[line]
                        for name, line in lines)
            print("uncovered.txt:%d: %s: '%s' %s" % (number, functions, part,
                                                     "was run" if there else "is not there"))
    done, ways = sum(count > 0 for count in lines.values()), sum(branches.values(), [])
    taken = sum(count > 0 for count in ways)
    part = 100.0 * done / len(lines), 100.0 * taken / len(ways)
    low = part[0] < LINES or part[1] < BRANCHES
    print("%-7s %s: lines %d of %d (%.1f %%), branches %d of %d (%.1f %%)%s"
          % ("FAILED" if low or wrong else "ok", build, done, len(lines), part[0], taken, len(ways),
             part[1], ", and must be %g and %g %%" % (LINES, BRANCHES) if low else ""))
    if wrong:
        print("        uncovered.txt does not fit in %d places" % wrong)
    return low or wrong > 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))

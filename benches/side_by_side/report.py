"""Results as text for the terminal, Markdown and JSON."""

import json
import statistics
from dataclasses import asdict

COLUMNS = ("peer", "{unit}", "least-most", "in kernel", "requests/s", "p50 µs", "p99 µs", "p99.9 µs", "Pss MiB", "errors", "vigie/peer")


def median(samples, name):
    values = [value for value in (getattr(sample, name) for sample in samples) if value is not None]
    return statistics.median(values) if values else None


def ratio(results, peer):
    """Vigie's cost over the peer's: the median of the rounds' ratios. What else the machine does changes in the
    course of a run, and weighs on a round of one as on the round of the other beside it."""
    pairs = zip(results.get("vigie", []), results[peer])
    ratios = [ours.value / theirs.value for ours, theirs in pairs if theirs.value > 0]
    return statistics.median(ratios) if ratios else None


def shown(value, digits=0):
    return "" if value is None else f"{value:,.{digits}f}"


def digits_for(value):
    return 2 if value < 10 else 1 if value < 1000 else 0


def rows(results):
    """One row of cells per peer. `results`: peer name -> samples of its rounds."""
    for peer, samples in results.items():
        if not samples:
            yield [peer, "failed", *[""] * (len(COLUMNS) - 2)]
            continue
        value = median(samples, "value")
        values = [sample.value for sample in samples]
        digits = digits_for(value)
        yield [
            peer, shown(value, digits), f"{shown(min(values), digits)}-{shown(max(values), digits)}",
            shown(median(samples, "system_us"), 1), shown(median(samples, "requests_per_second")), shown(median(samples, "p50_us")),
            shown(median(samples, "p99_us")), shown(median(samples, "p999_us")), shown(median(samples, "memory_mib"), 1),
            shown(sum(sample.errors for sample in samples)),
            shown(ratio(results, peer), 2),
        ]


def table(header, body):
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def aligned(header, body):
    widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths)))
        for line in [header, *body]
    )


def scenario_text(scenario, results):
    header = [column.format(unit=scenario.unit) for column in COLUMNS]
    return f"\n{scenario.name}: {scenario.about}\n" + aligned(header, list(rows(results)))


def extras(results):
    """Further numbers of a scenario, one line per peer."""
    for peer, samples in results.items():
        names = samples[0].more if samples else {}
        for name in names:
            yield f"{peer}: {name} {statistics.median(sample.more[name] for sample in samples):.1f}"
        notes = sorted({sample.note for sample in samples if sample.note})
        if notes:
            yield f"{peer}: {'; '.join(notes)}"


def markdown(about, scenarios, results, problems):
    peers = list(about["versions"])
    out = ["# Vigie side by side with its peers", ""]
    out += [f"- {name}: {value}" for name, value in about.items() if name != "versions"]
    out += [f"- {peer}: {version}" for peer, version in about["versions"].items()]
    out += ["", "Medians of the rounds; smaller is better, except requests/s. Proxy alone on one core; load and origin on "
            "the other, so requests/s is bounded by both and CPU per request is what compares.", ""]
    body = []
    for scenario in scenarios:
        cells = []
        for peer in peers:
            value = median(results[scenario.name].get(peer, []), "value")
            cells.append("" if value is None else shown(value, digits_for(value)))
        body.append([f"{scenario.name} ({scenario.unit})", *cells])
    out += [table(["scenario", *peers], body), ""]
    if any("vigie" in of_scenario for of_scenario in results.values()):
        body = []
        for scenario in scenarios:
            ratios = {row[0]: row[-1] for row in rows(results[scenario.name])}
            body.append([scenario.name, *(ratios.get(peer, "") for peer in peers if peer != "vigie")])
        out += ["## vigie / peer", "", table(["scenario", *(peer for peer in peers if peer != "vigie")], body), ""]
    for scenario in scenarios:
        header = [column.format(unit=scenario.unit) for column in COLUMNS]
        out += [f"## {scenario.name}", "", scenario.about + ".", "", table(header, rows(results[scenario.name])), ""]
        out += [f"- {line}" for line in extras(results[scenario.name])] + [""]
    if problems:
        out += ["## Problems", ""] + [f"- {problem}" for problem in problems] + [""]
    return "\n".join(out)


def as_json(about, scenarios, results, problems):
    body = {
        "about": about,
        "problems": problems,
        "scenarios": [
            {
                "name": scenario.name, "about": scenario.about, "unit": scenario.unit,
                "peers": {
                    peer: {"median": median(samples, "value"), "rounds": [asdict(sample) for sample in samples]}
                    for peer, samples in results[scenario.name].items()
                },
            }
            for scenario in scenarios
        ],
    }
    return json.dumps(body, indent=1) + "\n"

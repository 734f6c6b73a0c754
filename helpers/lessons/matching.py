"""The judge of every "find the flaw": reports on one side, flaws on the other."""

from collections.abc import Collection, Mapping


def match(
    given: Mapping[str, str], answers: Mapping[str, str], flaws: Collection[str], where: Mapping[str, str]
) -> str | None:
    """None when each report is matched with its flaw, else a hint: `where` to look in the first that is not.

    `answers` holds the flaw of each report, `flaws` all that may be named.
    """
    if not isinstance(given, Mapping) or set(given) != set(answers):
        return f"give one flaw for each of the reports {', '.join(answers)}"
    strange = sorted({repr(v) for v in given.values() if v not in flaws})
    if strange:
        return f"{', '.join(strange)} is no flaw in the list: {', '.join(flaws)}"
    wrong = [name for name, flaw in given.items() if flaw != answers[name]]
    if wrong:
        return f"{len(wrong)} of {len(answers)} do not fit. Report {wrong[0]}: {where[wrong[0]]}."
    return None

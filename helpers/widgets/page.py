"""An explorer as HTML: its precomputed state, which the page's script (static/page.js) takes over and makes live.

Without a script, or where the browser starts no worker, what is written here stays: settings, numbers, figures, tables.
The elements and their order are those of static/explorer.js, so that nothing moves when it takes over.
"""

from collections.abc import Mapping
from hashlib import blake2b
from html import escape

from helpers.widgets.explorer import CHOICE, Value, answer, description
from helpers.widgets.explorers.registry import find
from helpers.widgets.show import Figure, json_script

A_NUMBER = 60  # characters; a longer readout is a sentence. The same stands in static/explorer.js.


def explorer_html(name: str, values: Mapping[str, Value] | None = None) -> str:
    """The `<section class="hs-explorer">` of an explorer at some values (its defaults where none are given).

    Raises `InputError` for an unknown explorer, control or value.
    """
    explorer = find(name)
    return section_html(description(explorer, values=values), answer(explorer, values or {}))


def section_html(described: dict, answered: dict) -> str:
    """The section from the two dictionaries of `helpers.widgets.explorer`; it depends on them alone."""
    state = json_script({"description": described, "answer": answered}, 'class="hs-state"')
    key = blake2b(state.encode(), digest_size=8).hexdigest()
    return (
        f'<section class="hs-explorer" id="hs-{key}" data-explorer="{escape(described["name"])}"'
        f' aria-label="{escape(described["title"])}">'
        f'<div class="hs-mount">{_body(described, answered)}</div>{state}</section>'
    )


def _body(described: dict, answered: dict) -> str:
    settings = "".join(_setting(one, answered["values"][one["name"]]) for one in described["controls"])
    figures = "".join(Figure.from_dict(one).to_html() for one in answered["figures"])
    pill = f'<span class="hs-badge">{escape(badge(described, answered["values"]))}</span>'
    return (
        '<div class="hs-body" data-state="precomputed">'
        f'<p class="hs-explorer-title">{escape(described["title"])} {pill}</p>'
        f'<p class="hs-intro">{escape(described["intro"])}</p>'
        f'<div class="hs-form"><div class="hs-fields"><div class="hs-controls">{settings}</div></div>'
        '<div class="hs-foot"><p class="hs-status">Precomputed.</p></div></div>'
        f"{_readouts(answered['readouts'])}"
        f'<p class="hs-summary">{escape(answered["summary"])}</p>'
        f'<div class="hs-figures">{figures}</div></div>'
    )


def badge(described: dict, values: Mapping[str, Value]) -> str:
    """Which hardware is shown, in words; "" for an explorer without a control for it."""
    for one in described["controls"]:
        if one["name"] == "hardware":
            return dict(one["options"]).get(values["hardware"], "")
    return ""


def _setting(one: dict, value: Value) -> str:
    text = dict(one["options"])[value] if one["kind"] == CHOICE else number_text(one, value)
    return (
        f'<div class="hs-control" data-kind="{one["kind"]}"><span class="hs-label">{escape(one["label"])}</span>'
        f'<span class="hs-value">{escape(text)}</span></div>'
    )


def number_text(control: dict, value: float) -> str:
    """The value at a slider, with as many decimals as its step, and the unit; static/explorer.js writes the same."""
    decimals = len(str(control["step"]).partition(".")[2])
    return f"{value:,.{decimals}f} {control['unit']}".rstrip()


def _pair(one: dict) -> str:
    """A label and its number; what is a sentence takes a line of its own. `readouts` of `explorer.js` does the same."""
    line = ' class="hs-line"' if len(one["text"]) > A_NUMBER else ""
    return f"<div{line}><dt>{escape(one['label'])}</dt><dd>{escape(one['text'])}</dd></div>"


def _readouts(found: list[dict]) -> str:
    """Pairs of label and number, or a table with a column for each of those that are compared."""
    compared = list(dict.fromkeys(one["of"] for one in found if "of" in one))
    if not compared:
        return f'<dl class="simple hs-readouts">{"".join(map(_pair, found))}</dl>'
    texts = {(one["label"], one.get("of")): escape(one["text"]) for one in found}
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("measure", *compared))
    rows = (
        f'<tr><th scope="row">{escape(label)}</th>'
        + "".join(f"<td>{texts.get((label, name), '')}</td>" for name in compared)
        + "</tr>"
        for label in dict.fromkeys(one["label"] for one in found)
    )
    return f'<table class="hs-compared"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'

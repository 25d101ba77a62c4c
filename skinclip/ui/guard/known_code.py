"""The page's small pieces of code, compiled in advance, so that the page runs where no text may become code.

Gradio's front end keeps templates and handlers as text and makes functions of them in the browser, for which a policy
would have to allow `unsafe-eval`: whatever text an attacker smuggled in could run as well. Here the pieces that a page
really has stand in one script, which the policy names by its hash; `Function` and its asynchronous sister find them
there by their text, and refuse every other text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

_SCRIPT = """(() => {
  const known = new Map([%s]);
  // Handlebars makes a function of its own of each template; ours have no tags for it, so it returns the text as it is.
  const constant = /^\\s*return ("(?:[^"\\\\]|\\\\.)*");\\s*$/;
  const made = (names, body) => {
    const text = constant.exec(body);
    if (text) return () => JSON.parse(text[1]);
    if (body === "return this") return () => globalThis;
    const code = known.get(body);
    if (!code) throw new EvalError("This page makes no code of text.");
    return (...values) => code(Object.fromEntries(names.map((name, i) => [name, values[i]])));
  };
  const names = (parts) => parts.flatMap((part) => String(part).split(",")).map((name) => name.trim());
  const replaced = (native) => {
    const maker = function (...parts) { return made(names(parts.slice(0, -1)), String(parts.at(-1) ?? "")); };
    maker.prototype = native.prototype;
    Object.defineProperty(native.prototype, "constructor", { value: maker, configurable: true, writable: true });
    return maker;
  };
  window.Function = replaced(Function);
  replaced(Object.getPrototypeOf(async function () {}).constructor);
})();"""


def known_code(config: Mapping[str, Any]) -> str:
    """The script for a Gradio page, from its configuration. Raises ValueError for code that would end the script."""
    components = [component.get("props", {}) for component in config["components"]]
    templates = [props.get(name) for props in components for name in ("html_template", "css_template")]
    loaded = [props.get("js_on_load") for props in components]
    events = [event.get("js") for event in config["dependencies"]]
    sync = [f"return `{text}`;" for text in _texts(templates)] + _texts(loaded)
    later = [f"return (\n{text.strip().rstrip(';')}\n);" for text in _texts(events)]
    pieces = [_piece("", body) for body in _once(sync)] + [_piece("async ", body) for body in _once(later)]
    script = _SCRIPT % ", ".join(pieces)
    if "</script" in script.lower() or "<!--" in script:
        raise ValueError("a piece of the page's code holds </script or <!--, which would end the script it stands in")
    return script


def _piece(kind: str, body: str) -> str:
    """[text, function of its named values]; `with` gives the values their names, as the text expects them."""
    return f"[{json.dumps(body)}, {kind}(scope) => {{ with (scope) {{ {body}\n}} }}]"


def _texts(values: Iterable[Any]) -> list[str]:
    return [value for value in values if isinstance(value, str)]


def _once(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))

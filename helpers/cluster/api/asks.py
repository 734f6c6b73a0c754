"""What a client asks for: the body of a request, checked field by field."""

import secrets
from dataclasses import dataclass
from typing import Any

from helpers.engine.sampling import LOW_32, Sampling
from helpers.engine.tokenizer import Tokenizer
from helpers.errors import InputError

DEFAULT_TOKENS, DEFAULT_CHAT_TOKENS = 16, 1024  # of an answer whose client does not say
MOST_STOPS = 4
ROLES = ("system", "developer", "user", "assistant", "tool")
# What would change an answer, and is not done here: refused, not passed over. Each is fine as null, or as its value
# that changes nothing.
NOT_SERVED = (
    *("logprobs", "top_logprobs", "prompt_logprobs", "echo", "suffix", "tools", "functions", "logit_bias"),
    *("frequency_penalty", "presence_penalty", "repetition_penalty", "min_p", "use_beam_search", "stop_token_ids"),
    *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "response_format"),
)
NEUTRAL = {"repetition_penalty": 1, "response_format": {"type": "text"}}
LARGEST = 2**31 - 1  # of a count: what a worker is told is a number of the machine


@dataclass(frozen=True, slots=True)
class Ask:
    """A completion, of text or of a conversation (`chat`)."""

    chat: bool
    prompt: list[int]
    max_tokens: int
    sampling: tuple[float, float, int, int]
    stop: tuple[str, ...]
    stream: bool
    usage: bool  # a last chunk with counts
    ignore_end: bool  # go on after an end token, as load generators ask for


def ask_of(body: Any, chat: bool, tokenizer: Tokenizer, model_here: str, most_tokens: int, context: int) -> Ask:
    """The ask in a body. Raises `InputError` for what is wrong, and `LookupError` for a model that is not here.

    Who does not say how many tokens he wants gets a default, or what is left of the `context`. Fields that no answer
    depends on (`user`, `metadata`), and those that nobody knows, are passed over.
    """
    if not isinstance(body, dict):
        raise InputError("the body is not a JSON object")
    if body.get("model", model_here) != model_here:
        raise LookupError(f"model {body['model']!r} is not served here; use {model_here}")
    for name in NOT_SERVED:
        if not _changes_nothing(name, body.get(name), chat):
            raise InputError(f"{name} is not served here; leave it out")
    for name in ("n", "best_of"):
        if body.get(name, 1) not in (1, None):
            raise InputError(f"{name} is {body[name]!r}; this server gives one answer")
    prompt = _messages(body, tokenizer) if chat else _prompt(body, tokenizer)
    max_tokens = body.get("max_completion_tokens")
    if max_tokens is None and (max_tokens := body.get("max_tokens")) is None:
        usual = DEFAULT_CHAT_TOKENS if chat else DEFAULT_TOKENS
        max_tokens = max(1, min(most_tokens, usual, context - len(prompt)))
    if not _whole(max_tokens) or not 1 <= max_tokens <= most_tokens:
        raise InputError(f"max_tokens is {max_tokens!r}; give a whole number from 1 to {most_tokens}")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise InputError("stream_options is not an object")
    return Ask(
        chat=chat,
        prompt=prompt,
        max_tokens=max_tokens,
        sampling=_sampling(body),
        stop=_stops(body),
        stream=_flag(body, "stream"),
        usage=_flag(options, "include_usage"),
        ignore_end=_ignores_end(body, max_tokens),
    )


def _changes_nothing(name: str, value: Any, chat: bool) -> bool:
    """Whether a field that is not served asks for nothing; 0 log probabilities of a text are those of its tokens."""
    if name == "logprobs" and not chat:
        return value is None or value is False
    return not value or value == NEUTRAL.get(name)


def _ignores_end(body: dict, max_tokens: int) -> bool:
    """Whether to go on after an end token; load generators that want so many tokens say so in two ways."""
    least = body.get("min_tokens")
    if not least or _flag(body, "ignore_eos"):
        return _flag(body, "ignore_eos")
    if least != max_tokens:
        raise InputError(f"min_tokens is {least!r}; this server knows it as large as max_tokens only, or ignore_eos")
    return True


def _prompt(body: dict, tokenizer: Tokenizer) -> list[int]:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        tokens = tokenizer.encode(_text(prompt, "prompt"))
    elif isinstance(prompt, list) and prompt and all(map(_whole, prompt)):
        tokens = prompt
    else:
        raise InputError("prompt is neither a text nor a list of tokens; give one of them")
    if not tokens:
        raise InputError("the prompt is empty; give some text")
    return tokens


def _messages(body: dict, tokenizer: Tokenizer) -> list[int]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InputError("messages is not a list with a message in it")
    return tokenizer.chat([_message(one, place) for place, one in enumerate(messages)])


def _message(one: Any, place: int) -> dict[str, str]:
    where = f"messages[{place}]"
    if not isinstance(one, dict) or one.get("role") not in ROLES:
        raise InputError(f"{where} has no role of {', '.join(ROLES)}")
    content = one.get("content")
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        if len(texts) != len(content) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{where} has content that is no text; this server reads text alone")
        content = "".join(texts)
    if not isinstance(content, str):
        raise InputError(f"{where} has no text as its content")
    return {"role": one["role"], "content": _text(content, where)}


def _text(text: str, where: str) -> str:
    """A text that can be written down: JSON may hold half a character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{where} holds half a surrogate pair, which is no character; send whole ones") from None
    return text


def _sampling(body: dict) -> tuple[float, float, int, int]:
    values = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "seed": secrets.randbelow(LOW_32)}
    for name in values:
        value = body.get(name)
        if value is None:
            continue
        whole = name in ("top_k", "seed")
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise InputError(f"{name} is {value!r}; give a {'whole ' * whole}number")
        values[name] = value
    values["seed"] &= LOW_32
    values["top_k"] = min(max(0, values["top_k"]), LARGEST)  # some clients say -1 for all
    made = Sampling(**values)
    return made.temperature, made.top_p, made.top_k, made.seed


def _stops(body: dict) -> tuple[str, ...]:
    stop = body.get("stop") or []
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > MOST_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise InputError(f"stop is {stop!r}; give at most {MOST_STOPS} texts")
    return tuple(stops)


def _flag(body: dict, name: str) -> bool:
    value = body.get(name, False)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}; give true or false")
    return value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

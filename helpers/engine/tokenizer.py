"""Text to tokens and back: a checkpoint's own tokenizer where there is one, bytes otherwise.

A chat template is a program from the checkpoint: it runs in jinja2's sandbox, which can call nothing.
"""

from pathlib import Path
from typing import Protocol

from helpers.engine.checkpoint import read_json
from helpers.errors import InputError

Message = dict[str, str]  # role and content


class Tokenizer(Protocol):
    stop: frozenset[int]  # a request that generates one of these is done

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: list[int]) -> str: ...

    def chat(self, messages: list[Message]) -> list[int]: ...


class ByteTokenizer:
    """One token a byte of UTF-8; `BEGIN` and `END` are marks, any token above is shown as a question mark in a box."""

    BEGIN, END = 256, 257
    stop = frozenset({END})

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def decode(self, tokens: list[int]) -> str:
        text = b"".join(b"\xff" if t > self.END else bytes([t]) if t < self.BEGIN else b"" for t in tokens)
        return text.decode("utf-8", errors="replace")

    def chat(self, messages: list[Message]) -> list[int]:
        """Each message as a line `role: content`, and an open line for the answer."""
        return self.encode("".join(f"{m['role']}: {m['content']}\n" for m in messages) + "assistant:")


class FolderTokenizer:
    """The tokenizer.json of a Hugging Face folder, with its special tokens and chat template."""

    def __init__(self, folder: Path) -> None:
        import tokenizers

        self.folder = folder
        path = folder / "tokenizer.json"
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise InputError(f"{path} cannot be read ({error}); download it again") from None
        settings = folder / "tokenizer_config.json"
        self._settings = read_json(settings) if settings.exists() else {}
        self.stop = self._stop_tokens()

    def _stop_tokens(self) -> frozenset[int]:
        """End tokens of generation_config.json, or else of config.json, or else of the tokenizer."""
        for name in ("generation_config.json", "config.json"):
            path = self.folder / name
            ends = read_json(path).get("eos_token_id") if path.exists() else None
            if ends is not None:
                return frozenset(ends if isinstance(ends, list) else [ends])
        end = self._tokenizer.token_to_id(self._special("eos_token"))
        return frozenset() if end is None else frozenset([end])

    def _special(self, name: str) -> str:
        value = self._settings.get(name) or ""
        return value.get("content", "") if isinstance(value, dict) else value

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text).ids

    def decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True)

    def chat(self, messages: list[Message]) -> list[int]:
        """The tokens of a conversation as the model was trained to see it, with an open turn for the answer."""
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        try:
            text = environment.from_string(self._template()).render(
                messages=messages,
                add_generation_prompt=True,
                bos_token=self._special("bos_token"),
                eos_token=self._special("eos_token"),
            )
        except TemplateError as error:
            raise InputError(f"the chat template of {self.folder} fails: {error}") from None
        return self._tokenizer.encode(text, add_special_tokens=False).ids  # the template has written them

    def _template(self) -> str:
        path = self.folder / "chat_template.jinja"
        template = path.read_text(encoding="utf-8") if path.exists() else self._settings.get("chat_template")
        if isinstance(template, list):  # several named ones
            template = next((t.get("template") for t in template if t.get("name") == "default"), None)
        if not isinstance(template, str):
            raise InputError(f"{self.folder} has no chat template; give plain text")
        return template


def _refuse(message: str) -> None:
    """What templates call when they cannot render the messages."""
    from jinja2 import TemplateError

    raise TemplateError(message)


def tokenizer_for(model: str | Path) -> Tokenizer:
    """The tokenizer of a folder that has one, else bytes (presets, and folders without)."""
    return FolderTokenizer(Path(model)) if (Path(model) / "tokenizer.json").exists() else ByteTokenizer()

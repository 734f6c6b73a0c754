"""Bytes, a tokenizer from a folder, and chat templates that may do nothing but text."""

import json

import pytest
import tokenizers

from helpers.engine.tokenizer import ByteTokenizer, tokenizer_for
from helpers.errors import InputError

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}"
    "{{ raise_exception('no such role') }}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture
def folder(tmp_path):
    """A word tokenizer that puts <s> before every text, as Llama's does."""
    words = ["<s>", "</s>", "[", "]", "user", "assistant", "hello", "world"]
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="</s>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.WhitespaceSplit(), tokenizers.pre_tokenizers.Punctuation()]
    )
    made.add_special_tokens(["<s>", "</s>"])
    made.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    made.save(str(tmp_path / "tokenizer.json"))
    settings = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": TEMPLATE}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return tmp_path


def test_bytes_there_and_back():
    tokenizer = ByteTokenizer()
    assert tokenizer.encode("Aé") == [65, 0xC3, 0xA9]
    assert tokenizer.decode(tokenizer.encode("naïve – 漢字")) == "naïve – 漢字"
    assert tokenizer.decode([65, 0xC3]) == "A\ufffd"  # half a character
    assert tokenizer.decode([65, ByteTokenizer.END, 300]) == "A\ufffd"
    assert tokenizer.decode(tokenizer.chat([{"role": "user", "content": "hi"}])) == "user: hi\nassistant:"


def test_a_folder_without_a_tokenizer_has_bytes(tmp_path):
    assert isinstance(tokenizer_for(tmp_path), ByteTokenizer)
    assert isinstance(tokenizer_for("tiny"), ByteTokenizer)


def test_a_folder_with_one(folder):
    tokenizer = tokenizer_for(folder)
    assert tokenizer.encode("hello world") == [0, 6, 7]
    assert tokenizer.decode([0, 6, 7, 1]) == "hello world"
    assert tokenizer.stop == {1}


def test_the_chat_template_writes_the_special_tokens_once(folder):
    tokens = tokenizer_for(folder).chat([{"role": "user", "content": "hello"}])
    assert tokens == [0, 2, 4, 3, 6, 2, 5, 3]  # <s> [ user ] hello [ assistant ]


def test_a_template_file_goes_first(folder):
    (folder / "chat_template.jinja").write_text("hello", encoding="utf-8")
    assert tokenizer_for(folder).chat([]) == [6]


@pytest.mark.parametrize("ends", [7, [6, 7]])
def test_end_tokens_of_the_generation_config_go_first(folder, ends):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}), encoding="utf-8")
    assert tokenizer_for(folder).stop == {7, *([6] if ends == [6, 7] else [])}


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ ''.__class__.__mro__ }}", "fails"),  # a way out of a template, closed by the sandbox
        ("{% for %}", "fails"),
        ("{{ raise_exception('no such role') }}", "no such role"),
        ("{{ messages.append(1) }}", "fails"),
    ],
)
def test_a_template_that_does_more_than_text(folder, template, said):
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        tokenizer_for(folder).chat([{"role": "user", "content": "hello"}])


def test_no_template_and_no_json(folder):
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(InputError, match="no chat template"):
        tokenizer_for(folder).chat([])
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read"):
        tokenizer_for(folder)

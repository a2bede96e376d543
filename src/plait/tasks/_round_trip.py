"""What a tokenizer does to text: whether it comes back, and whether the model knows every token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

#: Texts that come back from a tokenizer without loss, if it has none: scripts, code, signs, spaces.
SAMPLES: Mapping[str, str] = MappingProxyType(
    {
        "English": "The quick brown fox can't jump over 13 lazy dogs.",
        "accents": "Grüße, façade, año, žluťoučký kůň, İstanbul",
        "Cyrillic": "Съешь же ещё этих мягких французских булок",
        "Greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
        "Arabic": "نص حكيم له سر قاطع",
        "Hebrew": "דג סקרן שט בים מאוכזב",
        "Hindi": "ऋषियों को सताने वाले दुष्ट",
        "Thai": "เป็นมนุษย์สุดประเสริฐ",
        "Chinese": "我能吞下玻璃而不伤身体。",
        "Japanese": "いろはにほへと、カタカナと漢字。",
        "Korean": "키스의 고유조건은 입술끼리 만나야 한다",
        "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪",
        "mathematics": "∀ε>0 ∃δ: |x−a|<δ ⇒ |f(x)−f(a)|<ε",
        "combining marks": "e\u0301 and é are two texts",
        "code": "def f(x):\n\treturn {'a': [x**2, -1]}  # note\n\n\nif x != 0:\n    f(x)\n",
        "spaces": "one two  three   four\ttab\nline\n\nparagraph",
    }
)
_CHAT = (
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "And 3 + 3?"},
)


@dataclass(frozen=True)
class RoundTrip:
    """What was found of a tokenizer.

    Args:
        vocabulary: how many tokens it has, added ones included.
        added: how many of them were added to its vocabulary.
        rows: how many tokens the model has an embedding for.
        lost: texts of `SAMPLES` that do not come back.
        split: special tokens that are not one token of their own, or don't come back.
        chat: `ok`; `none` without a chat template; or what is wrong with it.
        homeless: tokens that the model has no embedding for.
    """

    vocabulary: int
    added: int
    rows: int
    lost: tuple[str, ...]
    split: tuple[str, ...]
    chat: str
    homeless: tuple[str, ...]

    @property
    def problems(self) -> list[str]:
        """What is wrong, in sentences; a text that is lost may be by the tokenizer's design."""
        found = []
        if self.homeless:
            told = ", ".join(f"`{token}`" for token in self.homeless[:3])
            count = len(self.homeless)
            found.append(f"{count} of its tokens have no row among the model's {self.rows}: {told}")
        if self.lost:
            found.append(f"text does not come back as it was: {', '.join(self.lost)}")
        if self.split:
            told = ", ".join(f"`{token}`" for token in self.split)
            found.append(f"special tokens that are not one token: {told}")
        if self.chat not in ("ok", "none"):
            found.append(f"its chat template: {self.chat}")
        return found


def round_trip(tokenizer: Any, rows: int) -> RoundTrip:
    """Try a tokenizer on texts of many kinds, its special tokens, and its chat template.

    Args:
        tokenizer: of transformers.
        rows: how many tokens the model has an embedding for.
    """
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    return RoundTrip(
        vocabulary=len(vocabulary),
        added=len(tokenizer.get_added_vocab()),
        rows=rows,
        lost=tuple(name for name, text in SAMPLES.items() if back(tokenizer, text) != text),
        split=tuple(token for token in tokenizer.all_special_tokens if not _whole(tokenizer, token)),
        chat=_chat(tokenizer),
        homeless=tuple(sorted(token for token, number in vocabulary.items() if number >= rows)),
    )


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text, and none that a tokenizer adds to it."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def text_of(tokenizer: Any, ids: Sequence[int], *, special: bool = True) -> str:
    """The text of tokens, with its special ones or without; spaces are left as they are."""
    return tokenizer.decode(list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False)


def back(tokenizer: Any, text: str) -> str:
    """What becomes of a text that is made tokens, and text again."""
    return text_of(tokenizer, ids_of(tokenizer, text))


def _whole(tokenizer: Any, token: str) -> bool:
    """Whether a special token is one token in a text, and comes back."""
    ids = ids_of(tokenizer, token)
    return ids == [tokenizer.convert_tokens_to_ids(token)] and text_of(tokenizer, ids) == token


def _chat(tokenizer: Any) -> str:
    """Whether messages are written with the chat template, and are the same tokens as their text."""
    if not getattr(tokenizer, "chat_template", None):
        return "none"
    options = {"add_generation_prompt": True}
    try:
        text = tokenizer.apply_chat_template(list(_CHAT), tokenize=False, **options)
        made = tokenizer.apply_chat_template(list(_CHAT), tokenize=True, return_dict=True, **options)
    except Exception as error:  # a template is a program of the folder's
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        return f"it refuses a conversation: {reason}"
    missing = [message["content"] for message in _CHAT if message["content"] not in text]
    if missing:
        return f"it leaves out what was said: `{missing[0]}`"
    if ids_of(tokenizer, text) != list(made["input_ids"]):
        return "its text and its tokens differ"
    return "ok"

"""Text as TRL's data sets hold it, as tokens of which some count: text, messages, prompt and completion."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plait.errors import InputError

_FORMS = "`text`, `messages`, or `prompt` and `completion`"


@dataclass(frozen=True)
class Tokens:
    """A document.

    Args:
        ids: its tokens.
        counted: for each token, whether its loss counts.
    """

    ids: list[int]
    counted: list[bool]

    def cut(self, length: int | None) -> Tokens:
        """Its beginning, of at most so many tokens."""
        return Tokens(self.ids[:length], self.counted[:length])

    @property
    def useful(self) -> bool:
        """Whether a token counts that has another before it."""
        return any(self.counted[1:])


@dataclass(frozen=True)
class Reader:
    """Makes tokens of rows.

    Args:
        tokenizer: of transformers.
        completion_only: whether a prompt's tokens count; None for not.
        assistant_only: whether only what the assistant says counts, in messages.
    """

    tokenizer: Any
    completion_only: bool | None
    assistant_only: bool

    def __call__(self, row: Mapping[str, Any], where: str) -> Tokens:
        """The tokens of a row.

        Raises:
            InputError: it is of none of the forms, or options ask for what it has not.
        """
        if row.get("messages") is not None:
            return self._messages(row, where)
        if row.get("prompt") is not None and row.get("completion") is not None:
            return self._completion(row, where)
        if self.assistant_only:
            raise InputError(
                "only messages have an assistant", where=where, hint="leave out assistant_only_loss"
            )
        if isinstance(row.get("text"), str):
            self._no_prompt(where)
            ids = self._ended(self.tokenizer(row["text"])["input_ids"])
            return Tokens(ids, [True] * len(ids))
        told = ", ".join(f"`{name}`" for name in row) or "nothing"
        raise InputError(f"a row has {told}", where=where, hint=f"give {_FORMS}, as TRL takes them")

    def _messages(self, row: Mapping[str, Any], where: str) -> Tokens:
        self._no_prompt(where)
        messages, tools = row["messages"], row.get("tools")
        ids = self._chat(messages, tools, where)
        if not self.assistant_only:
            return Tokens(ids, [True] * len(ids))
        return Tokens(ids, self._said(messages, tools, ids, where))

    def _completion(self, row: Mapping[str, Any], where: str) -> Tokens:
        """A prompt's tokens are those that it has in common with prompt and completion together."""
        prompt, completion = row["prompt"], row["completion"]
        if isinstance(prompt, str) and isinstance(completion, str):
            before = self.tokenizer(prompt)["input_ids"]
            ids = self._ended(self.tokenizer(prompt + completion)["input_ids"])
        elif isinstance(prompt, str) or isinstance(completion, str):
            raise InputError("`prompt` and `completion` differ in kind", where=where,
                             hint="give two texts, or two lists of messages")  # fmt: skip
        else:
            before = self._chat(prompt, row.get("tools"), where, answer=True)
            ids = self._chat([*prompt, *completion], row.get("tools"), where)
        if self.assistant_only and not isinstance(prompt, str):
            return Tokens(ids, self._said([*prompt, *completion], row.get("tools"), ids, where))
        start = _common(before, ids) if self.completion_only is not False else 0
        return Tokens(ids, [place >= start for place in range(len(ids))])

    def _no_prompt(self, where: str) -> None:
        if self.completion_only:
            raise InputError("there is no completion whose loss alone could count", where=where,
                             hint="give `prompt` and `completion`")  # fmt: skip

    def _ended(self, ids: Sequence[int]) -> list[int]:
        """Tokens that end with the end of a text."""
        end = self.tokenizer.eos_token_id
        return [*ids] if end is None or (ids and ids[-1] == end) else [*ids, end]

    def _chat(self, messages: Sequence[Any], tools: Any, where: str, *, answer: bool = False) -> list[int]:
        if not self.tokenizer.chat_template:
            raise InputError("the tokenizer has no chat template", where=where,
                             hint="set tokenizer.chat_template, or give plain text")  # fmt: skip
        found = self.tokenizer.apply_chat_template(
            list(messages), tools=tools, tokenize=True, add_generation_prompt=answer, return_dict=True
        )
        return list(found["input_ids"])

    def _said(self, messages: Sequence[Any], tools: Any, ids: list[int], where: str) -> list[bool]:
        """Which tokens the assistant says, as a template with `{% generation %}` marks them.

        With another, those between what comes before a message of its and what ends with it.
        """
        if re.search(r"{%-?\s*generation", str(self.tokenizer.chat_template)):
            marked = self.tokenizer.apply_chat_template(
                list(messages),
                tools=tools,
                tokenize=True,
                return_dict=True,
                return_assistant_tokens_mask=True,
            )
            return [bool(own) for own in marked["assistant_masks"]]
        counted = [False] * len(ids)
        for place, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._chat(messages[:place], tools, where, answer=True) if place else []
            until = self._chat(messages[: place + 1], tools, where)
            start, stop = _common(before, ids), _common(until, ids)
            if start < len(before) or stop <= start:
                hint = "it rewrites earlier messages, which hides who says what; give prompt and completion"
                raise InputError(
                    "the chat template does not tell what the assistant says", where=where, hint=hint
                )
            counted[start:stop] = [True] * (stop - start)
        return counted


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    for place, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return place
    return min(len(first), len(second))


def text_bytes(tokenizer: Any, tokens: Tokens) -> int:
    """How many bytes of text the counted tokens stand for, the first token's left out.

    A run's bytes are those of the text up to its end without those up to its start, so that tokens that begin
    with a space keep it.
    """
    total, place, length = 0, 1, len(tokens.ids)
    while place < length:
        stop = place
        while stop < length and tokens.counted[stop]:
            stop += 1
        if stop > place:
            total += _size(tokenizer, tokens.ids[:stop]) - _size(tokenizer, tokens.ids[:place])
        place = stop + 1
    return total


def _size(tokenizer: Any, ids: list[int]) -> int:
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return len(text.encode("utf-8", errors="replace"))

"""Messages as a tokenizer's chat template writes them, and which of their tokens the assistant says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from plait.errors import InputError

Messages = Sequence[Mapping[str, Any]]
_GENERATION = re.compile(r"{%[-+]?\s*generation\b")
_MARK = (
    "put it between {% generation %} and {% endgeneration %} in tokenizer.chat_template, or give `prompt` "
    "and `completion`"
)


def messages(given: Any, name: str, where: str) -> list[Mapping[str, Any]]:
    """A list of messages.

    Raises:
        InputError: it is none, or empty, or one has no role or nothing to say.
    """
    hint = 'give a list such as [{"role": "user", "content": "…"}]'
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise InputError(f"`{name}` is {_short(given)}", where=where, hint=hint)
    found = list(given)
    if not found:
        raise InputError(f"`{name}` is empty", where=where, hint=hint)
    for place, message in enumerate(found):
        if not isinstance(message, Mapping):
            raise InputError(f"`{name}`, message {place} is {_short(message)}", where=where, hint=hint)
        said = isinstance(message.get("content"), str | list) or message.get("tool_calls")
        lacks = "role" if not isinstance(message.get("role"), str) else "" if said else "content"
        if lacks:
            raise InputError(f"`{name}`, message {place} has no `{lacks}`", where=where, hint=hint)
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"


def written(
    tokenizer: Any, said: Messages, tools: Any, where: str, *, answer: bool = False, **options: Any
) -> Mapping[str, Any]:
    """What the chat template makes of messages: `input_ids` and, if asked for, masks.

    Args:
        tokenizer: of transformers.
        said: the messages.
        tools: for the template.
        where: for messages of errors.
        answer: whether what begins an answer is added.
        options: for `apply_chat_template`.

    Raises:
        InputError: there is no template, or it refuses the messages.
    """
    from jinja2 import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        raise InputError("the tokenizer has no chat template", where=where,
                         hint="set tokenizer.chat_template, or give plain text")  # fmt: skip
    try:
        return tokenizer.apply_chat_template(
            list(said), tools=tools, tokenize=True, add_generation_prompt=answer, return_dict=True, **options
        )
    except (TemplateError, TypeError, ValueError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        what = f"the chat template refuses the messages: {why}"
        raise InputError(what, where=where, hint="change the row, or tokenizer.chat_template") from error


def assistant(tokenizer: Any, said: Messages, tools: Any, where: str) -> tuple[list[int], list[bool]]:
    """Tokens of messages, and for each whether the assistant says it, as the template's marks tell.

    Raises:
        InputError: as `written`; or the template has no `{% generation %}`, or marks none of what is said.
    """
    template = getattr(tokenizer, "chat_template", None)
    if template and not _GENERATION.search(str(template)):
        what = "the chat template does not mark what the assistant says"
        raise InputError(what, where=where, hint=_MARK)
    marked = written(tokenizer, said, tools, where, return_assistant_tokens_mask=True)
    ids, counted = list(marked["input_ids"]), [bool(own) for own in marked["assistant_masks"]]
    if not any(counted) and any(each["role"] == "assistant" and each.get("content") for each in said):
        what = "the chat template marks none of what the assistant says"
        raise InputError(what, where=where, hint=_MARK)
    return ids, counted


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    for place, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return place
    return min(len(first), len(second))

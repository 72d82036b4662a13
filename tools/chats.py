"""The conversations that the chat template goldens are made of."""


def said(*turns: str) -> list[dict[str, str]]:
    """'s:', 'u:' or 'a:' and the text."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[turn[0]], "content": turn[2:]} for turn in turns]


CHATS = [
    said("u:Hi"),
    said("s:You are a shop assistant.", "u:Where is my order?"),
    said("u:Where is my order?", "a:May I have the number?", "u:4711"),
    said("s:You are a shop assistant.", "u:Where is my order?", "a:May I have the number?", "u:4711", "a:It is on its way.", "u:Thanks!"),
    said("s: Be brief.\n", "u:  spaces around \n", "a: \n answer ", "u:line one\n\nline two"),
    said("u:你好 😀 <b>&amp;</b> {{ x }}"),
]
